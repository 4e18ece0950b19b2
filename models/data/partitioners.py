"""How each partitioner deals all examples, or draws the examples of one client, from examples in groups.

The groups are the classes for "dirichlet" and "shards", the natural clients for "natural", and a single
one of all examples for "iid" and "quantity".
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from models.core.config import TaskConfig
from models.data.dataset import Indices


@dataclass(frozen=True)
class Groups:
    """Rows grouped by an integer key, ascending within a group."""

    examples: Indices
    """(num_examples,), group after group."""
    bounds: Indices
    """(num_groups + 1,), where each group starts, and where the last one ends."""

    @classmethod
    def by(cls, keys: Indices, num_groups: int) -> "Groups":
        """Group examples by their keys (num_examples,), 0 to num_groups - 1; a group may be empty."""
        sizes = np.bincount(keys, minlength=num_groups)
        return cls(np.argsort(keys, kind="stable"), np.concatenate([[0], np.cumsum(sizes)]))

    @property
    def sizes(self) -> Indices:
        """Rows of each group (num_groups,)."""
        return np.diff(self.bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, group: int) -> Indices:
        return self.examples[self.bounds[group] : self.bounds[group + 1]]


def deal_iid(groups: Groups, config: TaskConfig, rng: Generator) -> Indices:
    """Deal at random, in sizes that differ by one at most."""
    owners = np.arange(len(groups.examples)) % config.num_clients
    return rng.permutation(owners)


def deal_dirichlet(groups: Groups, config: TaskConfig, rng: Generator) -> Indices:
    """Cut each class up by a Dir(alpha) over the clients (Yurochkin et al. 2019, arXiv:1905.12022).

    Over a single group of all examples, that is quantity skew (Li et al. 2022, arXiv:2102.02079).
    """
    owners = np.empty(len(groups.examples), dtype=np.int64)
    for group in range(len(groups)):
        rows = rng.permutation(groups[group])
        ends = np.cumsum(rng.dirichlet(np.full(config.num_clients, config.alpha)))
        middles = (np.arange(len(rows)) + 0.5) / max(len(rows), 1)
        owners[rows] = np.searchsorted(ends / ends[-1], middles)
    return owners


def deal_shards(groups: Groups, config: TaskConfig, rng: Generator) -> Indices:
    """Deal equal shards of examples sorted by label (McMahan et al. 2017, arXiv:1602.05629, section 3)."""
    num_shards = config.num_clients * config.shards_per_client
    shards = np.arange(len(groups.examples)) * num_shards // len(groups.examples)
    owners = np.empty(len(groups.examples), dtype=np.int64)
    owners[groups.examples] = rng.permutation(num_shards)[shards] % config.num_clients
    return owners


def without_empty(owners: Indices, num_clients: int) -> Indices:
    """Give every client without an example one from the client that has most; ties go to the lower number.

    A client of n examples gives the one in its place n - 1 first. So, all at once, the givers are the
    examples in the highest places.
    """
    dealt = Groups.by(owners, num_clients)
    empty = np.flatnonzero(dealt.sizes == 0)
    givers = np.repeat(np.arange(num_clients), dealt.sizes)
    places = np.arange(len(owners)) - dealt.bounds[givers]
    taken = np.lexsort((givers, -places))[: len(empty)]
    owners = owners.copy()
    owners[dealt.examples[taken]] = empty
    return owners


def _pick(rows: Indices, size: int, rng: Generator) -> Indices:
    """Pick `size` of the examples, none twice unless there are too few."""
    return rng.choice(rows, size, replace=size > len(rows))


def draw_iid(groups: Groups, config: TaskConfig, client: int, rng: Generator) -> Indices:
    """Draw from all examples alike."""
    return _pick(groups.examples, config.examples_per_client, rng)


def draw_dirichlet(groups: Groups, config: TaskConfig, client: int, rng: Generator) -> Indices:
    """Draw classes mixed by Dir(alpha * K * prior) over the K classes (Hsu et al. 2019, arXiv:1909.06335).

    Their concentration is `alpha * K` here, for then `alpha` skews as much as where examples are dealt.
    """
    present = np.flatnonzero(groups.sizes)
    prior = groups.sizes[present] / len(groups.examples)
    mix = rng.dirichlet(config.alpha * len(present) * prior)
    counts = rng.multinomial(config.examples_per_client, mix)
    return np.concatenate([_pick(groups[int(k)], n, rng) for k, n in zip(present, counts, strict=True)])


def draw_shards(groups: Groups, config: TaskConfig, client: int, rng: Generator) -> Indices:
    """Draw shards of the examples sorted by label; `shards_per_client` of them hold a client's examples."""
    num_rows, held = len(groups.examples), config.shards_per_client
    size = -(-config.examples_per_client // held)
    num_shards = min(max(num_rows // size, held), num_rows)
    shards = rng.choice(num_shards, min(held, num_shards), replace=False)
    cuts = [(shard * num_rows // num_shards, (shard + 1) * num_rows // num_shards) for shard in shards]
    rows = np.concatenate([groups.examples[start:end] for start, end in cuts])
    return _pick(rows, config.examples_per_client, rng)


def draw_quantity(groups: Groups, config: TaskConfig, client: int, rng: Generator) -> Indices:
    """Draw a size, spread about `examples_per_client` as Gamma(alpha): Dir(alpha) over many clients."""
    mean = config.examples_per_client
    size = round(mean * rng.standard_gamma(config.alpha) / config.alpha)
    return _pick(groups.examples, min(max(size, 1), max(len(groups.examples), mean)), rng)


def draw_natural(groups: Groups, config: TaskConfig, client: int, rng: Generator) -> Indices:
    """Draw from the examples of the natural client."""
    return _pick(groups[client], config.examples_per_client, rng)


DEALS: dict[str, Callable[[Groups, TaskConfig, Generator], Indices]] = {
    "iid": deal_iid,
    "dirichlet": deal_dirichlet,
    "shards": deal_shards,
    "quantity": deal_dirichlet,
}
"""(groups, config, generator) -> the owner of every example (num_examples,); "natural" ones have theirs."""

DRAWS: dict[str, Callable[[Groups, TaskConfig, int, Generator], Indices]] = {
    "iid": draw_iid,
    "dirichlet": draw_dirichlet,
    "shards": draw_shards,
    "quantity": draw_quantity,
    "natural": draw_natural,
}
"""(groups, config, client, generator) -> the examples of that client (num_drawn,)."""
