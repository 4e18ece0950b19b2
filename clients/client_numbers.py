"""The numbers of the clients that a node's owner gives a folder each, such as "0, 3-5"."""

import re

from models.core.errors import UserError, shown

KEY = "clients"
MOST = 10_000
"""Clients with a folder of their own on one node."""
PART = re.compile(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", re.ASCII)


def read_clients(given: object) -> tuple[int, ...]:
    """Return the numbers in order, () where none are given; UserError for what are no different numbers."""
    text = str(given) if type(given) is int else given
    parts = [PART.fullmatch(part) for part in text.split(",")] if isinstance(text, str) and text else []
    ranges = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
    total = sum(last - first + 1 for first, last in ranges)
    fits = len(ranges) == len(parts) and total <= MOST and all(first <= last for first, last in ranges)
    numbers = sorted(n for first, last in ranges for n in range(first, last + 1)) if fits else []
    if given is not None and (not numbers or len(set(numbers)) < len(numbers)):
        raise UserError(
            f"{KEY} in --node-config must be at most {MOST} different numbers of clients, as in '0, 3-5', "
            f"got {shown(given)}"
        )
    return tuple(numbers)
