"""Asynchronous rounds (FedBuff) and simulated time, in whole runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MessageType, MetricRecord, RecordDict

from models.core.config import Value
from models.core.errors import UserError
from server.run_schema import RESULT, RoundRecord, RunResult
from server.update_buffer import UpdateBuffer
from simulations.runs.reader import read_run
from simulations.runtime.in_process import run_in_process
from strategies.wire.arrays import hold, views
from strategies.wire.identity import let_messages_be_made
from strategies.wire.reply import ARRAYS, METRICS

Tiny = Callable[..., dict[str, Value]]
SLOW = "seconds = 0.01, slow = 0.25, times = 10"


def run(config: dict[str, Value]) -> tuple[str, tuple[RoundRecord, ...]]:
    run_in_process(config)
    folder = Path(str(config["run-dir"]))
    result = RunResult.model_validate_json((folder / RESULT).read_text(encoding="utf-8"))
    return result.weights_sha256, read_run(folder).rounds


def reply(client: int, value: float) -> Message:
    let_messages_be_made()
    content = RecordDict(
        {ARRAYS: hold({"w": np.full(2, value, np.float32)}), METRICS: MetricRecord({"num-examples": 3})}
    )
    return Message(content, reply_to=Message(RecordDict(), client, MessageType.TRAIN))


def test_stale_updates_are_applied_to_the_newest_model_and_scaled_down() -> None:
    """Client 5 begins at 1.0 and ends at 3.0; three models later it moves 10.0 by 2 / (1 + 3) ** 0.5 = 1."""
    buffer = UpdateBuffer(0.5)
    buffer.put(1, [reply(5, 3.0), reply(6, 4.0)], {"w": np.ones(2, np.float32)})
    taken = dict(buffer.take([5, 9], 4, {"w": np.full(2, 10.0, np.float32)}))
    assert list(taken) == [5]
    assert views(taken[5][ARRAYS])["w"].tolist() == [11.0, 11.0]
    assert taken[5][METRICS]["num-examples"] == 3
    fresh = dict(buffer.take([6], 1, {"w": np.full(2, 10.0, np.float32)}))
    assert views(fresh[6][ARRAYS])["w"].tolist() == [4.0, 4.0], "of this round: as it came"
    assert not buffer.updates
    assert not buffer.began


def test_a_checkpoint_holds_what_has_not_arrived() -> None:
    buffer, again = UpdateBuffer(1.0), UpdateBuffer(1.0)
    buffer.put(2, [reply(5, 3.0)], {"w": np.ones(2, np.float32)})
    again.restore(buffer.tensors())
    newest = {"w": np.zeros(2, np.float32)}
    one, other = (dict(each.take([5], 3, newest))[5] for each in (buffer, again))
    assert views(one[ARRAYS])["w"].tolist() == views(other[ARRAYS])["w"].tolist() == [1.0, 1.0]
    assert one[METRICS] == other[METRICS]
    broken = {name: each for name, each in buffer.tensors().items() if not name.startswith("began/")}
    again.restore(broken)
    buffer.put(2, [reply(5, 3.0)], {"w": np.ones(2, np.float32)})
    broken = {name: each for name, each in buffer.tensors().items() if not name.startswith("began/")}
    with pytest.raises(ValueError, match=r"it lacks the weights of rounds \[2\]"):
        again.restore(broken)


def test_a_checkpoint_keeps_the_shape_of_a_single_number_and_shares_no_memory() -> None:
    weights = {"w": np.zeros(2, np.float32), "scale": np.float32(1.0).reshape(())}
    content = RecordDict({ARRAYS: hold(weights), METRICS: MetricRecord({"num-examples": 1})})
    buffer, again = UpdateBuffer(1.0), UpdateBuffer(1.0)
    for server_round in (1, 2):  # of which the first has left the weights as they were
        told = Message(content, reply_to=Message(RecordDict(), server_round, MessageType.TRAIN))
        buffer.put(server_round, [told], weights)
    kept = buffer.tensors()
    assert {tuple(each.shape) for name, each in kept.items() if name.endswith("/scale")} == {()}
    assert len({each.data_ptr() for each in kept.values()}) == len(kept)
    again.restore(kept)
    newest = {name: weights[name] for name in ("w", "scale")}
    ((_, content),) = again.take([1], 3, newest)
    assert list(content[ARRAYS]) == ["w", "scale"], "a strategy may go by the model's order"
    again.restore(kept)
    assert {name: each.tolist() for name, each in again.tensors().items()} == {
        name: each.tolist() for name, each in kept.items()
    }


def test_a_short_round_is_left_out(tiny: Tiny) -> None:
    """Client 2 fails in the first round, in which two of the four are awaited."""
    keys = {"buffer_size": 2, "min_replies": 2, "short_rounds": "skip", "num_server_rounds": 4}
    failing = {"task": "faulty:FaultyCnn", "task_options": "raise_at = [1, 2]", "partitioner": "iid"}
    _, lines = run(tiny(**keys, **failing))
    assert lines[1].failures
    assert all(len(line.clients) == 2 for line in lines[1:] if line.train)
    assert [line.server_round for line in lines] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian"])
def test_a_buffer_for_all_clients_of_one_speed_is_a_synchronous_round(
    tiny: Tiny, tmp_path: Path, strategy: str
) -> None:
    synchronous, _ = run(tiny(strategy=strategy, run_dir=str(tmp_path / "a")))
    asynchronous, rounds = run(tiny(strategy=strategy, buffer_size=4, run_dir=str(tmp_path / "b")))
    assert asynchronous == synchronous
    assert [line.train["staleness"] for line in rounds[1:]] == [0.0, 0.0]


def test_time_is_that_of_the_slowest_client_or_does_not_wait_for_it(tiny: Tiny, tmp_path: Path) -> None:
    keys = {"client_speeds": SLOW, "partitioner": "iid", "num_server_rounds": 8}
    plain, _ = run(tiny(partitioner="iid", num_server_rounds=8, run_dir=str(tmp_path / "plain")))
    waiting, lines = run(tiny(**keys, run_dir=str(tmp_path / "waiting")))
    assert waiting == plain, "time alone changes nothing"
    each = lines[1].simulated_seconds or 0.0
    assert [line.simulated_seconds for line in lines] == pytest.approx(
        [None, *(each * n for n in range(1, 9))]
    )
    first, early = run(tiny(**keys, buffer_size=2, run_dir=str(tmp_path / "first")))
    second, _ = run(tiny(**keys, buffer_size=2, run_dir=str(tmp_path / "second")))
    assert first == second != waiting
    assert (early[-1].simulated_seconds or 0.0) < 0.2 * (lines[-1].simulated_seconds or 0.0)
    assert any(line.train["staleness"] > 0 for line in early[1:])


@pytest.mark.parametrize(
    "options",
    [
        {"keep_optimizer": True, "strategy": "FedAdam", "strategy_options": "eta = 0.01"},
        {"compression": "top-k", "fraction_evaluate": 1.0, "local_test_fraction": 0.2},
        {"strategy": "FedMedian", "compression": "int8", "max_update_norm": 0.5},
        {"strategy": "FedProx", "strategy_options": "proximal_mu = 0.1",
         "availability": "share = 0.5, period = 9"},
        {"attack": "sign-flip", "attack_fraction": 0.25, "strategy": "FedAvgM",
         "strategy_options": "server_momentum = 0.5"},
    ],
)  # fmt: skip
def test_an_asynchronous_run_goes_on_exactly(tiny: Tiny, tmp_path: Path, options: dict[str, Any]) -> None:
    """With what clients and strategies remember, what travels compressed, and clients that come and go."""
    keys: dict[str, Any] = {"client_speeds": SLOW, "buffer_size": 2, **options}
    whole, lines = run(tiny(**keys, num_server_rounds=6, run_dir=str(tmp_path / "whole")))
    assert [len(line.clients) for line in lines[1:]] == [2] * 6, "every update that was awaited has come"
    run(tiny(**keys, num_server_rounds=3, run_dir=str(tmp_path / "cut")))
    resumed, again = run(tiny(**keys, num_server_rounds=6, resume=True, run_dir=str(tmp_path / "cut")))
    assert resumed == whole
    assert [line.simulated_seconds for line in again] == [line.simulated_seconds for line in lines]


def test_clients_that_are_away_are_not_asked(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "there.csv"
    file.write_text("client,from,to\n2,0,0.001\n", encoding="utf-8")
    config = tiny(
        client_speeds=SLOW, availability=f"file = '{file}', period = 1000000", num_server_rounds=4,
        clients_per_round=2,
    )  # fmt: skip
    _, lines = run(config)
    asked = [line.clients for line in lines[1:]]
    assert all(2 not in clients for clients in asked[1:])
    assert all(len(clients) == 2 for clients in asked)


def test_a_client_may_arrive_twice_in_a_round(tiny: Tiny, tmp_path: Path) -> None:
    """Once with an update that it began a round ago, and once more with one of this round's model."""
    keys = {
        "partitioner": "iid", "num_server_rounds": 6, "buffer_size": 3, "clients_per_round": 3,
        "min_replies": 3,
    }  # fmt: skip
    speeds = tmp_path / "speeds.csv"
    speeds.write_text("client,seconds\n0,0.01\n1,0.01\n2,0.01\n3,0.05\n", encoding="utf-8")
    _, lines = run(tiny(**keys, client_speeds=f"file = '{speeds}'"))
    assert all(len(line.clients) == 3 for line in lines[1:])
    assert any(len(set(line.clients)) < 3 for line in lines[1:])


