"""Who lives where, asked of nodes that a test scripts."""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from scripted_grid import Answer, ScriptedGrid

from models.core.config import Value
from models.core.errors import UserError
from server.app import app as server_app
from server.errors import RunFailedError
from server.node_refusal import OF_ONE, REMEMBERED, Refusal, Refusals
from server.node_registry import NodeRegistry
from server.sightings import Sighting
from simulations.runtime.in_process import InProcessGrid
from strategies.wire.node import DataDescription, NodeDescription

DATA, STATE = "abc", ("w float32 (3,)",)
NODE_UNAVAILABLE = 5
"""Flower's error code for a node that has gone."""


def node(partition: int, num_partitions: int = 3, **changes: Any) -> Answer:
    """Return a node that describes itself, by default as it should."""
    alike = {"own_data": False, "data": DATA, "state": STATE}
    description = NodeDescription(
        partition_id=partition, num_partitions=num_partitions, **{**alike, **changes}
    )
    return lambda _: description.pack()


def silent(_: Message) -> None:
    """Do not answer."""


def failing(code: int, reason: str) -> Answer:
    return lambda _: Error(code, reason)


def node_registry(num_clients: int = 7, interchangeable: bool = False, **options: Any) -> NodeRegistry:
    return NodeRegistry(num_clients, DATA, STATE, interchangeable, **options)


def waited(grid: ScriptedGrid, **options: Any) -> NodeRegistry:
    known = node_registry(**options)
    known.wait_for_all(grid, timeout=5)
    return known


def test_every_node_is_asked_once() -> None:
    grid = ScriptedGrid({900: node(2), 17: node(0), 42: node(1)})
    known = waited(grid)
    assert known.partitions == {900: 2, 17: 0, 42: 1}
    known.update(grid)
    assert [message.metadata.dst_node_id for message in grid.sent] == [900, 17, 42]
    assert {message.metadata.message_type for message in grid.sent} == {"query"}


def test_it_waits_for_nodes_that_appear_later() -> None:
    grid = ScriptedGrid({900: node(2)})

    def and_another(message: Message) -> Any:
        grid.nodes |= {17: node(0), 42: node(1)}
        return node(2)(message)

    grid.nodes[900] = and_another
    assert sorted(waited(grid).partitions.values()) == [0, 1, 2]


def test_client_c_lives_on_the_node_with_partition_id_c_modulo_their_number() -> None:
    grid = ScriptedGrid({900: node(2), 17: node(0), 42: node(1)})
    known = waited(grid)
    assert known.hosts() == (0, 1, 2, 3, 4, 5, 6)
    assert known.assign(range(7), grid.get_node_ids()) == {17: [0, 3, 6], 42: [1, 4], 900: [2, 5]}
    assert known.assign({5, 2, 3}, grid.get_node_ids()) == {900: [2, 5], 17: [3]}


def test_clients_of_a_node_that_is_away_are_away() -> None:
    grid = ScriptedGrid({900: node(2), 17: node(0), 42: node(1)})
    known = waited(grid)
    del grid.nodes[42]
    grid.nodes[5] = silent  # has not said who it is
    known.update(grid)
    assert known.hosts() == (0, 2, 3, 5, 6)
    assert known.why_away(1) == "its node has gone"
    grid.nodes.clear()
    known.update(grid)
    assert known.hosts() == ()


def test_interchangeable_nodes_share_any_clients_evenly() -> None:
    grid = ScriptedGrid({900: node(2), 17: node(0), 42: node(1)})
    known = waited(grid, interchangeable=True)
    assert known.hosts() == (0, 1, 2, 3, 4, 5, 6)
    # Clients 0, 3 and 6 would all live on one node of a real federation.
    assert known.assign([6, 0, 3], grid.get_node_ids()) == {17: [0], 42: [3], 900: [6]}
    assert known.assign(range(5), [42, 17]) == {17: [0, 2, 4], 42: [1, 3]}


def test_there_may_be_more_interchangeable_nodes_than_clients() -> None:
    grid = ScriptedGrid({900: node(2), 17: node(0), 42: node(1)})
    known = waited(grid, num_clients=1, interchangeable=True)
    assert known.assign([0], grid.get_node_ids()) == {17: [0]}


IMAGES = DataDescription(
    kind="images", num_examples=5, columns={"image": (1, 8, 8), "label": ()}, classes=("cat", "dog")
)


