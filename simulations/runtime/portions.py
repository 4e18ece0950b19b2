"""Deals the clients of a round out in portions, so that no worker waits for the last one."""

from collections.abc import Callable, Sequence

Portion = tuple[int, ...]
"""Clients that one worker is dealt at a time."""


def dealt(clients: Sequence[int], num_workers: int, size_of: Callable[[int], int] | None) -> list[Portion]:
    """Return portions in the order in which they are dealt: large ones first, and at the end single clients.

    The clients with the most examples, by `size_of`, come first: what is left at the end is then short.
    Each portion is a share of what is left (guided self-scheduling, Polychronopoulos and Kuck 1987).
    """
    left = sorted(clients, key=lambda client: (-size_of(client) if size_of else 0, client))
    portions: list[Portion] = []
    while left:
        size = max(1, len(left) // (2 * num_workers))
        portions.append(tuple(left[:size]))
        left = left[size:]
    return portions