def test_a_client_that_fails_takes_its_place_in_the_buffer(tiny: Tiny) -> None:
    failing = {"task": "faulty:FaultyCnn", "task_options": "raise_at = [1, 2]"}
    _, lines = run(tiny(buffer_size=4, num_server_rounds=3, **failing))
    assert lines[1].failures
    assert len(lines[1].clients) + len(lines[1].failures) == 4
    assert all(len(line.clients) == 4 for line in lines[2:]), "its place is free again"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"strategy": "Scaffold"}, "strategy Scaffold does not say that its rounds can be asynchronous"),
        ({"buffer_size": 5}, r"buffer-size must be at most the number of clients that train at a time \(4\)"),
        ({"task_options": "norm = 'batch'"}, "asynchronous rounds average no statistics"),
        (
            {
                "strategy": "DifferentialPrivacyClientSideFixedClipping",
                "strategy_options": "clipping_norm = 1.0, noise_multiplier = 1.0",
            },
            "strategy DifferentialPrivacyClientSideFixedClipping does not say that its rounds can be",
        ),
    ],
)
def test_what_cannot_be_asynchronous_is_refused(tiny: Tiny, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run_in_process(tiny(**{"buffer_size": 2, **keys}))


def test_the_round_line_is_json_with_the_time(tiny: Tiny, tmp_path: Path) -> None:
    run(tiny(client_speeds=SLOW))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert "simulated_seconds" not in json.loads(lines[0])
    assert json.loads(lines[1])["simulated_seconds"] > 0