def own(**changes: Any) -> Answer:
    """Return a node with data of its own, which is like the server's but for the changes."""
    return node(1, own_data=True, data="xyz", examples=IMAGES.model_copy(update=changes))


def badly(content: RecordDict) -> Answer:
    return lambda _: content


def failed(*place: Any) -> Answer:
    said = {"error": "no such folder", "traceback": "Traceback ...", "place": [*place]}
    return badly(RecordDict({"node": ConfigRecord(said)}))


OTHER_WAY = "it describes itself in another way: do server and nodes have the same polyfed?"
MISFITS = [
    (node(1, 2), "it says num-partitions=2, the others say 3"),
    (node(3), "partition-id 3 is not one of 0 to 2, as num-partitions is 3"),
    (node(0), "its clients are those of node 17, which is there: give each its own partition-id"),
    (node(1, state=("w float32 (4,)",)), "it builds another model than the server: same code and options"),
    (node(1, data="xyz"), "it loaded other data than the server: same dataset files there?"),
    (node(0, 2, own_data=True), "it has its own data, so it is one client: set num-clients=2"),
    (node(0, 4), "num-clients is 3, fewer than the nodes that host them (num-partitions=4)"),
    (node(0, 10**15), "num-clients is 3, fewer than the nodes that host them (num-partitions=1000"),
    (own(kind="text"), "its data are text, and the server's images"),
    (
        own(classes=("cat", "fox")),
        "its data has labels that the server's data has not (fox) and lacks labels of the",
    ),
    (own(classes=("cat",)), "its data lacks labels of the server's data (dog)"),
    (own(classes=("dog", "cat")), "its data has the server's labels in another order"),
    (own(columns={"image": (1, 8, 8)}), "its examples have image, and the server's image, label"),
    (
        own(columns={"image": (3, 8, 8), "label": ()}),
        "image of its examples is of shape (3, 8, 8), and (1, 8, 8) on",
    ),
    (own(num_examples=0), "its data has no examples to train on"),
    (own(num_examples=-1), OTHER_WAY),
    (badly(RecordDict({"node": ConfigRecord({"description": "{}"})})), OTHER_WAY),
    (badly(RecordDict({"node": ConfigRecord({"description": '{"partition_id": 1'})})), OTHER_WAY),
    (badly(RecordDict({"node": ConfigRecord({"description": "[" * 100_000})})), OTHER_WAY),
    (badly(RecordDict({"node": ConfigRecord({"description": [1, 2]})})), OTHER_WAY),
    (badly(RecordDict()), OTHER_WAY),
    (badly(RecordDict({"node": MetricRecord({"description": 1.0})})), OTHER_WAY),
    (badly(RecordDict({"node": ConfigRecord({"error": 3.5})})), "3.5"),
    (failed(1, 3), "no such folder"),
    (failed(-1, 3), "no such folder"),
    (failed("1", "3"), "no such folder"),
    (
        failing(2, "UserError: start this SuperNode with --node-config"),
        "UserError: start this SuperNode with",
    ),
    (failing(2, "\x1b[31mred\nUserError: \x07 beep"), "UserError: \\x07 beep"),
]
"""What a node may answer, and why it cannot take part."""


