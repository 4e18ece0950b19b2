"""Prioritised replay: probabilities, weights and what changes them, in exact numbers."""

import pytest
import torch

from models.control.priorities import LEAST, Priorities


def with_priorities(given: list[float], exponent: float = 1.0, correction: float = 1.0) -> Priorities:
    priorities = Priorities(len(given), exponent, correction, steps=10)
    priorities.priority.copy_(torch.tensor(given))
    return priorities


def test_each_part_of_all_priorities_is_drawn_from_once() -> None:
    priorities = with_priorities([1.0, 0.0, 3.0, 0.0])
    for seed in range(20):  # wherever in the quarters the points lie
        slots, _ = priorities.draw(4, 2, 10, torch.Generator().manual_seed(seed))
        assert slots.tolist() == [0, 2, 2, 2]


def test_a_slot_is_drawn_in_proportion_to_its_priority() -> None:
    priorities = with_priorities([0.0, 5.0, 2.0, 3.0])
    slots, _ = priorities.draw(1_000, 3, 10, torch.Generator().manual_seed(0))
    assert slots.bincount(minlength=4).tolist() == [0, 500, 200, 300]


# N P(i) = 2 * (1/4, 3/4) = (1/2, 3/2).
@pytest.mark.parametrize(
    ("correction", "added", "weight"),
    [(1.0, 10, 1 / 3), (0.0, 0, 1.0), (0.0, 10, 1 / 3), (0.0, 5, (1 / 3) ** 0.5), (0.4, 0, (1 / 3) ** 0.4)],
)
def test_weights_undo_what_is_drawn_more_often(correction: float, added: int, weight: float) -> None:
    priorities = with_priorities([1.0, 3.0], correction=correction)
    slots, weights = priorities.draw(4, 2, added, torch.Generator().manual_seed(0))
    assert slots.tolist() == [0, 1, 1, 1]
    assert weights.tolist() == pytest.approx([1.0, weight, weight, weight])


def test_errors_become_priorities_and_new_transitions_have_the_highest() -> None:
    priorities = with_priorities([0.0] * 4, exponent=0.5)
    priorities.admit(torch.tensor([0, 1]))
    assert priorities.priority.tolist() == [1.0, 1.0, 0.0, 0.0]
    priorities.learn(torch.tensor([0, 1, 0]), torch.tensor([-4.0, 0.0, -4.0]))
    assert priorities.priority.tolist() == pytest.approx([2.0, LEAST**0.5, 0.0, 0.0])
    priorities.admit(torch.tensor([2]))
    priorities.learn(torch.tensor([0]), torch.tensor([1.0]))  # the highest so far stays
    priorities.admit(torch.tensor([3]))
    assert priorities.priority.tolist() == pytest.approx([1.0, LEAST**0.5, 2.0, 2.0])
    priorities.forget(torch.tensor([0, 2]))
    assert priorities.priority.tolist() == pytest.approx([0.0, LEAST**0.5, 0.0, 2.0])


def test_of_a_slot_that_is_there_twice_the_largest_error_counts() -> None:
    priorities = with_priorities([9.0, 5.0, 0.0])
    priorities.learn(torch.tensor([0, 2, 0, 0]), torch.tensor([2.0, 1.0, -3.0, 1.0]))
    assert priorities.priority.tolist() == pytest.approx([3.0, 5.0, 1.0])


def test_an_exponent_of_none_draws_all_alike() -> None:
    priorities = with_priorities([0.0] * 4, exponent=0.0)
    priorities.admit(torch.arange(4))
    priorities.learn(torch.arange(4), torch.tensor([0.0, 1.0, 10.0, 100.0]))
    slots, weights = priorities.draw(4, 4, 0, torch.Generator().manual_seed(0))
    assert (slots.tolist(), weights.tolist()) == ([0, 1, 2, 3], [1.0] * 4)
