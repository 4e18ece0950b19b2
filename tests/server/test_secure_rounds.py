"""Runs under secure aggregation: the plain run's weights, of sums alone, whoever drops out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished import result_of
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from clients.answers import answer
from clients.reply import send_reply
from clients.secure_stages import MEMORY, Opened
from models.core.config import Value
from models.core.errors import UserError
from server.errors import RunFailedError
from server.opened_sums import OpenedSum, OpenedSums
from simulations.runtime.in_process import InProcessGrid, run_in_process, run_server
from strategies.secure import wire
from strategies.secure.masked_reply import MASKED
from strategies.wire.identity import let_messages_be_made
from strategies.wire.records import GROUPS, PLAN
from strategies.wire.request import unpack_requests

Make = Callable[..., dict[str, Value]]
SAME = ("server_round", "clients", "central", "failures", "lists")
"""What a round's line says the same, to the last bit."""


class Watched(InProcessGrid):
    """Nodes whose answers are kept, and some of which fail when they are asked to train."""

    def __init__(self, config: dict[str, Value], num_nodes: int, failing: set[int]) -> None:
        super().__init__(config, num_nodes)
        self.failing, self.answered = failing, list[Message]()

    def _answer(self, message: Message) -> Message:
        trains = message.metadata.message_type == MessageType.TRAIN
        if trains and message.metadata.dst_node_id in self.failing:
            return Message(RecordDict(), reply_to=message)  # what cannot be read is each client's failure
        self.answered.append(super()._answer(message))
        return self.answered[-1]


def run(config: dict[str, Value], num_nodes: int = 3, failing: set[int] | None = None) -> tuple[str, Watched]:
    """Return the hash of a run's weights, and the nodes."""
    grid = Watched(config, num_nodes, failing or set())
    run_server(grid, config)
    return str(result_of(Path(str(config["run-dir"])))["weights_sha256"]), grid


def lines(config: dict[str, Value]) -> list[dict[str, Any]]:
    path = Path(str(config["run-dir"])) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_masked_run_ends_in_the_weights_of_the_plain_one_and_shows_sums_alone(
    tiny: Make, tmp_path: Path
) -> None:
    """With BatchNorm's statistics beside the weights, clients of unequal sizes, and two on one node."""
    given: dict[str, Value] = {"task_options": "norm = 'batch'", "alpha": 0.3, "num_server_rounds": 2}
    plain = tiny(**given, run_dir=str(tmp_path / "plain"))
    masked = tiny(**given, secure_aggregation=True, run_dir=str(tmp_path / "masked"))
    wanted, _ = run(plain)
    found, grid = run(masked)
    assert found == wanted
    for one, other in zip(lines(plain), lines(masked), strict=True):
        assert [other.get(key) for key in SAME] == [one.get(key) for key in SAME]
        assert other.get("train", {}) == pytest.approx(one.get("train", {}), rel=1e-12)
    left = lines(masked)[-1]["bytes"]["left"]
    assert {kind for kind in left if left[kind]} == {"masked", "lists", "failures"}  # "[]", thrice
    answers = [each.content for each in grid.answered]
    vectors = [content for content in answers if MASKED in content]
    assert len(vectors) == 3 * 2
    for content in answers:
        arrays = [array for record in content.array_records.values() for array in record.values()]
        assert [array.dtype for array in arrays] == (["uint64"] if MASKED in content else [])
        assert not content.metric_records
        if PLAN in content:  # of single clients it says who has answered, and nothing else
            plan = content.config_records[PLAN]
            assert all(metrics == {} for _, metrics in json.loads(str(plan["metrics"])))
            assert (plan["failures"], "sum-weights" in plan) == ("[]", False)
    assert all(MEMORY not in context.state for context in grid.contexts.values())  # sessions end


