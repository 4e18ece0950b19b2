"""The contract that every model family fulfils."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from models.data.dataset import Dataset, Examples
from models.data.tokens import LearnedTokens
from models.explain.explanation import Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = Mapping[str, Tensor]
State = dict[str, Tensor]
Metrics = dict[str, tuple[float, float]]
"""Name -> (total, weight). Sums, so that merging clients is exact; the ratio is taken once, at the end."""


@dataclass(frozen=True)
class OptimizerChoice:
    """A torch.optim class by its name, its step size and its other options."""

    name: str = "sgd"
    learning_rate: float = 0.05
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """A loss, the parameters that it trains, and how it trains them."""

    name: str
    loss: Callable[[nn.Module, Batch], Tensor]
    """(model, batch) -> mean loss over the batch, a scalar."""
    parameters: tuple[str, ...] = ("*",)
    """fnmatch patterns of the parameter names that this objective trains."""
    optimizer: OptimizerChoice = field(default_factory=OptimizerChoice)
    """What trains them where the run config names nothing else."""
    max_grad_norm: float = math.inf
    """Norm to which the gradients of all its parameters together are clipped before a step."""
    not_decayed: tuple[str, ...] = ()
    """fnmatch patterns of parameter names that an optimizer's `weight_decay` leaves alone."""
    warmup_steps: int = 0
    """Steps in a round over which the learning rate grows linearly to its full size."""
    count: Callable[[Batch], int] | None = None
    """(batch) -> how many terms the loss is the mean of, such as tokens; None is one an example. A reported
    loss is the mean over them, and there is none where a client has had no term."""

    def terms(self, batch: Batch) -> int:
        """Return how many terms the loss of a batch is the mean of."""
        return len(next(iter(batch.values()))) if self.count is None else self.count(batch)


