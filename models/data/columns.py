"""The check that a dataset is what its kind promises: whatever is not is one line that says what to do."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.core.errors import UserError
from models.data.boxes import KIND as BOXED
from models.data.boxes import check_boxes
from models.data.dataset import Dataset, Examples
from models.data.kinds import INT64, KINDS, WORDS, Column, Entry, Kind, Limit, shape_of

_LABEL = Column("label", ("N",), INT64, "class", low=0, high="classes")
_NO_KIND = Kind(columns=())
_CASTS = {torch.int64: ".long()", torch.float32: ".float()", torch.uint8: ".to(torch.uint8)"}
"""The first type that a column may have -> what makes it that."""
_MOST_CHANNELS = 4
"""Of a picture whose channels might stand last: red, green, blue and alpha."""


def check_dataset(name: str, kind: str, dataset: Any) -> None:
    """Raise UserError for the first thing in which a loaded dataset is not what its kind promises.

    `name` is what the run calls it, `kind` that of its source. Of a kind that polyfed does not know, only
    what all kinds share is checked.
    """
    owner = f"dataset {name!r}"
    if not isinstance(dataset, Dataset):
        raise UserError(f"{owner} must be loaded as a models.Dataset, got {_type(dataset)}")
    if dataset.kind != kind:
        raise UserError(f"{owner} must be of its source's kind {kind!r}, got {dataset.kind!r}")
    halves = {"train": dataset.train, "test": dataset.test}
    if dataset.validation is not None:
        halves["validation"] = dataset.validation
    for half, examples in halves.items():
        _check_rows(f"{owner}: {half}", examples)
    _check_clients(owner, dataset)
    _check_numbers(owner, "group", dataset.group, dataset)
    if dataset.ordered and dataset.group is not None:
        raise UserError(f"{owner}: group must be None where ordered is true: the last examples are set apart")
    if not dataset.classes and (dataset.label is not None or kind == BOXED):
        label = repr(dataset.label) if dataset.label is not None else "'class'"
        raise UserError(f"{owner}: classes must name the classes of its label {label}, got none")
    known = KINDS.get(kind, _NO_KIND)
    for entry in known.info:
        _check_entry(owner, entry, dataset)
    axes: dict[str, int] = {}
    for half, examples in halves.items():
        axes = {axis: size for axis, size in axes.items() if axis not in ("N", *known.of_each_half)}
        for column in _columns(known, dataset):
            _check_column(f"{owner}: {half} column {column.name!r}", column, examples, axes, dataset)
        if kind == "tagged-sentences":
            _check_sentences(f"{owner}: {half}", examples)
        if kind == BOXED:
            check_boxes(f"{owner}: {half}", examples)
    if kind == "environments" and len(dataset.info["physics"]) != axes["P"]:
        raise UserError(f"{owner}: info['physics'] must name each of the {axes['P']} columns of 'physics'")


def _columns(known: Kind, dataset: Dataset) -> list[Column]:
    """Return the columns that the dataset must have: those of its kind, and its labels."""
    columns = {column.name: column for column in known.columns if dataset.classes or not column.with_classes}
    if dataset.label is not None:
        columns[dataset.label] = replace(_LABEL, name=dataset.label)
    return list(columns.values())


def _check_rows(owner: str, examples: Any) -> None:
    """Check what examples of any kind are: at least one, in tensors that share their first axis."""
    if not isinstance(examples, Examples):
        raise UserError(f"{owner} must be models.Examples, got {_type(examples)}")
    for name, column in examples.columns.items():
        if not isinstance(column, Tensor):
            advice = "; use torch.from_numpy" if isinstance(column, np.ndarray) else ""
            raise UserError(f"{owner} column {name!r} must be a torch.Tensor, got {_type(column)}{advice}")
        if not column.ndim or len(column) != len(examples):
            first = next(iter(examples.columns))
            raise UserError(
                f"{owner} column {name!r} must have a value for each of the {len(examples)} examples of "
                f"{first!r}, got the shape {tuple(column.shape)}"
            )
    if not len(examples):
        raise UserError(
            f"{owner} must hold at least one example, got none: hold out fewer, or give more data"
        )


def _check_clients(owner: str, dataset: Dataset) -> None:
    """Check the natural clients: a number for each training example, and a name for each number."""
    client, rows = dataset.client, len(dataset.train)
    _check_numbers(owner, "client", client, dataset)
    if client is None:
        return
    lowest, highest = int(client.min()), int(client.max())
    in_range = 0 <= lowest <= highest < rows  # else some number has no example
    if not in_range or not np.bincount(client.astype(np.int64)).all():
        given = f"some of 0 to {highest} without one" if in_range else f"{lowest} to {highest} for {rows}"
        raise UserError(
            f"{owner}: clients must be numbered 0 to n - 1, each with a training example, got {given}; "
            "number them by numpy.unique(client, return_inverse=True)"
        )
    names = dataset.client_names
    if names and len(names) != highest + 1:
        raise UserError(
            f"{owner}: client_names must name each of the {highest + 1} clients, got {len(names)} names"
        )
    if strange := [name for name in names if not name.isprintable()]:
        raise UserError(
            f"{owner}: client_names must be of printable characters, got {strange[0][:60]!r}; rename it"
        )


def _check_numbers(owner: str, name: str, given: Any, dataset: Dataset) -> None:
    """Check what has a number for each training example, where there is such a thing."""
    rows = len(dataset.train)
    if given is None or (
        isinstance(given, np.ndarray) and given.dtype.kind in "iu" and given.shape == (rows,)
    ):
        return
    got = f"{given.dtype} {given.shape}" if isinstance(given, np.ndarray) else _type(given)
    raise UserError(
        f"{owner}: {name} must be a NumPy array of a whole number for each of the {rows} training examples, "
        f"got {got}"
    )


def _check_entry(owner: str, entry: Entry, dataset: Dataset) -> None:
    """Check an entry of `info`."""
    if entry.name not in dataset.info:
        if entry.optional:
            return
        raise UserError(f"{owner}: info[{entry.name!r}] is missing: set it to the {entry.meaning}")
    value = dataset.info[entry.name]
    if entry.type is tuple:
        fits = isinstance(value, tuple | list) and all(isinstance(text, str) for text in value)
    elif entry.type is float:
        fits = type(value) in (int, float) and 0 < value < math.inf
    else:
        fits = isinstance(value, entry.type) and (entry.type is bool or type(value) is not bool)
    if not fits:
        words = "number > 0" if entry.type is float else WORDS[entry.type]
        raise UserError(f"{owner}: info[{entry.name!r}] must be a {words}, got {_brief(value)}")


def _check_column(
    owner: str, column: Column, examples: Examples, axes: dict[str, int], dataset: Dataset
) -> None:
    """Check a column's shape, type and values; `axes` learns the lengths that later columns must have."""
    if column.name not in examples.columns:
        held = ", ".join(examples.columns) or "none"
        raise UserError(f"{owner} is missing: {column.meaning}, {shape_of(column)}; there are {held}")
    values = examples[column.name]
    shape = tuple(values.shape)
    if len(shape) != len(column.axes) or _channels_last(column, shape):
        raise UserError(f"{owner} must be {shape_of(column)}, got {shape}{_reshape(column, values)}")
    for axis, size in zip(column.axes, shape, strict=True):
        if axis.isdigit() and int(axis) != size:
            raise UserError(f"{owner} must be {shape_of(column)}, got {shape}")
        if axes.setdefault(axis, size) != size:
            raise UserError(f"{owner} must be {shape_of(column)} with {axis} = {axes[axis]}, got {shape}")
    if values.dtype not in column.dtypes:
        allowed = " or ".join(_plain(dtype) for dtype in column.dtypes)
        use = f"; use {cast}" if (cast := _CASTS.get(column.dtypes[0])) else ""
        raise UserError(f"{owner} must be {allowed}, got {_plain(values.dtype)}{use}")
    _check_values(owner, column, values, axes, dataset)