@pytest.mark.parametrize("strategy", ["FedNova", "Scaffold", "DifferentialPrivacyClientSideFixedClipping"])
def test_aux_tensors_and_what_rules_tell_are_masked_too(rest: Callable[..., float], strategy: str) -> None:
    options: dict[str, Any] = {"optimizer": "sgd", "rounds": 3, "num_nodes": 2}
    if strategy.startswith("Differential"):
        options["strategy_options"] = "noise_multiplier = 0.1, clipping_norm = 0.5, noise = 'repeatable'"
    assert rest(strategy, secure_aggregation=True, **options) == rest(strategy, **options)


def test_a_node_that_goes_costs_its_clients_alone(tiny: Make, tmp_path: Path) -> None:
    given: dict[str, Value] = {"num_clients": 5, "num_server_rounds": 1, "evaluate_every": 0}
    plain = tiny(**given, run_dir=str(tmp_path / "plain"))
    masked = tiny(**given, secure_aggregation=True, run_dir=str(tmp_path / "masked"))
    wanted, _ = run(plain, 5, {1, 3})
    found, _ = run(masked, 5, {1, 3})
    assert found == wanted
    (line,) = lines(masked)
    assert (line["clients"], [each["client"] for each in line["failures"]]) == ([0, 2, 4], [1, 3])


def test_below_the_threshold_a_round_is_short_and_the_run_says_why(tiny: Make) -> None:
    config = tiny(secure_aggregation=True, num_server_rounds=1, evaluate_every=0)
    with pytest.raises(
        RunFailedError, match="all 4 clients of round 1 failed; client 0: the reply of its node"
    ):
        run(config, 4, {0, 1})
    log = Path(str(config["run-dir"]), "run.log").read_text(encoding="utf-8")
    why = (
        "2 of 4 nodes have sent their vectors, and secure aggregation takes 3 (secure-threshold): nothing was"
    )
    assert all(f"client {client} failed: {why} opened; client 0: the reply" in log for client in (2, 3))


def test_a_round_that_is_done_again_may_open_the_same_sum_and_no_other(tiny: Make, tmp_path: Path) -> None:
    """As a run that is resumed does, in whose first leg a node was away."""
    config = tiny(secure_aggregation=True, num_server_rounds=2, evaluate_every=0)
    whole, _ = run({**config, "run-dir": str(tmp_path / "whole")})
    run({**config, "num-server-rounds": 1})
    notes = sorted((tmp_path / "run").rglob("opened-sums-*.json"))
    assert len(notes) == 3
    first = [json.loads(note.read_text(encoding="utf-8")) for note in notes]
    for note in notes:  # as if round 2 had been opened before
        note.write_text(json.dumps({"1": "", "2": "another"}), encoding="utf-8")
    with pytest.raises(RunFailedError, match="a sum of round 2 was opened before, of other nodes or clients"):
        run({**config, "resume": True})
    for note, sums in zip(notes, first, strict=True):
        note.write_text(json.dumps(sums), encoding="utf-8")
    assert run({**config, "resume": True})[0] == whole


def test_sums_of_a_round_are_told_apart_by_their_nodes_and_clients(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "run", 3)
    opened.note(1, [0, 3, 4], [3, 8])
    opened.note(1, [4, 3, 0], [8, 3])
    opened.note(2, [0, 3], [3])
    for nodes, clients in (([0, 3], [3, 8]), ([0, 3, 4], [3])):
        with pytest.raises(ValueError, match="a second one would tell their difference"):
            Opened(tmp_path / "run", 3).note(1, nodes, clients)


def test_rounds_that_are_done_again_are_of_the_same_nodes_who_may_be_away_for_ever(
    tiny: Make, tmp_path: Path
) -> None:
    """A node is away in three rounds, and back as they are done again; then another one is away."""
    config = tiny(
        num_clients=3, secure_aggregation=True, num_server_rounds=1, keep_checkpoints=9, evaluate_every=0
    )
    run(config)
    again = {**config, "resume": True, "num-server-rounds": 4}
    wanted, _ = run(again, failing={1})
    checkpoints = tmp_path / "run" / "checkpoints"

    def lose() -> None:
        for path in checkpoints.glob("round-00000[234].safetensors"):
            path.unlink()

    lose()
    assert run(again)[0] == wanted
    assert [each["clients"] for each in lines(config)][1:] == [[0, 2]] * 3
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "Round 3: client 1 failed: round 3 was done before without it, and secure aggregation" in log
    lose()
    why = "client 0: the reply of its node .* its sum was opened before the run was resumed, and no other"
    with pytest.raises(RunFailedError, match=why):
        run(again, failing={0})
    lose()
    run({**again, "short-rounds": "skip", "num-server-rounds": 5}, failing={0})
    assert [each["clients"] for each in lines(config)][1:] == [[], [], [], [1, 2]]


