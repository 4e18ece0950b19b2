"""Sums that do not depend on the grouping of their terms."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from flwr.app import MetricRecord, RecordDict

from strategies.wire.exact_sum import BLOCK, ExactSum
from strategies.wire.reply import NodeReply
from strategies.wire.stack_sum import BLOCK as COLUMNS
from strategies.wire.stack_sum import exact_terms


def summed(arrays: list[np.ndarray], weights: list[float]) -> ExactSum:
    total = ExactSum()
    for array, weight in zip(arrays, weights, strict=True):
        total.add({"w": array}, weight)
    return total


def test_weighted_mean_of_hand_computed_numbers() -> None:
    total = summed([np.array([1.0, -2.0], np.float32), np.array([4.0, 6.0], np.float32)], [1, 3])
    assert total.weight == 4
    np.testing.assert_array_equal(total.mean()["w"], [13 / 4, 4.0])


ALIKE, APART, FAR_APART = 0, 12, 60
"""Bits by which the numbers of a stack differ in size at most."""


@pytest.mark.parametrize("bits", [ALIKE, APART, FAR_APART])
@pytest.mark.parametrize("weights", [[32.0] * 7, [1.0, 5000, 3, 0, 17, 2**20, 1], [0.1, 1, 2, 3, 4, 5, 6]])
def test_a_stack_adds_up_to_what_its_rows_do(bits: int, weights: list[float]) -> None:
    rng = np.random.default_rng(3)
    sizes = 2.0 ** -rng.integers(0, bits + 1, size=(7, 2 * COLUMNS + 5))
    stack = (rng.standard_normal(sizes.shape) * sizes).astype(np.float32)
    stack[rng.random(stack.shape) < 0.1] = 0.0
    stack[:, 4], stack[:, 5] = 0.0, [-0.0] * 7
    one_by_one, at_once = ExactSum(), ExactSum()
    for total in (one_by_one, at_once):
        total.add({"w": stack[0] * 3, "b": stack[0, :3]}, 2.0)
    for row, weight in zip(stack, weights, strict=True):
        one_by_one.add({"w": row, "b": row[:3]}, weight)
    at_once.add_all({"b": stack[:, :3], "w": stack}, weights)
    assert at_once.weight == one_by_one.weight
    for name, expected in one_by_one.mean().items():
        assert at_once.mean()[name].tobytes() == expected.tobytes()


def test_where_float64_has_room_a_stack_is_added_without_rounding() -> None:
    rng = np.random.default_rng(4)
    stack = rng.standard_normal((5, 3000)).astype(np.float32)
    stack[2, 7] *= 2.0**-30
    weights = [3.0, 1.0, 1000.0, 32.0, 7.0]
    terms = exact_terms(stack, weights)
    assert terms is not None
    assert len(terms) == 2
    for column in range(3000):
        exact = sum(Fraction(float(x)) * Fraction(w) for x, w in zip(stack[:, column], weights, strict=True))
        assert sum(Fraction(term[column]) for term in terms) == exact
    stack[2, 7] *= 2.0**-40
    assert exact_terms(stack, weights) is None
    assert exact_terms(stack.astype(np.float64), weights) is None
    assert exact_terms(stack, [0.5, *weights[1:]]) is None
    assert exact_terms(np.full((2, 3), np.inf, np.float32), [1.0, 1.0]) is None


def test_a_first_stack_is_the_sum_of_its_rows() -> None:
    stack = np.array([[1.0, -0.0], [3.0, -0.0]], np.float32)
    total = ExactSum()
    total.add_all({"w": stack}, [1.0, 3.0])
    assert total.mean()["w"].tobytes() == summed(list(stack), [1, 3]).mean()["w"].tobytes()
    alone, row = ExactSum(), ExactSum()
    alone.add_all({"w": stack[:1]}, [5.0])
    row.add({"w": stack[0]}, 5.0)
    assert alone.mean()["w"].tobytes() == row.mean()["w"].tobytes()


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


HARD = (1.0, 2.0**-60, 2.0**-120, -1.0, -(2.0**-60))
"""Terms that span 120 bits; the pair alone gave 0 or 1.5e-37 by grouping."""


def merged(groups: list[list[float]]) -> ExactSum:
    total = ExactSum()
    for group in groups:
        total.merge(summed([np.array([value]) for value in group], [1.0] * len(group)))
    return total


@pytest.mark.parametrize("order", list(itertools.permutations(HARD)))
def test_terms_that_no_pair_holds_add_up_exactly(order: tuple[float, ...]) -> None:
    for cut in range(5):
        groups = [list(order[:cut]), list(order[cut:])]
        assert merged(groups).mean()["w"][0] == 2.0**-120 / 5
    assert merged([[value] for value in order]).mean()["w"][0] == 2.0**-120 / 5


def test_the_whole_range_of_float32_in_any_grouping() -> None:
    rng = np.random.default_rng(3)
    exponents = rng.integers(-149, 127, size=(12, 200))
    updates = [np.ldexp(rng.standard_normal(200), each).astype(np.float32) for each in exponents]
    weights = [float(weight) for weight in rng.integers(1, 2**20, size=12)]
    terms = [list(zip(updates, weights, strict=True))] * 200
    exact = [sum(Fraction(float(u[i])) * int(w) for u, w in each) for i, each in enumerate(terms)]
    expected = [float(total) / math.fsum(weights) for total in exact]
    shuffle = random.Random(4)
    for num_groups in (1, 2, 5, 12):
        order = list(range(12))
        shuffle.shuffle(order)
        total = ExactSum()
        for group in range(num_groups):
            members = order[group::num_groups]
            total.merge(summed([updates[i] for i in members], [weights[i] for i in members]))
        assert total.mean()["w"].tolist() == expected


def test_weights_that_are_no_whole_numbers_do_not_depend_on_the_grouping() -> None:
    weights = [0.1 * place for place in range(1, 12)]
    updates = [np.ones(1)] * 11
    one = summed(updates, weights)
    other = ExactSum()
    for place in (3, 0, 10, 5, 7, 1, 2, 4, 6, 8, 9):
        other.merge(summed([updates[place]], [weights[place]]))
    assert one.weight == other.weight == math.fsum(weights)
    assert sum(weights) != sum(reversed(weights)), "float64 alone would have done: the test shows nothing"


def test_one_zero_keeps_its_sign_in_every_grouping_and_two_have_none() -> None:
    zero = np.array([-0.0])
    for total in (summed([zero], [2.0]), merged([[-0.0]]), merged([[], [-0.0]])):
        assert np.signbit(total.mean()["w"]).tolist() == [True]
    for total in (summed([zero, zero], [1.0, 1.0]), merged([[-0.0], [-0.0]]), merged([[-0.0, -0.0]])):
        assert np.signbit(total.mean()["w"]).tolist() == [False]


def test_what_the_pairs_cannot_hold_travels_with_a_nodes_sum() -> None:
    content = RecordDict({"metrics": MetricRecord({"n": 1})})
    reply = NodeReply(total=ExactSum(), weighted_by="n")
    for client, value in enumerate(HARD[:4]):
        reply.add(client, content, {"w": np.array([0.0, value])})
    back = NodeReply.unpack(reply.pack())
    assert back.total is not None
    total = ExactSum()
    total.merge(back.total)
    total.add({"w": np.array([0.0, HARD[4]])}, 1.0)
    assert total.mean()["w"].tolist() == [0.0, 2.0**-120 / 5]