class Task(ABC):
    """What is learned: network, objectives, data kind and metrics.

    A task is built once in a process from its dataset and options, and serves every client there; it
    keeps nothing of a client. Everything that a client remembers is in the `state_dict()` of the
    module that `build` returns; other attributes, and buffers that are not persistent, would leak from
    one client to the next. All randomness is drawn from the generator that a method is given.
    """

    kind: ClassVar[str]
    """The kind of dataset that this task learns from."""
    local: tuple[str, ...] = ()
    """fnmatch patterns of state that stays with the client."""
    freeze: tuple[str, ...] = ()
    """fnmatch patterns of parameters that stay as they are."""
    parts: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Parts of the model that not every client trains, by name: fnmatch patterns of their parameters.

    Such as the encoder of pictures, where some clients have texts alone. A client that does not train a part
    (`trained_parts`) sends it back as it came, and the mean of the part is over those clients that do.
    """
    agreed: Sequence[str] = ()
    """What the numbers in the examples stand for, where the data decides it; all nodes must agree."""
    stackable: bool = False
    """Whether clients may train side by side, as one computation.

    They may where `batches` does not look at the model, `after_step` does nothing, and the losses use
    nothing that torch.func.vmap refuses, such as dropout or nn.LSTM.
    """
    unstackable: str = ""
    """Why they may not, where a task knows it: the end of "task NAME, which ..."."""
    metric: ClassVar[str]
    """The metric that early stopping and the best model go by."""
    maximize: ClassVar[bool] = True
    """Whether more of `metric` is better."""
    metrics: ClassVar[tuple[str, ...]] = ()
    """The other names that `evaluate` returns; fnmatch patterns where the data decides them."""

    batches_anywhere: bool = False
    """Whether `batches` makes its batches of examples that lie on a GPU as well, and leaves them there.

    A client's examples are then moved once a round, instead of each batch. What is drawn comes from a
    generator of the CPU, and may stay there: the training loop moves what has not been moved. A class that
    overrides `batch` or `batches` says it anew.
    """
    batch_by_row: bool = False
    """Whether `batch` draws nothing, and makes of an example the same whatever others are beside it.

    Clients that train side by side then get their batches all at once. A class that overrides `batch` or
    `batches` says it anew.
    """
    pretrains: ClassVar[bool] = False
    """Whether it learns without labels, for other tasks to begin with: `init-from` takes its last model.

    Its metric, such as a probe's accuracy, is not what it is trained for, and may be best before training.
    """
    explained_by: Sequence[str] = ()
    """Methods by which `explain` tells what a model looks at, the most telling first; () where it cannot."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @abstractmethod
    def build(self) -> nn.Module:
        """Return a freshly initialised module that holds all that is learned or remembered.

        A parameter that asks for no gradient is frozen: it is neither averaged nor sent back.
        """

    @property
    @abstractmethod
    def objectives(self) -> Sequence[Objective]:
        """Return the objectives; every batch serves each of them, in this order."""

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        """Yield the batches of one local epoch: the client's examples shuffled; the last may be smaller.

        Where the model cannot train on one example alone, a last batch of one is joined to the one before.
        Override where an epoch is something else, as for a DQN, which acts in its environments.
        """
        for rows in self.shuffled(model, data, generator, batch_size):
            yield self.batch(rows, generator)

    def shuffled(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Examples]:
        """Yield the examples of each batch of one local epoch."""
        # Looking through the model takes longer than a small batch, and matters for a batch of one alone.
        alone = (len(data) % batch_size != 1 and batch_size > 1) or self.trains_on_one(model)
        for rows in data.shuffled(generator, batch_size, alone):
            if len(rows) == 1 and not alone:
                raise ValueError(
                    "the model has a BatchNorm, which cannot train on one example alone (the client has "
                    f"{len(data)}, batch-size is {batch_size}): use more, or a LayerNorm or GroupNorm"
                )
            yield rows

    def trains_on_one(self, model: nn.Module) -> bool:
        """Return whether the model can train on a batch of one example, which BatchNorm1d cannot.

        Override for a BatchNorm2d over maps of one pixel, or a BatchNorm1d over sequences.
        """
        return not any(isinstance(module, nn.BatchNorm1d) for module in model.modules())

    def num_batches(self, data: Examples, batch_size: int) -> int:
        """Return about how many batches an epoch has, for a part of one; override it with `batches`."""
        return math.ceil(len(data) / batch_size)

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return what the objectives see of these examples; override to scale them or to draw noise."""
        return examples.columns

    def trained_parts(self, data: Examples) -> Collection[str]:
        """Return which of `parts` a client with these examples trains; override it with `parts`."""
        return tuple(self.parts)

    def num_examples(self, data: Examples) -> int:
        """Return the weight of a client with these examples; override where another number counts them."""
        return len(data)

    def after_step(self, model: nn.Module) -> None:  # noqa: B027  (a hook that few tasks need)
        """Act after all objectives of a batch have stepped, as a DQN does for its target network."""

    def learned_tokens(self) -> LearnedTokens | None:
        """Return the tokens that it has learned from its dataset, which other machines must take over."""
        return None

    def notes(self) -> Sequence[tuple[int, str]]:
        """Return what a person should know of the data before round 1, as lines with their logging level."""
        return ()

    @abstractmethod
    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of every metric over the examples; the model is in eval mode, without gradients.

        A metric that these examples leave undefined has weight 0, or is left out. What an evaluation draws,
        such as a latent or an episode's start, comes from the generator.
        """

    def ratios(self, metrics: Metrics) -> dict[str, float]:
        """Turn merged sums into the numbers people read; override where a metric is no plain mean.

        A metric of weight 0 is undefined, and is left out.
        """
        return {name: total / weight for name, (total, weight) in metrics.items() if weight}

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw what a person would rather look at, by name; `data` is the held-out examples."""
        return {}

    def explain(
        self, model: nn.Module, data: Examples, method: str, asked: Sequence[int] | None = None
    ) -> Explanation:
        """Tell how much each part of each example counts for an answer, by one of `explained_by`.

        `asked` are the numbers of the answers, such as classes; unless given, they are what the model says.
        The model is on the CPU and in eval mode, and gradients are computed. Nothing is drawn at random.
        """
        raise NotImplementedError(f"{type(self).__name__} has explained_by and no explain")


def merge_metrics(parts: Sequence[Metrics]) -> Metrics:
    """Add the sums of several clients; one whose metric has weight 0 is left out of that metric."""
    merged: Metrics = {}
    for part in parts:
        for name, (total, weight) in part.items():
            so_far = merged.setdefault(name, (0.0, 0.0))
            if weight:
                merged[name] = (so_far[0] + total, so_far[1] + weight)
    return merged
