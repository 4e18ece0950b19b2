"""What the benchmarks train, W1 to W4: tasks of few lines, and what polyfed is asked for in each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.config import RunConfig
from models.data.dataset import Dataset, Examples, Indices
from models.images.cnn import ImageClassification
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task
from simulations.bench.networks import CharacterLSTM, cifar_cnn, small_cnn, wide

LEARNING_RATE, MOMENTUM = 0.05, 0.9
"""Of the SGD by which all of them train."""


class SmallClassification(ImageClassification):
    """Classify 8x8 pixels, trained as its parent is: SGD, 0.05, momentum 0.9."""

    def build(self) -> nn.Module:
        """Return the network."""
        return small_cnn()


class CifarClassification(ImageClassification):
    """Classify pictures of the size of CIFAR's."""

    def build(self) -> nn.Module:
        """Return the network."""
        return cifar_cnn()


class WideClassification(ImageClassification):
    """Classify the same pictures with many weights; `hidden` is the width of its two hidden layers."""

    def __init__(self, dataset: Dataset, hidden: int = 3696) -> None:
        super().__init__(dataset)
        self.hidden = hidden

    def build(self) -> nn.Module:
        """Return the network."""
        return wide(self.hidden)


class NextCharacter(Task):
    """Predict each next character of a line with an nn.LSTM, which cannot be stacked."""

    kind = "text"
    metric = "loss"
    maximize = False

    def build(self) -> nn.Module:
        """Return the network."""
        return CharacterLSTM()

    @property
    def objectives(self) -> Sequence[Objective]:
        """Cross-entropy, by SGD with momentum."""
        sgd = OptimizerChoice("sgd", LEARNING_RATE, {"momentum": MOMENTUM})
        return [Objective("loss", _next_character, optimizer=sgd)]

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return the characters as indices of their embeddings."""
        return {"text": examples["text"].long()}

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sum of the losses of all lines."""
        text = data["text"].long().to(next(model.parameters()).device)
        return {"loss": (float(_next_character(model, {"text": text})) * len(data), len(data))}


def _next_character(model: nn.Module, batch: Batch) -> Tensor:
    return loss(model(batch["text"][:, :-1]), batch["text"][:, 1:])


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """(..., C), (...) -> the mean cross-entropy, a scalar."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


def inputs_and_targets(dataset: Dataset, rows: Indices | None = None) -> tuple[Tensor, Tensor]:
    """Return what a network sees of the training examples, of all or of `rows`, and what it shall answer."""
    examples = dataset.train if rows is None else dataset.train.take(rows)
    if dataset.kind == "text":
        text = examples["text"].long()
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()
    return examples["image"].float() / float(dataset.info["max_value"]), examples["label"]


@dataclass(frozen=True)
class Workload:
    """A federation that every system trains, one epoch a round."""

    about: str
    """What is trained, in a few words."""
    network: Callable[[], nn.Module]
    keys: Mapping[str, bool | int | float | str]
    """What polyfed is asked for; checkpoints, metrics and TensorBoard stay on, as they are by default."""
    examples: int
    """Examples of each client."""
    rounds: int
    """Rounds of a run, with the last, which has no end, and those to warm up."""
    warm_up: int
    """Rounds of each run that are dropped: workers import torch in the first, and caches fill."""
    stacks: bool = True
    """Whether its clients can be trained as one stack."""

    def run_config(self) -> RunConfig:
        """Return the keys of the run config that make this workload."""
        return {
            "partitioner": "iid",
            "local-epochs": 1,
            "evaluate-every": 0,
            "validation-fraction": 0.0,
            **self.keys,
        }

    @property
    def num_clients(self) -> int:
        """Clients that there are."""
        return int(self.keys["num-clients"])

    @property
    def clients_per_round(self) -> int:
        """Clients that train in a round."""
        return int(self.keys["clients-per-round"])


def _task(cls: type[Task]) -> str:
    return f"{cls.__module__}:{cls.__name__}"


WORKLOADS: Mapping[str, Workload] = {
    "W1": Workload(
        "CNN of 60,362 parameters on 3x32x32 pictures",
        cifar_cnn,
        {
            "task": _task(CifarClassification),
            "dataset": "simulations.bench.made_data:PICTURES",
            "num-clients": 100,
            "clients-per-round": 10,
            "batch-size": 20,
        },
        examples=100,
        rounds=12,
        warm_up=3,
    ),
    "W2": Workload(
        "CNN of 10,410 parameters on 8x8 digits",
        small_cnn,
        {
            "task": _task(SmallClassification),
            "dataset": "digits",
            "num-clients": 1000,
            "clients-per-round": 100,
            "examples-per-client": 32,
            "batch-size": 16,
        },
        examples=32,
        rounds=26,
        warm_up=5,
    ),
    "W3": Workload(
        "character LSTM of 93,248 parameters",
        CharacterLSTM,
        {
            "task": _task(NextCharacter),
            "dataset": "simulations.bench.made_data:LINES",
            "num-clients": 100,
            "clients-per-round": 10,
            "batch-size": 16,
        },
        examples=64,
        rounds=12,
        warm_up=3,
        stacks=False,
    ),
    "W4": Workload(
        "network of 25.1 million parameters on 3x32x32 pictures",
        wide,
        {
            "task": _task(WideClassification),
            "dataset": "simulations.bench.made_data:PICTURES",
            "dataset-options": "num_examples = 6000",
            "num-clients": 100,
            "clients-per-round": 10,
            "batch-size": 20,
        },
        examples=60,
        rounds=5,
        warm_up=1,
    ),
}
"""Name -> what is trained. W2 is all overhead: many clients, few examples each, a small network."""
