"""A slow client is late for itself alone: its node stops it, and answers for the others."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict
from requests_to_clients import request_of

import clients.deadline
from clients.deadline import NEVER, Deadline, LateError, interrupted_after, take_turns
from clients.node_work import NodeWork
from models.core.config import Value
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults
from strategies.wire.reply import NodeReply
from strategies.wire.request import ClientRequest, RoundInfo, pack_requests

Make = Callable[..., dict[str, Value]]


def requests(count: int) -> list[ClientRequest]:
    weights = {"w": torch.zeros(1)}
    return [request_of(weights, client=client) for client in range(count)]


class Clock:
    """A clock that only work moves."""

    now = 0.0

    def monotonic(self) -> float:
        """Return the seconds that were worked."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(clients.deadline, "time", made)
    return made


def turns(
    clock: Clock,
    seconds: dict[int, int],
    limit: float,
    count: int = 4,
    *,
    each: float = math.inf,
    once: Collection[int] = (),
) -> tuple[NodeReply, list[int]]:
    """Let clients that need so long take turns; each looks at its deadline every second.

    Those in `once` need it the first time alone.
    """
    reply, begun = NodeReply(), []

    def turn(request: ClientRequest, deadline: Deadline) -> None:
        again = request.client in begun and request.client in once
        begun.append(request.client)
        for _ in range(0 if again else seconds.get(request.client, 0)):
            clock.now += 1
            deadline.check()
        reply.add(request.client, RecordDict())

    take_turns(requests(count), Deadline.after(limit, each), reply, turn)
    return reply, begun


def outcome(reply: NodeReply) -> tuple[list[int], dict[int, str]]:
    return [each.client for each in reply.replies], {each.client: each.error for each in reply.failures}


def test_a_client_that_takes_too_long_is_late_and_the_others_have_their_turns(clock: Clock) -> None:
    reply, begun = turns(clock, {1: 1000}, limit=40)
    assert begun == [0, 1, 2, 3]
    said = "not done within 20 s, half of what was left of round-timeout while others of its node wait"
    assert outcome(reply) == ([0, 2, 3], {1: f"LateError: {said}"})
    assert clock.now == 21  # half of the time, and one step more


@pytest.mark.parametrize(
    ("seconds", "late"),
    [
        ({0: 15}, []),
        ({0: 16}, [0]),
        ({3: 30}, []),  # nobody waits for the last
        ({0: 1, 3: 30}, [3]),
        ({0: 7, 1: 7, 2: 7, 3: 7}, []),  # alike, and it fits
        ({0: 99, 1: 99}, [0, 1]),
        ({0: 15, 1: 7, 2: 4, 3: 4}, []),
    ],
)
def test_half_of_the_time_is_for_those_who_wait(
    clock: Clock, seconds: dict[int, int], late: list[int]
) -> None:
    reply, begun = turns(clock, seconds, limit=30)
    assert begun == [0, 1, 2, 3]
    assert list(outcome(reply)[1]) == late
    assert [*outcome(reply)[0]] == [client for client in range(4) if client not in late]


def test_a_client_that_takes_longer_than_one_may_is_tried_once_more(clock: Clock) -> None:
    reply, begun = turns(clock, {1: 1000, 2: 1000}, limit=100, each=5, once=[2])
    assert begun == [0, 1, 1, 2, 2, 3]
    said = "LateError: not done within 5 s (client-timeout), in 2 tries"
    assert outcome(reply) == ([0, 2, 3], {1: said})
    assert clock.now == 18  # three times five seconds, and one step more


def test_a_client_is_not_tried_again_in_time_that_is_not_its_own(clock: Clock) -> None:
    """Half of the ten seconds is less than client-timeout, and is the others'."""
    reply, begun = turns(clock, {0: 1000}, limit=10, each=6)
    assert begun == [0, 1, 2, 3]
    assert list(outcome(reply)[1].values()) == [
        "LateError: not done within 5 s, half of what was left of round-timeout while others of its node wait"
    ]


