"""What features are worth: a linear classifier that learns from a few labelled examples of them.

With many labels and many features a linear classifier does well on an untrained network too, and little
would be seen of what pre-training adds. Hence few labels; and since it then matters which, several draws.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

LABELS_A_CLASS, DRAWS = 5, 8
MOST_ROWS = 1000
"""Examples that a classifier learns from whose scores are explained."""
_SEED = 0
"""The labelled examples are the same whatever the seed of the run, so that runs compare."""


def few_labels(labels: Tensor) -> list[Tensor]:
    """Draw LABELS_A_CLASS examples of each class in labels (N,), or as many as there are; DRAWS times."""
    generator = torch.Generator().manual_seed(_SEED)
    draws = []
    for _ in range(DRAWS):
        order = torch.randperm(len(labels), generator=generator)
        of_class = [order[labels[order] == number][:LABELS_A_CLASS] for number in labels.unique()]
        draws.append(torch.cat(of_class))
    return draws


def probe(
    embed: Callable[[Tensor], Tensor], labels: Tensor, features: Tensor, truth: Tensor
) -> tuple[int, int]:
    """Return (right, asked) answers over all draws of classifiers that saw a few training examples.

    `embed` gives the features (n, D) of training examples (n,), `labels` (N,) their classes; the classifiers
    are asked about `features` (M, D) whose classes are `truth` (M,). Where nothing is asked, or there is
    nothing to learn from, both are 0.
    """
    if not len(truth) or not len(labels):
        return 0, 0
    right = 0
    for rows in few_labels(labels):
        predicted = fit_linear(embed(rows), labels[rows])(features)
        right += int((predicted == truth).sum())
    return right, DRAWS * len(truth)


def fit_linear(features: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Fit a logistic regression to standardised features (N, D) and classes (N,); return what predicts."""
    if len(labels.unique()) < 2:  # of one class there is nothing to learn
        return lambda asked: labels[:1].expand(len(asked))
    classifier = _fitted(features, labels)
    return lambda asked: torch.from_numpy(classifier.predict(asked.double().numpy()))


def some_rows(num_rows: int) -> Tensor:
    """Draw MOST_ROWS of so many rows, or all that there are; always the same."""
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(_SEED))[:MOST_ROWS]


def fit_scores(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Fit as `fit_linear` does; return the weights (K, D) and biases (K,) of the classes' scores, float64.

    They are those of plain features. A class that no example is of has zeros.
    """
    weight = torch.zeros(num_classes, features.shape[1], dtype=torch.float64)
    bias = torch.zeros(num_classes, dtype=torch.float64)
    known = labels.unique()
    if len(known) < 2:
        return weight, bias
    scaler, regression = (step for _, step in _fitted(features, labels).steps)
    found, offset = (torch.from_numpy(each) for each in (regression.coef_, regression.intercept_))
    if len(known) == 2:  # scikit-learn has one score then, which is that of the second class
        found, offset = torch.cat([-found / 2, found / 2]), torch.cat([-offset / 2, offset / 2])
    mean, deviation = (torch.from_numpy(each) for each in (scaler.mean_, scaler.scale_))
    weight[known] = found / deviation
    bias[known] = offset - (found * mean / deviation).sum(1)
    return weight, bias


def _fitted(features: Tensor, labels: Tensor) -> "Pipeline":
    # Only an evaluation waits for the import.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(features.double().numpy(), labels.numpy())
    return classifier
