"""What a node adds up for its clients, checked before it is added to other nodes' sums.

Whoever is in a sum cannot be seen in it: a node is trusted with what its clients have trained, and not with
more. So its sum must be weighted as its clients say, and be no larger than they together can be.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from strategies.rule import Arrays
from strategies.wire.exact_sum import BLOCK, ExactSum
from strategies.wire.records import Forms, check_forms

ROUNDINGS = 4
"""How much longer than its norm a clipped update may be, as it is rounded to the model's types: in steps from
1 to the next number, and in parts of the norm and of the weights that the update started from."""


def check_total(total: ExactSum, weights: Sequence[float], forms: Forms) -> None:
    """Raise ValueError for a sum of updates that is not one of such weights, in order.

    And for one that is beyond all that they can come to.
    """
    if sorted(total.weights) != list(weights):
        raise ValueError("its sum is weighted by other numbers than its clients tell")
    check_shapes(total.shapes, forms)
    high = total.by_name(total.high)
    check_forms(high, forms)
    _check_parts(total, high, {key: forms[key.rpartition("/")[2]] for key in high})


def check_statistics(total: ExactSum | None, weights: Sequence[float], forms: Forms) -> None:
    """Raise ValueError where a node's statistics are not those of the model, or not weighted so, in order."""
    found = total.shapes if total else {}
    if found != {name: form.shape for name, form in forms.items()}:
        raise ValueError(f"it sends statistics {sorted(found)}, and the model has {sorted(forms)}")
    if total is None:
        return
    if sorted(total.weights) != list(weights):
        raise ValueError("its statistics are weighted by other numbers than its clients' examples")
    _check_parts(total, total.by_name(total.high), forms)


def check_norm(total: ExactSum, sent: Sequence[tuple[Arrays, float]], norm: float) -> None:
    """Raise ValueError for a sum that is further from its start than updates of this norm can take it.

    `sent` is what clients started from, and the weight of those that did: |sum_i w_i (x_i - x)| <= sum_i w_i
    times the norm.
    """
    high, square, most = total.by_name(total.high), 0.0, 0.0
    for arrays, weight in sent:
        coarse = max(float(np.finfo(arrays[name].dtype).eps) for name in high)
        most += weight * (norm + ROUNDINGS * coarse * (norm + _length(arrays)))
    for name, summed in high.items():
        moved = summed.copy()
        for arrays, weight in sent:
            moved -= weight * np.asarray(arrays[name], np.float64)
        flat = moved.reshape(-1)
        square += float(flat @ flat)
    if not square <= most * most:
        moved_by, weight = math.sqrt(square), total.weight
        raise ValueError(
            f"its sum of weight {weight:g} has moved by {moved_by:g}, and with max-update-norm {norm:g} it "
            f"can by {norm * weight:g}"
        )


def _length(arrays: Arrays) -> float:
    flat = (np.asarray(array, np.float64).reshape(-1) for array in arrays.values())
    return math.sqrt(sum(float(each @ each) for each in flat))


def check_shapes(shapes: Mapping[str, tuple[int, ...]], forms: Forms) -> None:
    """Raise ValueError for other shapes than the weights have, before anything is made of them."""
    if missing := sorted(forms.keys() - shapes.keys()):
        raise ValueError(f"it replies a part of the weights, without {missing[0]}")
    for key, shape in shapes.items():
        name = key.rpartition("/")[2]
        if name not in forms:
            raise ValueError(f"it replies {key}, and there is no weight {name}")
        if shape != (wanted := forms[name].shape):
            raise ValueError(f"it replies {key} of shape {[*shape]!s:.80}, and {name} has {[*wanted]}")


def _check_parts(total: ExactSum, high: Mapping[str, NDArray[np.float64]], forms: Forms) -> None:
    """Raise ValueError for numbers beyond what weighted arrays of these types come to, or that overlap."""
    most = {key: total.weight * float(np.finfo(form.dtype).max) for key, form in forms.items()}
    for key, array in high.items():
        if _largest(array.reshape(-1)) > most[key]:
            raise ValueError(f"its sum of {key} is beyond what its clients can have")
    for start, low in total.low.items():
        if (np.abs(low) > np.abs(total.high[start : start + low.size]) * 2.0**-52).any():
            raise ValueError("the parts of its sum overlap")
    if total.rest.size and np.abs(total.rest[1]).max() > max(most.values()):
        raise ValueError("the rest of its sum is beyond what its clients can have")


def _largest(numbers: NDArray[np.float64]) -> float:
    """Return the largest magnitude among these numbers, block by block, so that they are fetched once."""
    blocks = (numbers[start : start + BLOCK] for start in range(0, numbers.size, BLOCK))
    return max((max(float(block.max()), -float(block.min())) for block in blocks), default=0.0)
