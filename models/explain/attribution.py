"""Attributions by gradients, through captum: what each number of an example counts for an answer."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SALIENCY = "saliency"
"""The size of the gradient of the score (Simonyan et al. 2014, arXiv:1312.6034)."""
INTEGRATED_GRADIENTS = "integrated-gradients"
"""The gradients on the way from a baseline, integrated (Sundararajan et al. 2017, arXiv:1703.01365)."""
GRAD_CAM = "grad-cam"
"""Maps of features, weighted by their gradients (Selvaraju et al. 2017, arXiv:1610.02391)."""
ATTENTION = "attention"
"""What a transformer attends to through all its layers (Abnar & Zuidema 2020, arXiv:2005.00928)."""
GRADIENTS: tuple[str, ...] = (INTEGRATED_GRADIENTS, SALIENCY)
"""Those that need nothing of a model but that its score has gradients."""

STEPS = 64
"""Points between baseline and example, by the quadrature of Gauss and Legendre."""
_MOST_ROWS = 512
"""That a model is asked about at a time."""

Forward = Callable[..., Tensor]
"""(inputs (N, ...), what else it needs of each) -> scores of the answers (N, K), or of the one (N,)."""


class Attributed(NamedTuple):
    """Attributions of some examples."""

    values: Tensor
    """As the inputs: (N, ...)."""
    score: Tensor
    """(N,), float64."""
    start: Tensor
    """The score of the baseline (N,), float64; nan where the method knows none."""


def attribute(
    forward: Forward,
    inputs: Tensor,
    method: str,
    asked: Tensor | None = None,
    baseline: Tensor | None = None,
    beside: tuple[Tensor, ...] = (),
) -> Attributed:
    """Say how much each number of `inputs` (N, ...) counts for the score of the answers `asked` (N,).

    `forward` gets the inputs and, of the same examples, the tensors `beside`; it gives the scores of all
    answers (N, K), or without `asked` of the one that there is (N,). By "saliency" a value is the gradient's
    size. By "integrated-gradients" the values of an example add up to what its score is more than that of its
    `baseline`, zeros unless given.
    """
    baseline = torch.zeros_like(inputs) if baseline is None else baseline
    at_once = _MOST_ROWS // STEPS if method == INTEGRATED_GRADIENTS else _MOST_ROWS
    parts = []
    for start in range(0, len(inputs), at_once):
        rows = slice(start, start + at_once)
        chosen = None if asked is None else asked[rows]
        others = tuple(each[rows] for each in beside)
        parts.append(_attribute(forward, inputs[rows], method, chosen, baseline[rows], others))
    values, score, at_start = zip(*parts, strict=True)
    return Attributed(torch.cat(values), torch.cat(score), torch.cat(at_start))


def _attribute(
    forward: Forward,
    inputs: Tensor,
    method: str,
    asked: Tensor | None,
    baseline: Tensor,
    beside: tuple[Tensor, ...],
) -> Attributed:
    # captum is imported where something is explained: workers are spared it.
    from captum.attr import IntegratedGradients, Saliency

    inputs = inputs.detach().clone().requires_grad_()
    others = {"target": asked, "additional_forward_args": beside or None}
    if method == INTEGRATED_GRADIENTS:
        values = IntegratedGradients(forward).attribute(inputs, baseline, n_steps=STEPS, **others)
        start = _scores(forward, baseline, asked, beside)
    else:
        values = Saliency(forward).attribute(inputs, abs=True, **others)
        start = torch.full((len(inputs),), torch.nan, dtype=torch.float64)
    return Attributed(values.detach(), _scores(forward, inputs, asked, beside), start)


@torch.no_grad()
def _scores(forward: Forward, inputs: Tensor, asked: Tensor | None, beside: tuple[Tensor, ...]) -> Tensor:
    """Return the score of the answers that are asked about: (N,), float64."""
    outputs = forward(inputs, *beside)
    return (outputs if asked is None else outputs.gather(1, asked[:, None])[:, 0]).double()
