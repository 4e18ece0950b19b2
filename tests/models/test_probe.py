"""The linear probe: which labels it sees, and what it is asked."""

import pytest
import torch
from torch import Tensor

from models.core.probe import DRAWS, LABELS_A_CLASS, few_labels, fit_linear, probe


def test_every_draw_has_a_few_rows_of_each_class() -> None:
    labels = torch.tensor([0, 1] * 20 + [2, 2])
    draws = few_labels(labels)
    assert len(draws) == DRAWS
    for rows in draws:
        assert labels[rows].bincount().tolist() == [LABELS_A_CLASS, LABELS_A_CLASS, 2]
        assert len(rows.unique()) == len(rows)
    assert not torch.equal(draws[0].sort()[0], draws[1].sort()[0])
    assert all(map(torch.equal, draws, few_labels(labels)))


def test_answers_are_counted_over_all_draws() -> None:
    labels = torch.tensor([0, 1, 2] * 10)
    points = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    asked: list[Tensor] = []

    def embed(rows: Tensor) -> Tensor:
        asked.append(rows)
        return points[labels[rows]]

    truth = torch.tensor([0, 1, 2, 2])
    right = probe(embed, labels, points[torch.tensor([0, 1, 2, 1])], truth)
    assert right == (3 * DRAWS, 4 * DRAWS)  # the last lies among the second class
    assert [len(rows) for rows in asked] == [3 * LABELS_A_CLASS] * DRAWS


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_the_size_of_features_does_not_matter(scale: float) -> None:
    """An untrained encoder's features are small; it is their content that is judged."""
    features, labels = scale * torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0, 0, 1, 1])
    assert fit_linear(features, labels)(features).tolist() == [0, 0, 1, 1]


def test_a_single_class_is_the_only_answer() -> None:
    assert fit_linear(torch.rand(3, 2), torch.tensor([4, 4, 4]))(torch.rand(2, 2)).tolist() == [4, 4]