def test_sums_are_read_again_as_they_were_noted(tmp_path: Path) -> None:
    path, opened = tmp_path / "opened-sums.jsonl", OpenedSum(2, {0: (3, 8), 4: (5,)})
    OpenedSums(path).note(1, opened)
    path.write_bytes(path.read_bytes() + b"\n[2, 3, [[0, [")  # killed
    OpenedSums(path).note(3, opened)
    found = OpenedSums(path)
    assert [found.of(server_round) for server_round in (1, 2, 3)] == [opened, None, opened]


def test_a_vector_of_other_clients_does_not_leave_a_node_a_second_time(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others cannot see of whom it is, and would open the sum without the node's consent."""
    config = tiny(num_clients=6, secure_aggregation=True, num_server_rounds=2, evaluate_every=0)
    run(config)
    (tmp_path / "run" / "checkpoints" / "round-000002.safetensors").unlink()  # as if killed before it
    for record in (tmp_path / "run").glob("opened-sums.jsonl"):
        record.unlink()  # of a server that asks all the same

    def failing(worker: Any, request: Any, *more: Any) -> None:
        if request.client == 4:
            raise ValueError("not now")
        send_reply(worker, request, *more)

    monkeypatch.setattr("clients.train.send_reply", failing)
    grid = Watched({**config, "resume": True}, 3, set())
    with pytest.raises(RunFailedError, match="all 6 clients of round 2 failed"):
        run_server(grid, {**config, "resume": True})
    assert sum(MASKED in each.content for each in grid.answered) == 2
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "a vector of round 2 was masked before, of other clients of this node" in log
    assert "Node 0 does not help to open the sum of round 2: a sum of round 2 was opened before" in log


def test_a_node_notes_its_clients_before_their_vector_leaves(tmp_path: Path) -> None:
    Opened(tmp_path, 3).note_masked(1, [3, 8])
    Opened(tmp_path, 3).note_masked(1, [8, 3])  # done again, as it was
    Opened(tmp_path, 3).note_masked(2, [3])
    with pytest.raises(ValueError, match="a vector of round 1 was masked before, of other clients"):
        Opened(tmp_path, 3).note_masked(1, [3])


@pytest.mark.parametrize("content", ["[]", "{", '{"1": 2}'])
def test_broken_notes_of_a_node_are_named(tmp_path: Path, content: str) -> None:
    opened = Opened(tmp_path, 3)
    opened.path.write_text(content, encoding="utf-8")
    for note in (lambda: opened.note(1, [0], [3]), lambda: opened.note_masked(1, [3])):
        with pytest.raises(ValueError, match=r"opened-sums-3\.json must hold a JSON object of texts"):
            note()
    assert opened.path.read_text(encoding="utf-8") == content


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"strategy": "FedMedian"},
            "strategy FedMedian looks at what single clients reply, which secure-aggregation hides",
        ),
        ({"strategy": "DifferentialPrivacyServerSideFixedClipping"}, "looks at what single clients reply"),
        ({"compression": "int8"}, "a masked sum is as long whatever it is a sum of"),
        ({"fraction_evaluate": 0.5, "local_test_fraction": 0.2}, "fraction-evaluate must be 0 when secure"),
        ({"buffer_size": 2}, "buffer-size must be 0 when secure-aggregation is true"),
        ({"oversample": 1.5}, "oversample must be 1 when secure-aggregation is true"),
        ({"secure_threshold": 0.5}, "secure-threshold must be"),
    ],
)
def test_what_needs_single_replies_is_refused_before_the_run(
    tiny: Make, options: dict[str, Value], why: str
) -> None:
    if "Differential" in str(options.get("strategy")):
        options = {**options, "strategy_options": "noise_multiplier = 1.0, clipping_norm = 1.0"}
    with pytest.raises(UserError, match=why):
        run(tiny(secure_aggregation=True, **options))


