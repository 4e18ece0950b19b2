"""Validation examples: training rows that no client gets, by which rounds and runs are chosen.

They follow from the data and the fraction alone, whatever the seed of a run, so that runs compare, and one
that begins with the weights of another of the same fraction has not been trained on them.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.data.dataset import Dataset, Indices

_SEED = 20
"""Of the order in which examples of a class stand for it."""


def with_validation(dataset: Dataset, fraction: float) -> Dataset:
    """Return the dataset with about this fraction of its training examples moved to `validation`.

    One that brings validation examples of its own keeps all that it trains on; 0 leaves both kinds out. Where
    there are too few examples to hold out any, none are.
    """
    if fraction == 0:
        return replace(dataset, validation=None)
    if dataset.validation is not None:
        return dataset
    held_out = _last_of_each(dataset, fraction) if dataset.ordered else _some_of_each(dataset, fraction)
    if not held_out.any():
        return dataset
    rest = np.flatnonzero(~held_out)
    return replace(
        dataset,
        train=dataset.train.at(rest),
        validation=dataset.train.at(np.flatnonzero(held_out)),
        client=None if dataset.client is None else dataset.client[rest],
        group=None if dataset.group is None else dataset.group[rest],
    )


def _last_of_each(dataset: Dataset, fraction: float) -> NDArray[np.bool_]:
    """Return which examples are the last of their series, or of their natural client: (num_examples,).

    What is held out so lies behind all that is trained on in time, as test examples do.
    """
    owners = dataset.train["series"].numpy() if "series" in dataset.train.columns else _clients(dataset)
    sizes = np.unique(owners, return_counts=True)[1]
    ends = np.cumsum(sizes)
    # Of many short ones some are held out, too: the largest remainders are rounded up, of equal ones any.
    shares = np.minimum(np.floor(fraction * sizes).astype(np.int64), sizes - 1)
    left = round(fraction * len(owners)) - int(shares.sum())
    drawn = np.random.default_rng(_SEED).permutation(len(sizes))
    by_remainder = np.lexsort((drawn, shares - fraction * sizes))
    shares[by_remainder[shares[by_remainder] < sizes[by_remainder] - 1][:left]] += 1
    order = np.argsort(owners, kind="stable")
    held_out = np.zeros(len(owners), dtype=bool)
    for end, share in zip(ends.tolist(), shares.tolist(), strict=True):
        held_out[order[end - share : end]] = True
    return held_out


def _some_of_each(dataset: Dataset, fraction: float) -> NDArray[np.bool_]:
    """Return examples that are in proportion of every class of every natural client: (num_examples,).

    They lie evenly among the groups sorted by the client and the class of their first example. A group is
    held out where that brings the examples so far closer to the fraction, so one that is large beside it
    never is. A client or a class whose examples would all be held out keeps a group.
    """
    clients = _clients(dataset)
    labels = np.zeros_like(clients) if dataset.label is None else dataset.train[dataset.label].numpy()
    given = np.arange(len(clients)) if dataset.group is None else dataset.group
    _, leaders, group, sizes = np.unique(given, return_index=True, return_inverse=True, return_counts=True)
    drawn = np.random.default_rng(_SEED).permutation(len(leaders))
    order = np.lexsort((drawn, labels[leaders], clients[leaders]))
    wanted = np.floor(fraction * np.cumsum(sizes[order]) + 0.5)
    chosen, num_chosen = np.zeros(len(leaders), dtype=bool), 0
    for place, size, until_here in zip(order.tolist(), sizes[order].tolist(), wanted.tolist(), strict=True):
        if 2 * (until_here - num_chosen) >= size:
            chosen[place] = True
            num_chosen += size
    for owners in (clients, labels):
        _, first, owner = np.unique(owners, return_index=True, return_inverse=True)
        kept = np.bincount(owner[~chosen[group]], minlength=len(first))
        chosen[group[first[kept == 0]]] = False
    held_out: NDArray[np.bool_] = chosen[group]
    return held_out


def _clients(dataset: Dataset) -> Indices:
    return np.zeros(len(dataset.train), dtype=np.int64) if dataset.client is None else dataset.client