def _check_values(owner: str, column: Column, values: Tensor, axes: dict[str, int], dataset: Dataset) -> None:
    """Check that all values are finite and between the column's limits."""
    low = -math.inf if column.low is None else _limit(column.low, axes, dataset)
    high = math.inf if column.high is None else _limit(column.high, axes, dataset)
    if not values.numel() or (values.dtype == torch.uint8 and low <= 0 and high >= 255):
        return
    least, most = (float(bound) for bound in values.aminmax())  # NaN where there is one
    if not (math.isfinite(least) and math.isfinite(most)):
        raise UserError(f"{owner} must be finite, got {least:g} to {most:g}; leave such examples out")
    if not low <= least <= most <= high or (column.above_low and least == low):
        allowed = f"> {low:g}" if column.above_low else f"in {low:g} to {high:g}"
        named = f" ({column.high})" if isinstance(column.high, str) else ""
        raise UserError(f"{owner} must have values {allowed}{named}, got {least:g} to {most:g}")


def _limit(limit: Limit, axes: dict[str, int], dataset: Dataset) -> float:
    """Return a limit as a number."""
    if not isinstance(limit, str):
        return limit
    if limit in axes:
        return axes[limit]
    value = dataset.classes if limit == "classes" else dataset.info[limit]
    return len(value) - 1 if isinstance(value, tuple | list) else float(value)


def _check_sentences(owner: str, examples: Examples) -> None:
    """Check that words and tags end where their sentence does."""
    inside = torch.arange(examples["word"].shape[1]) < examples["length"][:, None]  # (N, T)
    for name in ("word", "tag"):
        wrong = ((examples[name] >= 0) != inside).any(1)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise UserError(
                f"{owner} column {name!r} must be -1 from its sentence's 'length' on and nowhere before, got "
                f"otherwise in example {row}"
            )


def _channels_last(column: Column, shape: tuple[int, ...]) -> bool:
    """Whether the last axis of pictures must be their channels, because the second cannot be."""
    return column.axes[1:] == ("C", "H", "W") and shape[1] > _MOST_CHANNELS >= shape[3]


def _reshape(column: Column, values: Tensor) -> str:
    """Return how the column becomes of the right shape, where that can be told."""
    shape, wanted = tuple(values.shape), len(column.axes)
    if len(shape) == wanted:
        return ", which looks like (N, H, W, C); use .permute(0, 3, 1, 2)"
    if column.axes[1:] == ("C", "H", "W") and len(shape) == 3:
        return ", which looks like (N, H, W); use .unsqueeze(1)"
    if wanted == 1 and len(shape) == 2:
        one_hot = "; use .argmax(1) if it is one-hot" if column.dtypes == INT64 else ""
        return "; use .squeeze(1)" if shape[1] == 1 else one_hot
    return ""


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _type(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