@pytest.mark.parametrize(("second", "why"), MISFITS)
def test_a_node_that_cannot_take_part_is_left_out_by_name(
    second: Answer, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    entries: list[tuple[str, str]] = []
    known = node_registry(3, examples=IMAGES, refusals=Refusals(lambda *entry: entries.append(entry)))
    grid = ScriptedGrid({17: node(0), 18: node(1), 19: node(2)})
    known.wait_for_all(grid, timeout=5)
    grid.nodes = {42: second, **grid.nodes}
    known.update(grid)
    known.update(grid)
    assert known.partitions == {17: 0, 18: 1, 19: 2}
    (refusal,) = known.refusals.now.values()
    assert refusal.reason.startswith(why)
    assert refusal.line.startswith("node 42 ")
    assert [where for where, _ in entries] == [refusal.who]
    assert [record.getMessage() for record in caplog.records] == [
        f"{refusal.line}; it is left out (more in errors.log)"
    ]
    assert len(grid.sent) == 4  # it is not asked again


@pytest.mark.parametrize(("second", "why"), MISFITS)
def test_with_unfit_nodes_stop_it_ends_a_run_that_has_not_begun(second: Answer, why: str) -> None:
    known = node_registry(3, examples=IMAGES, unfit="stop")
    with pytest.raises(RunFailedError, match=rf"^node 42 .*cannot take part: {re.escape(why)}"):
        known.wait_for_all(ScriptedGrid({17: node(0), 42: second, 18: node(2)}), timeout=0.1)
    begun = node_registry(3, examples=IMAGES, unfit="stop")
    grid = ScriptedGrid({17: node(0), 18: node(1), 19: node(2)})
    begun.wait_for_all(grid, timeout=5)
    grid.nodes[42] = second
    begun.update(grid)
    assert begun.refusals.now[42].reason.startswith(why)


def test_simulated_nodes_are_all_alike_so_one_that_does_not_fit_ends_the_run() -> None:
    with pytest.raises(RunFailedError, match=r"^a node cannot take part: it loaded other data"):
        waited(ScriptedGrid({17: node(0), 42: node(1, data="xyz")}), interchangeable=True)


def test_nodes_with_their_own_data_need_not_have_the_servers() -> None:
    own = {"own_data": True, "data": "xyz"}
    grid = ScriptedGrid({17: node(0, **own), 42: node(1, **own), 900: node(2, **own)})
    known = waited(grid, num_clients=3)
    assert known.assign(range(3), grid.get_node_ids()) == {17: [0], 42: [1], 900: [2]}


def test_missing_nodes_are_named_when_time_is_up() -> None:
    for nodes, said in (
        ({42: node(1)}, "partition-ids [0, 2] are missing; "),
        ({}, "none has connected; raise node-timeout or start them"),
        ({42: silent}, "node 42 has connected and not answered yet who it is; "),
        ({42: silent, 43: silent}, "node 42, node 43 have connected and not answered yet who it is; "),
        (
            {17: node(0, 2), 42: failed(1, 2)},
            "node 42 with partition-id 1 cannot take part: no such folder; 4 clients are there, and "
            "min-clients is 7",
        ),
        ({42: node(1, data="xyz")}, "node 42 with partition-id 1 cannot take part: it loaded other data"),
    ):
        with pytest.raises(RunFailedError, match=re.escape(f"within 0.1 s: {said}")):
            node_registry().wait_for_all(ScriptedGrid(nodes), timeout=0.1, min_clients=7)


def test_a_run_begins_without_nodes_that_are_missing_where_min_clients_are_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = node_registry()
    known.wait_for_all(ScriptedGrid({17: node(0), 42: node(1), 5: silent}), timeout=0.1, min_clients=5)
    assert known.hosts() == (0, 1, 3, 4, 6)
    assert known.why_away(2) == "its node has not connected"
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == (
        "The run begins without some nodes: partition-ids [2] are missing; node 5 has connected and not "
        "answered yet who it is"
    )
    with pytest.raises(RunFailedError, match="5 clients are there, and min-clients is 6"):
        node_registry().wait_for_all(ScriptedGrid({17: node(0), 42: node(1)}), timeout=0.1, min_clients=6)


def test_a_node_that_was_refused_is_not_waited_for() -> None:
    known = node_registry()
    known.wait_for_all(ScriptedGrid({17: node(0), 42: node(1), 900: failed(2, 3)}), timeout=60, min_clients=1)
    assert known.hosts() == (0, 1, 3, 4, 6)
    assert known.why_away(2) == "its node cannot take part: no such folder"
    assert known.waited_enough()


def test_the_most_nodes_say_how_many_there_are_whoever_answers_first() -> None:
    grid = ScriptedGrid({5: node(1, 4), 6: node(0, 7), 17: node(0), 42: node(1), 900: node(2)})
    known = waited(grid)
    assert known.partitions == {17: 0, 42: 1, 900: 2}
    assert sorted(known.refusals.now) == [5, 6]


def test_with_expected_nodes_a_stranger_that_is_alone_is_refused() -> None:
    known = node_registry(expected=3)
    with pytest.raises(RunFailedError, match="it says num-partitions=1, expected-nodes is 3"):
        known.wait_for_all(ScriptedGrid({5: node(0, 1)}), timeout=0.1, min_clients=1)


def test_nodes_that_answer_at_the_last_moment_have_answered() -> None:
    def slow(message: Message) -> Any:
        time.sleep(0.2)
        return node(0, 1)(message)

    known = node_registry()
    known.wait_for_all(ScriptedGrid({17: slow}), timeout=0.1)
    assert known.partitions == {17: 0}


def test_a_node_that_comes_back_under_another_id_takes_its_old_place() -> None:
    grid = ScriptedGrid({17: node(0), 42: node(1), 900: node(2)})
    known = waited(grid)
    del grid.nodes[42]
    grid.nodes[43] = node(1)  # a SuperNode without authentication gets a new id at every start
    known.update(grid)
    assert known.hosts() == (0, 1, 2, 3, 4, 5, 6)
    assert known.assign([1, 4], grid.get_node_ids()) == {43: [1, 4]}


def test_a_newcomer_that_goes_before_it_answers_does_not_end_the_run() -> None:
    grid = ScriptedGrid({17: node(0), 42: node(1), 900: node(2)})
    known = waited(grid)
    del grid.nodes[42]
    grid.nodes[43] = failing(NODE_UNAVAILABLE, "Node Unavailable - The destination node failed to report")
    known.update(grid)
    assert known.hosts() == (0, 2, 3, 5, 6)


def test_a_node_that_goes_while_the_run_starts_is_waited_for() -> None:
    grid = ScriptedGrid({17: node(0), 42: node(1)})

    def goes_and_comes_back(_: Message) -> Error:
        del grid.nodes[900]
        grid.nodes[901] = node(2)
        return Error(NODE_UNAVAILABLE, "Node Unavailable - The destination node failed to report")

    grid.nodes[900] = goes_and_comes_back
    assert sorted(waited(grid).partitions.values()) == [0, 1, 2]


class OneNodeGoes(InProcessGrid):
    """Two nodes with a disk each, of which one goes for good after the first round."""

    interchangeable_nodes = False

    def answers(self, messages: Iterable[Message], timeout: float | None) -> Iterator[Message]:
        """Let the node answer, and go."""
        asked = list(messages)
        yield from super().answers(asked, timeout)
        if any(message.metadata.message_type == "train" for message in asked):
            self.contexts.pop(1, None)


def test_a_run_goes_on_without_a_node_that_never_comes_back(
    tiny: Callable[..., dict[str, Value]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda _: time.sleep(0.01))
    rows, result = finished(tiny(num_server_rounds=3, node_timeout=0.3), OneNodeGoes)
    assert (result["status"], result["server_round"]) == ("completed", 3)
    assert [row["clients"] for row in rows[1:]] == [[0, 1, 2, 3], [0, 2], [0, 2]]
    gone = [{"client": client, "error": "its node has gone"} for client in (1, 3)]
    assert [row["failures"] for row in rows[1:]] == [[], gone, gone]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (
            {"min_clients": 3},
            "2 of 4 clients are there, and min-clients is 3; client 1 has been away for 0.3 s "
            "(node-timeout): its node has gone",
        ),
        (
            {"min_replies": 3},
            "2 clients answered in round 2, and min-replies is 3; client 1: its node has gone",
        ),
    ],
)
def test_too_few_clients_end_a_run(
    limits: dict[str, Any],
    reason: str,
    tiny: Callable[..., dict[str, Value]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda _: time.sleep(0.01))
    _, result = finished(tiny(num_server_rounds=3, node_timeout=0.3, **limits), OneNodeGoes)
    assert (result["status"], result["reason"], result["server_round"]) == ("failed", reason, 1)


def test_a_short_round_leaves_the_model_as_it_was(
    tiny: Callable[..., dict[str, Value]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda _: time.sleep(0.01))
    limits = {"min_replies": 3, "short_rounds": "skip", "node_timeout": 0.3}
    rows, result = finished(tiny(num_server_rounds=3, **limits), OneNodeGoes)
    assert result["status"] == "completed"
    assert rows[1]["central"] == rows[2]["central"] == rows[3]["central"] != rows[0]["central"]
    assert [row["train"] for row in rows[2:]] == [{}, {}]
    second = str(tmp_path / "second")
    rows, result = finished(tiny(num_server_rounds=9, run_dir=second, **limits), OneNodeGoes)
    assert (result["status"], result["server_round"]) == ("failed", 3)
    assert result["reason"].startswith("3 rounds in a row were too short: 2 clients answered in round 4")


def finished(
    config: dict[str, Value], grid: type[InProcessGrid]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the ServerApp over two nodes; return the rounds' lines and the result."""
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    with suppress(RunFailedError):
        server_app(grid(config, 2), context)
    run = Path(str(config["run-dir"]))
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], json.loads((run / "result.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        (
            {"oversample": 1.5},
            "oversample must be 1 in a simulation, where everybody answers: it is for real nodes",
        ),
        (
            {"min_replies": 3, "clients_per_round": 2},
            "min-replies must be at most the 2 clients that a round waits",
        ),
        ({"min_clients": 5}, r"min-clients must be at most num-clients \(4\), got 5"),
        ({"expected_nodes": 5}, r"expected-nodes must be at most num-clients \(4\), got 5"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_round(
    limits: dict[str, Any], refused: str, tiny: Callable[..., dict[str, Value]]
) -> None:
    with pytest.raises(UserError, match=refused):
        finished(tiny(**limits), InProcessGrid)


def test_with_oversample_more_clients_are_asked_than_are_waited_for(
    tiny: Callable[..., dict[str, Value]],
) -> None:
    config = tiny(oversample=1.5, clients_per_round=2, num_server_rounds=1)
    rows, _ = finished(config, OneNodeGoes)
    (row,) = rows[1:]
    spare = {"client": 2, "error": "it was not waited for, as enough others had answered (oversample)"}
    assert (len(row["clients"]), row["failures"]) == (2, [spare])
    assert not (Path(str(config["run-dir"])) / "errors.log").exists()


def test_a_number_of_any_length_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    huge = -(10**4300 - 1)  # one less has a digit more than Python writes
    said = json.loads(str(node(0)(Message(RecordDict(), 1, "query")).config_records["node"]["description"]))  # type: ignore[union-attr,arg-type]
    said = json.dumps({**said, "num_partitions": "huge"}).replace('"huge"', str(huge))
    grid = ScriptedGrid(
        {17: node(0, 1), 9: lambda _: RecordDict({"node": ConfigRecord({"description": said})})}
    )
    known = waited(grid, num_clients=1)
    assert known.partitions == {17: 0}
    assert "it describes itself in another way" in known.refusals.now[9].reason


def test_a_misfit_that_cannot_be_told_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise ValueError("Exceeds the limit (4300 digits)\nfor integer string conversion")

    monkeypatch.setattr("server.node_registry.misfit", broken)
    known = node_registry()
    known.update(ScriptedGrid({9: node(0)}))
    assert known.refusals.now[9].reason == (
        "what it says of itself cannot be read: ValueError: Exceeds the limit (4300 digits) for integer "
        "string conversion"
    )


def test_a_node_that_is_all_there_is_does_not_decide_while_others_are_asked() -> None:
    """0 of 1 is complete by itself."""
    grid = ScriptedGrid({1: node(0, 1), 17: silent, 42: silent})
    known = node_registry()
    known.update(grid)
    assert (known.num_partitions, known.partitions) == (0, {})
    for number, message in enumerate(grid.sent[1:]):
        grid._answers[message.metadata.message_id] = Message(
            node(number, 2)(message),  # type: ignore[arg-type]
            reply_to=message,
        )
    known.update(grid)
    assert (known.num_partitions, known.partitions) == (2, {17: 0, 42: 1})
    assert "it says num-partitions=1, the others say 2" in known.refusals.now[1].reason


def test_a_node_alone_starts_at_once() -> None:
    known = node_registry()
    known.update(ScriptedGrid({1: node(0, 1)}))
    assert known.partitions == {1: 0}


def test_what_a_node_says_is_cut_and_made_plain() -> None:
    said = {"error": "it is\x1b[2J broken", "traceback": "x" * 100_000}
    known = node_registry()
    known.update(ScriptedGrid({9: lambda _: RecordDict({"node": ConfigRecord(said)})}))
    refusal = known.refusals.now[9]
    assert refusal.reason == "it is\\x1b[2J broken"
    assert len(refusal.whole) < 21_000


def test_refusals_that_are_not_listed_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()

    def refuse(number: int, reason: str, name: str = "") -> None:
        refusals.add(Refusal(Sighting(number, "", name), reason, reason, (number, 500), 0.0))

    for reason in range(20):
        refuse(0, str(reason), "hospital")
    assert len(refusals.ever) == OF_ONE
    for number in range(1, 300):
        refuse(number, "other data")
    assert len(refusals.ever) == REMEMBERED
    assert caplog.text.count("further reasons of this node are not listed") == 1
    assert caplog.text.count("further ones are not") == 1
