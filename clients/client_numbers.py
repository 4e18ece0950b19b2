"""The numbers of the clients that a node's owner gives a folder each, such as "0, 3-5"."""

from contextlib import suppress

from models.core.errors import UserError, shown
from models.core.number_ranges import read_ranges

KEY = "clients"
MOST = 10_000
"""Clients with a folder of their own on one node."""


def read_clients(given: object) -> tuple[int, ...]:
    """Return the numbers in order, () where none are given; UserError for what are no different numbers."""
    if given is None:
        return ()
    text = str(given) if type(given) is int else given
    with suppress(ValueError):
        ranges = read_ranges(text) if isinstance(text, str) else ()
        total = sum(map(len, ranges))
        numbers = {number for each in ranges for number in each} if total <= MOST else set()
        if numbers and len(numbers) == total:
            return tuple(sorted(numbers))
    raise UserError(
        f"{KEY} in --node-config must be at most {MOST} different numbers of clients, as in '0, 3-5', "
        f"got {shown(given)}"
    )
