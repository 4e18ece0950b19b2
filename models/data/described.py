"""What a dataset is like, without any of its examples: for a server that compares nodes."""

from models.data.dataset import Dataset
from models.data.kinds import KINDS

ANY = -1
"""A length that may differ between datasets of a kind, as that of the longest sentence."""


def shapes_of_examples(dataset: Dataset) -> dict[str, tuple[int, ...]]:
    """Return column -> shape of one example's entry, with ANY for what may differ."""
    known = KINDS.get(dataset.kind)
    axes = {column.name: column.axes for column in known.columns} if known else {}
    varies = known.of_each_half if known else ()
    found = {}
    for name in sorted(dataset.train.columns):
        shape = dataset.train.shape(name)
        names = axes.get(name, ("",) * len(shape))
        found[name] = tuple(
            ANY if axis in varies else size for axis, size in zip(names[1:], shape[1:], strict=True)
        )
    return found
