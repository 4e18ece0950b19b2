"""What data of one's own leaves open: which rows are held out, and which number a class has."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from models.core.errors import UserError, shown

TEST_FRACTION = 0.1
"""Part of the rows that is held out."""

Rows = NDArray[np.int64]


def tenth(num_rows: int) -> tuple[Rows, Rows]:
    """Return the rows to train on, and the tenth that is held out, both in their order.

    They are drawn alike on every machine: rows of one class may follow one another in time.
    """
    rows = np.random.default_rng(0).permutation(num_rows)
    num_test = max(round(TEST_FRACTION * num_rows), 1)
    return np.sort(rows[num_test:]), np.sort(rows[:num_test])


def class_names(
    owner: object, found: Collection[str], given: object, known: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the classes in the order of their numbers, of data in which some were `found`.

    `given` is the option `classes`, `known` what the data itself says of them; without either they are those
    that there are, whole numbers by size before names. Raises UserError, in which the data is called `owner`,
    for a class that is not named.
    """
    named = named_classes(given)
    names = named or tuple(known) or tuple(sorted(found, key=in_order))
    if strange := sorted(set(found).difference(names)):
        advice = "name it too" if named else "hold out another split, or name all of them in classes"
        says = "classes names" if named else "says that there are"
        raise UserError(f"{owner} has a class {strange[0]!r}, and {says} {', '.join(names)}: {advice}")
    return names


def named_classes(given: object) -> tuple[str, ...]:
    """Return the classes that the option `classes` names; () where it names none."""
    names = tuple(given) if isinstance(given, list | tuple) else (None,)
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise UserError(
            f"classes must be a list of names such as ['cat', 'dog'], each once, got {shown(given)}"
        )
    return names


def in_order(name: str) -> tuple[int, int, str, str]:
    """Return what classes are sorted by of which nobody has said the order: whole numbers before names."""
    if not (name.isascii() and name.isdigit()):
        return 1, 0, "", name
    digits = name.lstrip("0")  # compared as texts: of thousands of digits Python makes no number
    return 0, len(digits), digits, name
