"""What a worker process keeps warm: the task, the data, who holds which examples, and one model to train."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from clients.deadline import NEVER, Deadline
from clients.loop import losses_at
from clients.node_config import NodeConfig
from clients.simulated import ray_in_actor
from models.core.config import TaskConfig
from models.core.device import choose_device, place
from models.core.errors import UserError
from models.core.log import log
from models.core.memory import keep_freed_memory
from models.core.seeds import generator_for
from models.data.agreed_labels import labelled, open_labels
from models.data.dataset import Dataset, Examples
from models.data.datasets import find_source, load_dataset
from models.data.described import shapes_of_examples
from models.data.labels import labels_of
from models.data.partition import Partition, make_partition, split_local_test
from models.data.tokens import TOKENS, LearnedTokens
from models.engine import choose_engine
from models.optimizers import Made, optimizer_maker
from models.registry import load_task
from models.state import (
    FederatedNames,
    build_model,
    describe_state,
    federated_names,
    model_state,
    part_names,
    shareable_names,
)
from models.task import Task
from strategies.rule import RECEIVED
from strategies.wire.vocabulary import Vocabulary

ALONE = -1
"""In the place of a client's number, where a node has one client."""
KEPT_ROWS = 2**20
"""About how many clients' rows a worker remembers, all clients together: 8 MB of their numbers."""
SHOWN = 5
"""Labels that an error lists of each client."""


