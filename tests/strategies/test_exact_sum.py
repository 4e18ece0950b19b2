"""Sums that do not depend on the grouping of their terms."""

import random

import numpy as np

from strategies.wire.exact_sum import BLOCK, ExactSum


def summed(arrays: list[np.ndarray], weights: list[float]) -> ExactSum:
    total = ExactSum()
    for array, weight in zip(arrays, weights, strict=True):
        total.add({"w": array}, weight)
    return total


def test_weighted_mean_of_hand_computed_numbers() -> None:
    total = summed([np.array([1.0, -2.0], np.float32), np.array([4.0, 6.0], np.float32)], [1, 3])
    assert total.weight == 4
    np.testing.assert_array_equal(total.mean()["w"], [13 / 4, 4.0])


def test_a_sum_that_float64_loses() -> None:
    total = summed([np.array([value], np.float32) for value in (2.0**80, 1.0, -(2.0**80))], [1, 1, 1])
    assert total.mean()["w"][0] == 1 / 3


def test_one_update_comes_back_bit_for_bit() -> None:
    update = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    for weight in (1, 3, 7, 1437, 60_000):
        np.testing.assert_array_equal(summed([update], [weight]).mean()["w"].astype(np.float32), update)


def test_every_grouping_and_order_gives_the_same_bits() -> None:
    rng = np.random.default_rng(1)
    size = BLOCK + 7  # more than one block
    scales = 10.0 ** rng.integers(-12, 6, size=(20, size))
    updates = [(rng.standard_normal(size) * scale).astype(np.float32) for scale in scales]
    weights = [float(weight) for weight in rng.integers(1, 5000, size=20)]
    expected = summed(updates, weights).mean()["w"]
    shuffle = random.Random(2)
    for num_groups in (2, 3, 5, 20):
        order = list(range(20))
        shuffle.shuffle(order)
        merged = ExactSum()
        for group in range(num_groups):
            members = order[group::num_groups]
            merged.merge(summed([updates[i] for i in members], [weights[i] for i in members]))
        np.testing.assert_array_equal(merged.mean()["w"], expected)
    naive = sum(update.astype(np.float64) * weight for update, weight in zip(updates, weights, strict=True))
    reordered = sum(updates[i].astype(np.float64) * weights[i] for i in reversed(range(20)))
    assert not np.array_equal(naive, reordered), "float64 alone would have done: the test shows nothing"


def test_a_single_number_stays_an_array() -> None:
    """As learned temperatures are."""
    total = summed([np.array(1.0, np.float32), np.array(4.0, np.float32)], [1, 2])
    mean = total.mean()["w"]
    assert isinstance(mean, np.ndarray)
    assert (mean.shape, mean.item()) == ((), 3.0)