def test_a_single_node_is_told_that_there_is_nothing_to_add_up(tiny: Make) -> None:
    with pytest.raises(UserError, match="adds up what at least 2 nodes reply, and there is 1"):
        run_in_process(tiny(secure_aggregation=True))


def test_a_strategy_that_asks_clients_by_itself_is_refused(tiny: Make, tmp_path: Path) -> None:
    from server.secure_cohort import SecureCohortGrid

    config = tiny(secure_aggregation=True)
    grid = InProcessGrid(config, 2)
    from server.node_registry import NodeRegistry

    cohort = SecureCohortGrid(
        grid,
        NodeRegistry(2, "", (), interchangeable=True),
        threshold=0.6,
        metrics=(),
        patience=1.0,
        opened=OpenedSums(tmp_path / "opened-sums.jsonl"),
    )
    with pytest.raises(UserError, match="asks for what single clients reply, which secure-aggregation hides"):
        cohort.send_and_receive([])


def test_a_nodes_owner_lets_it_reply_in_large_sums_alone(tiny: Make) -> None:
    let_messages_be_made()
    grid = InProcessGrid(tiny(), 2)
    context = grid.contexts[0]
    context.node_config["secure-nodes"] = 3
    plan = ConfigRecord({GROUPS: json.dumps([{"records": {}, "clients": [0]}])})
    for kind in (MessageType.TRAIN, MessageType.EVALUATE):
        said = answer(RecordDict({PLAN: plan}), kind, context).config_records[PLAN]["failures"]
        assert "in sums of at least 3 nodes alone (secure-nodes): set secure-aggregation = true" in str(said)
    begin = wire.asked(wire.BEGIN, b"s", numbers=[0, 1, 2], threshold=2, round=1)
    said = answer(RecordDict({wire.SECURE: begin}), MessageType.QUERY, context)[wire.SECURE]["error"]
    assert "at least 3 nodes (secure-nodes), and this one may be of 2" in str(said)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({}, "a stage must be begin, deal or open, got None"),
        ({"stage": "open", "session": b"s", "alive": [1], "dead": [2]}, "it has no session"),
        (
            {"stage": "begin", "session": b"s", "numbers": [1, 2], "threshold": 2, "round": 1},
            "each once, with 0",
        ),
        (
            {"stage": "begin", "session": b"s", "numbers": [0, 1], "threshold": True, "round": 1},
            "its threshold",
        ),
        (
            {"stage": "begin", "session": b"", "numbers": [0, 1], "threshold": 2, "round": 1},
            "a name of 1 to 64",
        ),
        (
            {"stage": "begin", "session": "s", "numbers": [0, 1], "threshold": 2, "round": 1},
            "its session must be",
        ),
        (
            {"stage": "begin", "session": b"s", "numbers": [*range(1001)], "threshold": 501, "round": 1},
            "its numbers must be at most 1000 numbers",
        ),
    ],
)
def test_what_a_server_asks_is_read_by_type(tiny: Make, record: dict[str, Any], why: str) -> None:
    context = InProcessGrid(tiny(), 2).contexts[0]
    said = answer(RecordDict({wire.SECURE: ConfigRecord(record)}), MessageType.QUERY, context)
    assert why in str(said[wire.SECURE]["error"])
    assert len(context.state) == 0


