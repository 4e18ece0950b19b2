"""How a round's clients are dealt out."""

from clients.stacked import stacks
from simulations.runtime.portions import dealt


def test_portions_become_smaller_and_hold_every_client_once() -> None:
    portions = dealt(range(20), 2, None)
    assert [len(portion) for portion in portions] == [5, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1]
    assert [client for portion in portions for client in portion] == list(range(20))


def test_the_clients_with_the_most_examples_come_first() -> None:
    sizes = {3: 10, 5: 40, 7: 20, 9: 40}
    assert dealt([3, 5, 7, 9], 2, sizes.__getitem__) == [(5,), (9,), (7,), (3,)]
    assert dealt([9, 7, 5, 3], 1, None) == [(3, 5), (7,), (9,)]


def test_no_client_makes_no_portion() -> None:
    assert dealt([], 2, None) == []
    assert stacks([], 25) == []


def test_stacks_depend_on_the_clients_alone() -> None:
    assert stacks([1, 3, 5, 7, 9], 2) == [[1], [3, 5], [7, 9]]
    assert stacks([1, 3, 5, 7, 9], 5) == [[1, 3, 5, 7, 9]]