@dataclass(frozen=True)
class Worker:
    """A task at work on this machine; every client here takes its turn with the one model."""

    config: TaskConfig
    task: Task
    dataset: Dataset
    partition: Partition | None
    """Who holds which training examples; None where all of them belong to the node's only client."""
    device: torch.device
    model: nn.Module
    state: dict[str, Tensor]
    """The model's entries, by name; writing to them writes to the model."""
    initial: dict[str, Tensor]
    """A copy of the state as it was built."""
    federated: FederatedNames
    """Names of the entries that are sent and averaged."""
    apart: "Mapping[int, Worker]" = field(default_factory=dict)
    """Client -> who works on its data, where each has a folder of its own; they share the one model."""

    def of(self, client: int) -> "Worker":
        """Return who works on a client's data."""
        return self.apart.get(client, self)

    def examples(self, client: int) -> tuple[Examples, Examples]:
        """Return the client's examples for training and for its own evaluation."""
        train, test = self._rows_of(client)
        return self.dataset.train.at(train), self.dataset.train.at(test)

    def num_examples(self, examples: Examples) -> int:
        """Return how much a client with these examples counts; raise ValueError for more than is allowed."""
        found, most = self.task.num_examples(examples), self.config.max_examples
        if most and found > most:
            raise ValueError(f"it has {found} examples, more than max-examples ({most})")
        return found

    @cached_property
    def _rows_of(self) -> Callable[[int], tuple[Tensor, Tensor]]:
        """Finds the rows of a client's examples, and remembers those of the clients that came last.

        To draw them anew takes longer than a step of a small network.
        """
        mean = self.config.examples_per_client or math.ceil(len(self.dataset.train) / self.config.num_clients)
        return lru_cache(maxsize=max(KEPT_ROWS // mean, 1))(self._find_rows)

    def _find_rows(self, client: int) -> tuple[Tensor, Tensor]:
        rows = np.arange(len(self.dataset.train)) if self.partition is None else self.partition[client]
        train, test = split_local_test(
            rows, self.config.local_test_fraction, self.config.seed, client, self.dataset.ordered
        )
        return torch.from_numpy(train), torch.from_numpy(test)

    @cached_property
    def engine(self) -> str:
        """How clients are trained here, "loop" or "stacked", unless they keep personal models."""
        return choose_engine(self.config, self.task, self.model, self.dataset.train).name

    @cached_property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The model's parameters, by name; a tied one stands once."""
        return dict(self.model.named_parameters())

    @cached_property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the weights that are averaged of each part that not every client trains."""
        return part_names(self.task, self.federated)

    @cached_property
    def frozen(self) -> tuple[str, ...]:
        """Names of the entries that the server may send and nobody trains."""
        shareable = shareable_names(self.model, self.task.local)
        return tuple(name for name in shareable if name not in self.federated.all)

    @cached_property
    def make_optimizers(self) -> Callable[[], Made]:
        """Makes the optimizers of a client that is told nothing else than the run config."""
        return optimizer_maker(self.task, self.parameters.items(), self.config)

    def received_losses(
        self,
        server_round: int,
        client: int,
        state: Mapping[str, Tensor],
        examples: Examples,
        deadline: Deadline = NEVER,
    ) -> dict[str, float]:
        """Return a client's losses at the state that it starts a round from, as metrics.

        Raises ValueError where a loss has no term here: the strategy weighs clients by it.
        """
        self.put(state)
        losses = losses_at(
            self.task,
            self.model,
            examples,
            generator=generator_for(self.config.seed, "received", server_round, client),
            batch_size=self.config.batch_size,
            device=self.device,
            deadline=deadline,
        )
        if missing := [each.name for each in self.task.objectives if each.name not in losses]:
            raise ValueError(f"its examples have no {missing[0]}, by which the strategy weighs clients")
        return {RECEIVED + name: loss for name, loss in losses.items()}

    def put(self, state: Mapping[str, Tensor]) -> None:
        """Put this state into the model; what it does not hold becomes as it was built."""
        with torch.no_grad():  # all of them by one call, which takes less than the copies of a small network
            torch._foreach_copy_(
                list(self.state.values()), [state.get(name, self.initial[name]) for name in self.state]
            )


Load = Callable[[TaskConfig, str], Worker]
"""Gives the worker of a run config, on a node with this data-path ("" where it has no data of its own)."""


@lru_cache(maxsize=1)
def load_worker(config: TaskConfig, data_path: str) -> Worker:
    """Load what the run config names; `data_path` is the node's own data, or "" for the simulated deal."""
    if ray_in_actor():  # a process of the simulation's own
        keep_freed_memory()
    dataset = load_dataset(_at(config, data_path) if data_path else config)
    return make_worker(config, dataset, own_data=bool(data_path))


def make_worker(config: TaskConfig, dataset: Dataset, *, own_data: bool) -> Worker:
    """Build what trains on a dataset, which is either all clients' or the node's own."""
    task = load_task(config, dataset)
    if own_data:  # else the server says it
        for level, line in task.notes():
            log(level, line)
    device = worker_device(config.device)
    model = place(build_model(task, config.seed), device, config.channels_last)
    state = model_state(model)
    initial = {name: tensor.clone() for name, tensor in state.items()}
    federated = federated_names(model, task)
    deal = None if own_data else make_partition(dataset, config)
    return Worker(config, task, dataset, deal, device, model, state, initial, federated)


def tokens_of(vocabulary: Vocabulary) -> LearnedTokens | None:
    """Return the tokens that a server says; None where it says none. ValueError for what are no tokens."""
    if not vocabulary.tokens:
        return None
    tokens = LearnedTokens(vocabulary.tokens, vocabulary.merges)
    tokens.check()
    return tokens


def worker_of(
    config: TaskConfig, node: NodeConfig, load: Load = load_worker, tokens: LearnedTokens | None = None
) -> Worker:
    """Return the worker of a node: what `load` gives, unless its clients have a folder each.

    Data of the node's own is read with the `tokens`; nodes that have the server's data learn them alike.
    """
    if node.clients or (node.data_path and tokens):
        return load_clients(config, node.folders or ((ALONE, node.data_path),), tokens)
    return load(config, node.data_path)


@lru_cache(maxsize=1)
def load_clients(
    config: TaskConfig, folders: tuple[tuple[int, str], ...], tokens: LearnedTokens | None = None
) -> Worker:
    """Load the data of clients that have a folder each; they take their turns with one model.

    Where their labels differ, the union counts, as between nodes. Raises UserError for a client whose data
    makes another model than the first one's, or has other labels where no union can be made.
    """
    datasets = _datasets(config, folders, tokens)
    labels, told = open_labels(config), [labels_of(dataset) for dataset in datasets]
    if labels and len(set(told)) > 1:
        config = labelled(config, labels.union(told))
        datasets = _datasets(config, folders, tokens)
    first, *others = datasets
    worker = make_worker(config, first, own_data=True)
    apart = {folders[0][0]: worker}
    for (client, folder), dataset in zip(folders[1:], others, strict=True):
        if labels_of(dataset) != labels_of(first):  # the same number would stand for another label
            mine, theirs = _few(labels_of(dataset)), _few(labels_of(first))
            raise UserError(
                f"the data of client {client} in {folder} has the labels {mine}, and that of client "
                f"{folders[0][0]} {theirs}: in dataset {config.dataset!r} all clients must have the same "
                "ones, unless its Source says labels, by which they agree"
            )
        task = load_task(config, dataset)
        state = describe_state(model_state(build_model(task, config.seed)))
        alike = state == describe_state(worker.initial) and [*task.agreed] == [*worker.task.agreed]
        if not alike or shapes_of_examples(dataset) != shapes_of_examples(first):
            raise UserError(
                f"the data of client {client} in {folder} makes another model than that of client "
                f"{folders[0][0]}: examples of one node must have the same shapes"
            )
        for level, line in task.notes():
            log(level, line)
        apart[client] = replace(worker, task=task, dataset=dataset)
    return replace(worker, apart=apart) if others else worker


def _few(labels: tuple[str, ...]) -> str:
    return f"{', '.join(labels[:SHOWN])}{', ...' if len(labels) > SHOWN else ''}" if labels else "none"


def _datasets(
    config: TaskConfig, folders: tuple[tuple[int, str], ...], tokens: LearnedTokens | None
) -> list[Dataset]:
    datasets = [load_dataset(_at(config, folder)) for _, folder in folders]
    return [replace(each, info={**each.info, TOKENS: tokens}) for each in datasets] if tokens else datasets


def _at(config: TaskConfig, folder: str) -> TaskConfig:
    """Return the config by which data of the node's own is read."""
    if find_source(config.dataset).packaged:
        raise UserError(
            f"data-path is {folder!r}, but dataset {config.dataset!r} is read from no folder: "
            "leave data-path out, or set dataset to one that is"
        )
    # Nobody chooses by these examples: the server has validation examples of its own.
    return config.model_copy(update={"data_dir": folder, "validation_fraction": 0.0})


def worker_device(requested: str) -> torch.device:
    """Return the device of this process."""
    return choose_device(requested, torch.cuda.device_count(), _granted_by_ray())


def _granted_by_ray() -> list[int] | None:
    ray = ray_in_actor()
    return list(ray.get_gpu_ids()) if ray else None
