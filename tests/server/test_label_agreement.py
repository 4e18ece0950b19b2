"""The union of labels, of which each node with data of its own has some."""

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from scripted_grid import Answer, ScriptedGrid

from models.data.labels import Labels
from server.errors import RunFailedError
from server.label_agreement import union_of_labels
from server.node_registry import NodeRegistry
from strategies.wire.node import DataDescription, NodeDescription
from strategies.wire.vocabulary import Vocabulary

IMAGES = DataDescription(kind="images", num_examples=5, columns={"image": (1, 8, 8)}, classes=("cat", "dog"))
NODES = 3


def labels_in(content: RecordDict) -> tuple[str, ...]:
    return Vocabulary.unpack(content).labels


def node(partition: int, *labels: str, **changes: Any) -> Answer:
    """Return a node with these labels, whose model has as many outputs as it knows labels."""

    def answer(message: Message) -> RecordDict:
        known = labels_in(message.content) or labels
        data = {"classes": known, **changes}
        said = NodeDescription(
            partition_id=partition,
            num_partitions=NODES,
            own_data=True,
            data="",
            state=(f"head ({len(known)},)",),
            examples=IMAGES.model_copy(update=data),
        )
        return said.pack()

    return answer


def asking(**options: Any) -> NodeRegistry:
    given = {"examples": IMAGES, "open_labels": Labels("classes"), **options}
    return NodeRegistry(NODES, "", ("head (2,)",), interchangeable=False, **given)


def agreed(grid: ScriptedGrid, known: NodeRegistry, timeout: float = 5) -> tuple[str, ...]:
    """Return the union that all were told."""
    known.wait_for_all(grid, timeout, min_clients=1)
    union = union_of_labels(known)
    if union:
        state = (f"head ({len(union)},)",)
        known.ask_anew(Vocabulary(union), "", state, IMAGES.model_copy(update={"classes": union}))
        known.wait_for_all(grid, timeout, min_clients=1)
    else:
        known.close_labels()
    return union


def test_nodes_with_other_labels_are_asked_again_and_told_those_of_all() -> None:
    grid = ScriptedGrid({17: node(0, "cat"), 42: node(1, "cat", "fox"), 900: node(2, "cat", "dog")})
    known = asking()
    assert agreed(grid, known) == ("cat", "dog", "fox")
    assert known.partitions == {17: 0, 42: 1, 900: 2}
    assert [labels_in(message.content) for message in grid.sent] == [()] * 3 + [("cat", "dog", "fox")] * 3
    assert known.hosts() == (0, 1, 2)


def test_where_all_have_the_servers_labels_nobody_is_asked_again() -> None:
    grid = ScriptedGrid({node_: node(place, "cat", "dog") for place, node_ in enumerate((17, 42, 900))})
    known = asking()
    assert agreed(grid, known) == ()
    assert len(grid.sent) == NODES


def test_a_node_that_comes_late_is_told_the_labels_of_the_run() -> None:
    late: list[tuple[Callable[[], dict[int, Answer]], tuple[str, ...]]] = [
        (lambda: {17: node(0, "cat", "dog"), 42: node(1, "cat", "dog")}, ("cat", "dog")),
        (lambda: {17: node(0, "cat", "dog"), 42: node(1, "fox")}, ("cat", "dog", "fox")),
    ]
    for nodes, labels in late:
        grid, known = ScriptedGrid(nodes()), asking()
        agreed(grid, known, timeout=0.1)
        assert known.vocabulary.labels == labels
        grid.nodes[900] = node(2, "dog")
        known.update(grid)
        assert known.partitions == {17: 0, 42: 1, 900: 2}
        assert labels_in(grid.sent[-1].content) == labels
        assert not known.refusals.now


def test_a_late_node_with_fewer_labels_is_the_first_with_data_of_its_own() -> None:
    alike = NodeDescription(
        partition_id=0, num_partitions=NODES, own_data=False, data="", state=("head (2,)",), examples=IMAGES
    )
    grid, known = ScriptedGrid({17: lambda _: alike.pack()}), asking()
    assert agreed(grid, known, timeout=0.1) == ()
    assert known.vocabulary_of_requests == Vocabulary(), "they know the labels of the data that all have"
    grid.nodes[42] = node(1, "cat")
    known.update(grid)
    assert known.partitions == {17: 0, 42: 1}
    assert not known.refusals.now
    assert known.vocabulary_of_requests == Vocabulary(("cat", "dog"))


@pytest.mark.parametrize("labels", [("cat", "cat"), tuple(f"x{number}" for number in range(999))])
def test_with_unfit_nodes_stop_labels_that_cannot_be_taken_end_the_run(labels: tuple[str, ...]) -> None:
    grid = ScriptedGrid({17: node(0, "cat", "hen"), 42: node(1, *labels), 900: node(2, "cat", "dog")})
    with pytest.raises(
        RunFailedError, match=r"^node 42 .*cannot take part: the labels of its data cannot be"
    ):
        agreed(grid, asking(unfit="stop"))


def test_those_that_were_away_are_not_waited_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, known = ScriptedGrid({17: node(0, "cat", "fox"), 42: node(1, "cat")}), asking()
    agreed(grid, known, timeout=0.1)
    labels = ("cat", "dog", "fox")
    examples = IMAGES.model_copy(update={"classes": labels})
    known.ask_anew(Vocabulary(labels), "", ("head (3,)",), examples)
    monkeypatch.setattr("server.first_nodes.time.sleep", lambda _: pytest.fail("it waits"))
    known.wait_for_all(grid, timeout=60, min_clients=1)
    assert known.partitions == {17: 0, 42: 1}


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (
            node(1, "cat", "a\x1bb"),
            "the labels of its data cannot be taken: a label must be 1 to 200 printable",
        ),
        (
            node(1, "cat", "x" * 500),
            "the labels of its data cannot be taken: a label must be 1 to 200 printable",
        ),
        (node(1, "cat", "cat"), "the labels of its data cannot be taken: labels must have different names"),
        (
            node(1, *(f"x{number}" for number in range(1_001))),
            "the labels of its data cannot be taken: labels must be at most 1000 together, got 1001",
        ),
        (
            node(1, *(f"x{number}" for number in range(999))),
            "the labels of its data cannot be taken: labels must be at most 1000 together, got 1002",
        ),
        (node(1, "fox", num_examples=0), "its data has no examples to train on"),
        (node(1, "fox", columns={"image": (3, 8, 8)}), "image of its examples is of shape (3, 8, 8), and"),
        (node(1, "fox", kind="text"), "it builds another model than the server: its data are text, and the"),
    ],
)
def test_a_node_with_labels_that_cannot_be_taken_is_left_out(other: Answer, why: str) -> None:
    grid = ScriptedGrid({17: node(0, "cat", "hen"), 42: other, 900: node(2, "cat", "dog")})
    known = asking()
    assert agreed(grid, known) == ("cat", "dog", "hen")
    assert known.partitions == {17: 0, 900: 2}
    (refusal,) = known.refusals.now.values()
    assert refusal.reason.startswith(why)


def test_a_node_that_does_not_heed_the_labels_is_left_out() -> None:
    stubborn = node(1, "fox")
    grid = ScriptedGrid({17: node(0, "cat"), 42: lambda _: stubborn(Message(RecordDict(), 42, "query"))})
    grid.nodes[900] = node(2, "dog")
    known = asking()
    assert agreed(grid, known) == ("cat", "dog", "fox")
    assert known.partitions == {17: 0, 900: 2}
    assert known.refusals.now[42].reason.startswith(
        "it builds another model than the server: its data lacks labels of the server's data (cat, dog)"
    )
