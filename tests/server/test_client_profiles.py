"""How fast simulated clients are, and when they are there."""

import math
from pathlib import Path

import pytest

from models.core.errors import UserError
from server.client_profiles import Profiles, profiles_of
from server.config import ServerConfig


def profiles(speeds: str = "", availability: str = "", clients: int = 10, seed: int = 1) -> Profiles:
    config = ServerConfig(client_speeds=speeds, availability=availability, buffer_size=1)
    found = profiles_of(config, seed, clients, lambda client: 100)
    assert found
    return found


def test_without_any_of_its_options_time_is_not_simulated() -> None:
    assert profiles_of(ServerConfig(), 1, 10, lambda client: 1) is None


def test_a_part_of_the_clients_is_slower() -> None:
    drawn = profiles("seconds = 0.5, slow = 0.2, times = 10")
    assert sorted(drawn.seconds_of(client) for client in range(10)) == [0.5] * 8 + [5.0] * 2
    assert drawn.end_of(0, 3.0) == 3.0 + 100 * drawn.seconds_of(0)
    other = profiles("seconds = 0.5, slow = 0.2, times = 10", seed=2)
    assert [drawn.seconds_of(each) for each in range(10)] != [other.seconds_of(each) for each in range(10)]


def test_speeds_are_spread_log_normally() -> None:
    drawn = profiles("seconds = 2.0, spread = 0.5", clients=4000)
    logs = [math.log(drawn.seconds_of(client) / 2.0) for client in range(4000)]
    mean = sum(logs) / len(logs)
    deviation = math.sqrt(sum((each - mean) ** 2 for each in logs) / len(logs))
    assert abs(mean) < 0.03
    assert abs(deviation - 0.5) < 0.03


def test_messages_take_time_beside_the_training() -> None:
    assert profiles("seconds = 0.01, latency = 4").end_of(0, 1.0) == 6.0


@pytest.mark.parametrize(
    ("now", "arrival", "end"),
    [
        (0.0, 2.0, 7.0),  # 3 s until 5, and 1 s from 6 on
        (3.0, 3.0, 8.0),
        (5.5, 6.0, 10 + 4.0),  # 2 s until 8, and 2 s of the next period
        (9.0, 12.0, 17.0),
        (20.0, 22.0, 27.0),
    ],
)
def test_work_rests_while_a_client_is_away(tmp_path: Path, now: float, arrival: float, end: float) -> None:
    """Client 0 is there from 2 to 5 and from 6 to 8 of ten seconds, and has work for four."""
    file = tmp_path / "there.csv"
    file.write_text("client,from,to\n0,2,5\n0,6,8\n", encoding="utf-8")
    there = profiles("seconds = 0.04", f"file = '{file}', period = 10")
    assert there.next_arrival(0, now) == arrival
    assert there.is_there(0, now) is (arrival == now)
    assert there.end_of(0, now) == pytest.approx(end, abs=1e-12)
    assert there.is_there(1, now), "the file does not name it"


def test_work_of_many_periods_is_not_walked_through(tmp_path: Path) -> None:
    file = tmp_path / "there.csv"
    file.write_text("client,from,to\n0,0,1\n", encoding="utf-8")
    there = profiles("seconds = 1000000", f"file = '{file}', period = 10")
    assert there.end_of(0, 0.0) == pytest.approx(1e9 - 9, abs=1e-3)


def test_a_share_of_every_period_is_drawn_from_the_seed() -> None:
    there = profiles(availability="share = 0.25, period = 100", clients=40)
    for client in range(40):
        minutes = [there.is_there(client, step / 10) for step in range(1000)]
        assert abs(sum(minutes) - 250) <= 1
        assert minutes == [there.is_there(client, 100 + step / 10) for step in range(1000)]
    together = [sum(there.is_there(client, at) for client in range(40)) for at in (0.0, 30.0, 60.0)]
    assert all(0 < each < 40 for each in together)


@pytest.mark.parametrize(
    ("speeds", "said"),
    [
        ("second = 1", "client-speeds: unknown run-config key 'second': did you mean seconds?"),
        ("seconds = 0", "client-speeds: seconds must be in (0, 1000000000.0], got 0"),
        ("spread = 1000", "client-speeds: spread must be in [0, 10], got 1000"),
        (
            "seconds = 1, file = '/a.csv'",
            "client-speeds: file in client-speeds must be given without seconds",
        ),
        ("file = 'a.csv'", "client-speeds: file must be an absolute path, got 'a.csv'"),
        ("file = '/no/such.csv'", "client-speeds: /no/such.csv cannot be read"),
        ("seconds", "client-speeds must be inline TOML"),
    ],
)
def test_options_that_do_not_fit_are_refused(speeds: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        profiles(speeds)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("client,second\n0,1\n", "must have the columns client, seconds, and lacks seconds"),
        ("client,seconds\n0,1\n", "must name every client, and lacks 1"),
        ("client,seconds\n0,1\n1,fast\n", "line 3 of"),
        ("client,seconds\n0,1\n7,1\n", "must be of a client from 0 to 1 and finite, got 7.0"),
        ("client,seconds\n0,1\n1,0\n", "must name each client once, with seconds > 0 and at most 1e+09, not"),
        ("client,seconds\n0,1\n0,2\n", "must name each client once"),
        ("client,seconds\n0," + "1" * 200_000, "is no CSV"),
    ],
)
def test_a_file_of_speeds_that_does_not_fit_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "speeds.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        profiles(f"file = '{file}'", clients=2)
    assert said in str(raised.value)


def test_times_out_of_order_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "there.csv"
    file.write_text("client,from,to\n0,5,8\n0,7,9\n", encoding="utf-8")
    with pytest.raises(UserError, match="in order, within 0 to 10 s"):
        profiles(availability=f"file = '{file}', period = 10")
