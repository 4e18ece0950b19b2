"""Which clients begin and which arrive in a round, by exact times."""

from collections import Counter
from collections.abc import Mapping

import pytest

from server.client_profiles import Profiles, Spans
from server.errors import RunFailedError
from server.simulated_time import Schedule
from server.turns import InFlight


def schedule(
    seconds: Mapping[int, float], cohort: int, spans: Mapping[int, Spans] | None = None, period: float = 10.0
) -> Schedule:
    """Return that of clients who train on one example, at these seconds each."""
    there = None if spans is None else lambda client: spans.get(client, [(0.0, period)])
    return Schedule(Profiles(seconds.__getitem__, 0.0, there, period, {}, lambda client: 1), 1, cohort)


def test_a_synchronous_round_takes_as_long_as_its_slowest_client() -> None:
    of = schedule({0: 1.0, 1: 5.0, 2: 2.0}, 3)
    of.wait_for([0, 2])
    assert of.clock.now == 2.0
    of.wait_for([0, 1, 2])
    assert of.clock.now == 7.0
    of.wait_for([])
    assert of.clock.now == 7.0


def test_updates_arrive_in_the_order_of_their_times() -> None:
    """Three clients of 1, 2 and 10 s train side by side; a new model is made of every two updates."""
    of = schedule({0: 1.0, 1: 2.0, 2: 10.0}, 3)
    first = of.asynchronous(1, [0, 1, 2], 2)
    assert sorted(first.begun) == [0, 1, 2]
    assert [each.client for each in first.arrived] == [0, 1]
    assert of.clock.now == 2.0
    second = of.asynchronous(2, [0, 1, 2], 2)
    assert sorted(second.begun) == [0, 1], "client 2 still trains on the first model"
    assert [(each.client, each.end) for each in second.arrived] == [(0, 3.0), (1, 4.0)]
    for server_round in (3, 4):
        of.asynchronous(server_round, [0, 1, 2], 2)
    assert of.clock.now == 8.0
    fifth = of.asynchronous(5, [0, 1, 2], 2)
    assert [(each.client, each.server_round, each.end) for each in fifth.arrived] == [
        (0, 5, 9.0),
        (1, 5, 10.0),
    ]
    sixth = of.asynchronous(6, [0, 1, 2], 2)
    assert [(each.client, each.server_round, each.end) for each in sixth.arrived] == [
        (2, 1, 10.0),
        (0, 6, 11.0),
    ]


def test_a_place_that_gets_free_is_taken_at_once_by_another_client() -> None:
    """Two of six train at a time, a second each: while four updates come together, four begin."""
    of = schedule(dict.fromkeys(range(6), 1.0), 2)
    turn = of.asynchronous(1, range(6), 4)
    assert len(turn.begun) == len(set(turn.begun)) == 5, "of the fourth's place the next model is made first"
    assert [each.end for each in turn.arrived] == [1.0, 1.0, 2.0, 2.0]
    assert of.clock.now == 2.0


def test_a_client_trains_on_a_model_once() -> None:
    of = schedule({0: 1.0, 1: 7.0}, 2)
    turn = of.asynchronous(1, [0, 1], 2)
    assert [(each.client, each.end) for each in turn.arrived] == [(0, 1.0), (1, 7.0)]
    assert sorted(turn.begun) == [0, 1]


def test_a_buffer_that_cannot_fill_up_is_taken_as_it_is() -> None:
    assert [each.client for each in schedule({0: 1.0}, 1).asynchronous(1, [0], 1).arrived] == [0]
    turn = schedule({0: 1.0, 1: 1.0}, 2).asynchronous(1, [0], 2)
    assert [each.client for each in turn.arrived] == [0]


def test_every_client_is_drawn_as_often() -> None:
    of, begun = schedule(dict.fromkeys(range(20), 1.0), 5), Counter[int]()
    for server_round in range(1, 401):
        begun.update(of.asynchronous(server_round, range(20), 5).begun)
    expected = sum(begun.values()) / 20
    assert all(abs(count - expected) < 0.35 * expected for count in begun.values())


def test_clients_that_are_away_do_not_begin() -> None:
    of = schedule({0: 1.0, 1: 1.0}, 2, {1: [(4.0, 10.0)]})
    assert of.asynchronous(1, [0, 1], 1).begun == [0]
    assert of.asynchronous(2, [0, 1], 1).begun == [0]
    of.clock.now = 4.5
    assert sorted(of.asynchronous(3, [0, 1], 1).begun) == [0, 1]


def test_a_place_that_is_free_is_taken_by_the_first_who_comes() -> None:
    """Client 0 trains for 100 s; client 1 comes at 4 s, and is done with two models before that."""
    of = schedule({0: 100.0, 1: 3.0}, 2, {1: [(4.0, 10.0)]})
    turn = of.asynchronous(1, [0, 1], 1)
    assert sorted(turn.begun) == [0, 1]
    assert turn.arrived == [InFlight(1, 1, 7.0)]
    assert of.clock.now == 7.0


def test_the_place_of_a_client_that_failed_is_free() -> None:
    of = schedule({0: 1.0, 1: 5.0}, 2)
    of.asynchronous(1, [0, 1], 1)
    of.forget([1], 1)
    assert of.clock.in_flight == []
    of.asynchronous(2, [0, 1], 1)
    of.forget([1], 1)
    assert [each.client for each in of.clock.in_flight] == [1], "it began in another round"


def test_ten_thousand_clients_that_are_seldom_there_are_looked_at_once() -> None:
    looked = 0

    def spans(client: int) -> Spans:
        nonlocal looked
        looked += 1
        begin = client / 10_000 * 9.0
        return [(begin, begin + 0.1)]

    of = Schedule(Profiles(lambda _: 1.0, 0.0, spans, 10.0, {}, lambda _: 1), 1, 100)
    there = of.present(range(10_000))
    assert len(there) == 100
    assert looked == 10_000


def test_time_passes_until_enough_clients_are_there() -> None:
    of = schedule({0: 1.0, 1: 1.0, 2: 1.0}, 2, {0: [(6.0, 9.0)], 1: [(3.0, 10.0)], 2: [(8.0, 10.0)]})
    assert of.present([0, 1, 2]) == [0, 1]
    assert of.clock.now == 6.0
    of.clock.now = 9.5
    assert of.present([0, 1, 2]) == [1, 2]
    assert of.clock.now == 9.5


def test_too_few_clients_are_said_to_be_so() -> None:
    of = schedule({0: 1.0, 1: 1.0}, 2, {0: [(0.0, 2.0)], 1: [(5.0, 9.0)]})
    with pytest.raises(RunFailedError, match="at most 1 clients are there at a time, and 2 are to train"):
        of.present([0, 1])
