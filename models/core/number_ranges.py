"""Lists of whole numbers as people write them, such as "0-3, 7"."""

import re

LARGEST = 2**53
"""The largest number of such a list."""
_PART = re.compile(r"\s*(\d{1,16})\s*(?:-\s*(\d{1,16})\s*)?", re.ASCII)


def read_ranges(text: str) -> tuple[range, ...]:
    """Return what a list stands for, in its order; raise ValueError for a text that is no list."""
    parts = [_PART.fullmatch(part) for part in text.split(",")]
    ends = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
    if len(ends) < len(parts) or not all(first <= last <= LARGEST for first, last in ends):
        raise ValueError("no list of whole numbers")
    return tuple(range(first, last + 1) for first, last in ends)