def test_vectors_that_are_not_as_asked_fail_their_node_by_name(tiny: Make, tmp_path: Path) -> None:
    """Of five nodes one sends numbers in plain, and one a vector that is too short."""
    from strategies.wire.arrays import hold

    class Spoilt(Watched):
        def _answer(self, message: Message) -> Message:
            reply, node = super()._answer(message), message.metadata.dst_node_id
            if MASKED in reply.content and node == 1:
                reply.content["surplus"] = ArrayRecord()
            if MASKED in reply.content and node == 2:
                reply.content[MASKED] = hold({"vector": np.zeros((2, 5), np.uint64)})
            return reply

    config = tiny(num_clients=5, secure_aggregation=True, num_server_rounds=1, evaluate_every=0)
    run_server(Spoilt(config, 5, set()), config)
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "client 1 failed: the reply of its node cannot be used: it sends records" in log
    assert (
        "client 2 failed: the reply of its node cannot be used: its masked vector must be uint64 [2, " in log
    )
    (line,) = lines(config)
    assert line["clients"] == [0, 3, 4]


class Silent(InProcessGrid):
    """Nodes that answer later, as real ones do; one says nothing at one stage."""

    waits_by_itself = False
    stage = wire.OPEN

    def answer(self, messages: list[Message], timeout: float | None) -> list[Message]:
        return [self._answer(message) for message in messages if not self.is_silent(message)]

    def is_silent(self, message: Message) -> bool:
        record = message.content.config_records.get(wire.SECURE, ConfigRecord())
        return message.metadata.dst_node_id == 1 and record.get(wire.STAGE) == self.stage


def test_a_node_that_does_not_tell_its_shares_is_in_the_sum_all_the_same(tiny: Make, tmp_path: Path) -> None:
    """It is waited for as long as node-timeout says."""
    given: dict[str, Value] = {"num_server_rounds": 1, "evaluate_every": 0}
    wanted, _ = run(tiny(**given, run_dir=str(tmp_path / "plain")))
    config = tiny(**given, secure_aggregation=True, node_timeout=0.5)
    run_server(Silent(config, 3), config)
    assert result_of(tmp_path / "run")["weights_sha256"] == wanted


def test_a_node_that_hangs_before_the_training_costs_the_other_clients_no_time(tiny: Make) -> None:
    given: list[float] = []

    class Hangs(Silent):
        stage = wire.BEGIN

        def is_silent(self, message: Message) -> bool:
            if message.metadata.message_type == MessageType.TRAIN:
                content = {key: each for key, each in message.content.items() if key != wire.SECURE}
                given.append(unpack_requests(RecordDict(content))[0].seconds_left)
            return super().is_silent(message)

    config = tiny(
        num_clients=3, secure_aggregation=True, num_server_rounds=1, evaluate_every=0, node_timeout=0.2
    )
    run_server(Hangs(config, 3), config)
    assert given == [3600.0, 3600.0]  # round-timeout
    (line,) = lines(config)
    assert line["clients"] == [0, 2]


@pytest.mark.parametrize(
    ("stage", "change", "why"),
    [
        (wire.BEGIN, {"seal_key": "mask_key"}, "its two public keys are the same"),
        (wire.BEGIN, {"mask_key": bytes(32)}, "one of its public keys is none"),
        (wire.DEAL, {"seed_tags": [bytes(32)] * 5}, "node 1 has dealt other shares than it said, by nodes"),
    ],
)
def test_who_spoils_a_round_is_named(
    tiny: Make, tmp_path: Path, stage: str, change: dict[str, Any], why: str
) -> None:
    class Spoils(Watched):
        def _answer(self, message: Message) -> Message:
            asked = message.content.config_records.get(wire.SECURE, ConfigRecord())
            reply = super()._answer(message)
            if message.metadata.dst_node_id == 1 and asked.get(wire.STAGE) == stage:
                record = reply.content.config_records[wire.SECURE]
                for key, value in change.items():
                    record[key] = record[value] if isinstance(value, str) else value
            return reply

    config = tiny(
        num_clients=5, secure_aggregation=True, num_server_rounds=1, evaluate_every=0, short_rounds="skip"
    )
    run_server(Spoils(config, 5, set()), config)
    assert why in (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    (line,) = lines(config)
    assert line["clients"] == ([0, 2, 3, 4] if stage == wire.BEGIN else [])