@pytest.mark.parametrize(("size", "seconds"), [(1, 5), (4, 20), (40, 100)])
def test_a_stack_has_the_time_of_all_its_clients(clock: Clock, size: int, seconds: int) -> None:
    assert Deadline.after(100, each=5).for_stack(size).left == seconds
    assert Deadline.after(100).for_stack(size).left == 100
    assert NEVER.for_stack(size) is NEVER.for_one(others_wait=False) is NEVER


def test_clients_whose_turn_does_not_come_say_so() -> None:
    reply = NodeReply()
    take_turns(requests(2), Deadline.after(-1), reply, lambda *_: pytest.fail("there is no time"))
    replies, failed = outcome(reply)
    assert replies == []
    assert failed[1] == (
        "LateError: its turn did not come: the clients before it took the -1 s that the round had left "
        "(round-timeout)"
    )


def test_without_a_deadline_every_client_has_one_turn() -> None:
    order: list[int] = []
    take_turns(requests(3), NEVER, NodeReply(), lambda request, _: order.append(request.client))
    assert order == [0, 1, 2]


def test_an_alarm_ends_what_hangs_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients.deadline, "ALARM_AFTER", 0.05)
    before = signal.getsignal(signal.SIGALRM)
    started = time.monotonic()
    with pytest.raises(LateError), interrupted_after(Deadline.after(0.05)):
        time.sleep(60)
    assert time.monotonic() - started < 10
    with interrupted_after(Deadline.after(0.05)):
        pass
    time.sleep(0.15)  # an alarm that was left would ring
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_alarm_that_was_set_for_one_waits_on_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients.deadline, "ALARM_AFTER", 0.02)
    reply, slept = NodeReply(), []

    def turn(request: ClientRequest, until: Deadline) -> None:
        with interrupted_after(until):
            if request.client == 1:  # hangs beyond the first one's alarm, at 0.1 + 0.02 s, and its own
                began = time.monotonic()
                try:
                    time.sleep(5)
                finally:
                    slept.append(time.monotonic() - began)

    take_turns(requests(2), Deadline.after(0.2), reply, turn)
    assert [failure.client for failure in reply.failures] == [1]
    assert 0.15 < slept[0] < 4
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_somebody_elses_alarm_stays_as_it_is() -> None:
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with interrupted_after(Deadline.after(1)):
            assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 90
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_thread_goes_without_an_alarm() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with interrupted_after(Deadline.after(1)):
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


