"""Who holds which training examples: a pure function of the dataset, the partitioner's options and the seed.

Every partitioner works in two ways. Dealt, each example goes to exactly one client. Drawn
(`examples_per_client` > 0), each client picks its examples by itself, from a generator of its own, so that a
client costs nothing until somebody asks for it and a million of them can share a small dataset.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Indices
from models.data.partitioners import DEALS, DRAWS, Groups, without_empty

_DEAL, _DRAW, _HOLD_OUT = 1, 2, 3
"""What a generator is for: streams of the same seed and client must not be the same."""


@dataclass(frozen=True)
class Partition:
    """A sequence of the examples that each client holds, found when they are asked for."""

    num_clients: int
    rows_of: Callable[[int], Indices]

    def __len__(self) -> int:
        return self.num_clients

    def __getitem__(self, client: int) -> Indices:
        """Return the client's examples (num_examples,), ascending; only those that were drawn may repeat."""
        return self.rows_of(range(self.num_clients)[client])


def make_partition(dataset: Dataset, config: TaskConfig) -> Partition:
    """Decide who holds which training examples.

    Raises UserError where the dataset has not what the partitioner goes by, or too few examples to deal.
    """
    groups = _groups(dataset, config)
    if config.examples_per_client:
        return Partition(config.num_clients, functools.partial(_draw, groups, config))
    if config.partitioner == "natural":
        return Partition(config.num_clients, groups.__getitem__)
    _check_enough(dataset, config)
    owners = DEALS[config.partitioner](groups, config, _generator(_DEAL, 0, config.seed))
    owners = without_empty(owners, config.num_clients)
    return Partition(config.num_clients, Groups.by(owners, config.num_clients).__getitem__)


def split_local_test(
    indices: Indices, fraction: float, seed: int, client: int, ordered: bool = False
) -> tuple[Indices, Indices]:
    """Split a client's examples into (train, test), `fraction` of them in test and at least one in train.

    An example that the client drew twice does not end up on both sides. Of `ordered` examples the last are
    held out, since what lies between two training examples in time is half known.
    """
    if fraction == 0:
        return indices, indices[:0]
    distinct = np.unique(indices)
    num_test = min(round(fraction * len(distinct)), len(distinct) - 1)
    if ordered:
        held_out = distinct[len(distinct) - num_test :]
    else:
        held_out = _generator(_HOLD_OUT, client, seed).choice(distinct, num_test, replace=False)
    is_test = np.isin(indices, held_out)
    return indices[~is_test], indices[is_test]


def client_names(dataset: Dataset, config: TaskConfig) -> tuple[str, ...]:
    """Return what the data calls each client; () unless its natural clients are the run's clients."""
    return dataset.client_names if config.partitioner == "natural" else ()


def counted_classes(dataset: Dataset) -> tuple[str, ...]:
    """Return the classes that `count_labels` counts; () where an example has no class of its own."""
    return () if dataset.label is None else dataset.classes


def count_labels(dataset: Dataset, partition: Partition, clients: Iterable[int]) -> list[list[int]]:
    """Count the examples of each class that each of the clients holds; without labels, its examples."""
    if dataset.label is None:
        return [[len(partition[client])] for client in clients]
    labels = dataset.train[dataset.label].numpy()
    return [
        np.bincount(labels[partition[client]], minlength=len(dataset.classes)).tolist() for client in clients
    ]


def _generator(purpose: int, client: int, seed: int) -> Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, client)))


def _draw(groups: Groups, config: TaskConfig, client: int) -> Indices:
    return np.sort(DRAWS[config.partitioner](groups, config, client, _generator(_DRAW, client, config.seed)))


def _groups(dataset: Dataset, config: TaskConfig) -> Groups:
    """Return the examples grouped by what the partitioner goes by: class, natural client, or nothing."""
    if config.partitioner == "natural":
        return _natural_groups(dataset, config)
    if config.partitioner in ("iid", "quantity"):
        return Groups.by(np.zeros(len(dataset.train), dtype=np.int64), 1)
    if dataset.label is None:
        raise UserError(_lacks(dataset, config, "labels"))
    return Groups.by(dataset.train[dataset.label].numpy(), len(dataset.classes))


def _natural_groups(dataset: Dataset, config: TaskConfig) -> Groups:
    if dataset.client is None:
        raise UserError(_lacks(dataset, config, "clients of its own"))
    num_natural = int(dataset.client.max()) + 1
    if config.num_clients != num_natural:
        raise UserError(
            f"num-clients must be {num_natural}, the natural clients of dataset {dataset.name!r}, "
            f"got {config.num_clients}; set num-clients={num_natural} or another partitioner"
        )
    return Groups.by(dataset.client, num_natural)


def _lacks(dataset: Dataset, config: TaskConfig, what: str) -> str:
    works = ["iid", "quantity"]
    works += ["dirichlet", "shards"] if dataset.label is not None else []
    works += ["natural"] if dataset.client is not None else []
    return (
        f"partitioner {config.partitioner!r} needs {what}, which dataset {dataset.name!r} has not; "
        f"set partitioner to {' or '.join(works)}"
    )


def _check_enough(dataset: Dataset, config: TaskConfig) -> None:
    """Raise UserError where there are fewer examples than clients, or than shards, to deal them to."""
    rows = len(dataset.train)
    if config.num_clients > rows:
        raise UserError(
            f"num-clients must be <= {rows}, the training examples of dataset {dataset.name!r}, "
            f"got {config.num_clients}; set examples-per-client to let clients share examples"
        )
    num_shards = config.num_clients * config.shards_per_client
    if config.partitioner == "shards" and num_shards > rows:
        raise UserError(
            f"num-clients times shards-per-client must be <= {rows}, the training examples of dataset "
            f"{dataset.name!r}, got {num_shards}; lower one or set examples-per-client"
        )