def result_of(config: dict[str, Value]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    folder = Path(str(config["run-dir"]))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return rows, json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_client_that_is_slow_at_every_batch_leaves_those_that_step_with_it(tiny: Make) -> None:
    options = "slow_at = [1, 2], seconds = 0.3, pauses = 1000"
    config = tiny(
        task="slow:SlowCnn",
        task_options=options,
        round_timeout=20.0,  # of which its half is time enough for the others, on a busy machine too
        engine="stacked",
        batch_size=2,
        num_server_rounds=1,
    )
    run_in_process(config)
    row = result_of(config)[0][-1]
    (failure,) = row["failures"]
    assert (failure["client"], row["clients"]) == (2, [0, 1, 3])
    said = "half of what was left of round-timeout while others of its node wait"
    assert failure["error"].startswith("LateError: not done within ")
    assert failure["error"].endswith(said)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_a_client_that_hangs_while_it_is_asked_for_its_losses_is_late_alone(tiny: Make, engine: str) -> None:
    config = tiny(
        task="slow:SlowCnn",
        task_options="slow_at = [1, 2], seconds = 60.0, stream = 'received'",
        strategy="QFedAvg",
        strategy_options="q = 0.1",
        round_timeout=12.0,
        engine=engine,
        num_server_rounds=1,
    )
    run_in_process(config)
    row = result_of(config)[0][-1]
    assert ([each["client"] for each in row["failures"]], row["clients"]) == ([2], [0, 1, 3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "seconds", "pauses"), [("loop", 60.0, 1), ("loop", 1.0, 1000), ("stacked", 60.0, 1)]
)
def test_a_slow_client_costs_itself_one_round(
    tiny: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    seconds: float,
    pauses: int,
) -> None:
    """It hangs before its first batch, or is slow at every one; the run ends as if it had raised there."""
    monkeypatch.setattr(clients.deadline, "ALARM_AFTER", 0.2)
    options = {"engine": engine, "num_server_rounds": 2, "evaluate_every": 0, "batch_size": 16}
    slow = tiny(
        task="slow:SlowCnn",
        task_options=f"slow_at = [1, 2], seconds = {seconds}, pauses = {pauses}",
        round_timeout=12.0,
        run_dir=str(tmp_path / "slow"),
        **options,
    )
    run_in_process(slow)
    rows, result = result_of(slow)
    assert result["status"] == "completed"
    assert rows[-1]["clients"] == [0, 1, 2, 3]
    (failure,) = rows[0]["failures"]
    assert failure["client"] == 2
    assert failure["error"].startswith("LateError: not done within ")
    assert failure["error"].endswith(
        " s, half of what was left of round-timeout while others of its node wait"
    )
    assert rows[0]["clients"] == [0, 1, 3]
    faulty = tiny(
        task="faulty:FaultyCnn", task_options="raise_at = [1, 2]", run_dir=str(tmp_path / "faulty"), **options
    )
    run_in_process(faulty)
    assert result_of(faulty)[1]["weights_sha256"] == result["weights_sha256"]


@pytest.mark.slow
def test_a_client_that_hangs_once_works_again_with_the_same_result(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs in the middle of its training; what it had learned by then leaves no trace."""
    monkeypatch.setattr(clients.deadline, "ALARM_AFTER", 0.2)
    options = {"num_server_rounds": 2, "batch_size": 16, "keep_optimizer": True, "task": "slow:SlowCnn"}
    options |= {"task_options": "slow_at = [0, 0], seconds = 0.0", "local_epochs": 2}
    plain = tiny(run_dir=str(tmp_path / "plain"), **options)
    run_in_process(plain)
    once = tmp_path / "once"
    options["task_options"] = f"slow_at = [2, 2], seconds = 60.0, first = 5, once = '{once}'"
    hung = tiny(run_dir=str(tmp_path / "hung"), client_timeout=3.0, **options)
    run_in_process(hung)
    assert once.exists()
    rows, result = result_of(hung)
    assert [row["failures"] for row in rows if "failures" in row] == [[], []]
    assert result["weights_sha256"] == result_of(plain)[1]["weights_sha256"]


@pytest.mark.slow
def test_a_client_that_hangs_twice_has_failed_alone(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients.deadline, "ALARM_AFTER", 0.2)
    config = tiny(
        task="slow:SlowCnn",
        task_options="slow_at = [1, 2], seconds = 60.0",
        client_timeout=3.0,
        num_server_rounds=1,
    )
    run_in_process(config)
    row = result_of(config)[0][-1]
    (failure,) = row["failures"]
    assert (failure["client"], row["clients"]) == (2, [0, 1, 3])
    assert failure["error"] == "LateError: not done within 3 s (client-timeout), in 2 tries"


def test_seconds_that_are_gone_before_the_work_begins_count() -> None:
    content = pack_requests([], RoundInfo(1, 0, "state", seconds_left=100.0))
    node = {"partition-id": 0, "num-partitions": 1}
    context = Context(1, 0, node, RecordDict(), {**defaults()})

    def load(*_: object) -> Any:
        return SimpleNamespace(engine="loop", apart={})

    work = NodeWork.begin(content, "train", context, load=load, spent=70.0)
    assert 29 < work.deadline.left <= 30
