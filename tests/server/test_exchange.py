"""Answers are pulled one by one: what a node has spoilt costs that node alone, and nobody answers twice."""

import weakref
from collections.abc import Iterable

import pytest
from flwr.app import Message, RecordDict
from scripted_grid import ScriptedGrid

from server.exchange import exchange


class Spoilt(ScriptedGrid):
    """A grid that cannot read what one of its nodes sends; pulled together, nothing could be read."""

    def __init__(self, nodes: dict, spoilt: str, error: Exception) -> None:
        super().__init__(nodes)
        self.spoilt, self.error = spoilt, error

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        ids = list(message_ids)
        found = super().pull_messages(ids)
        if self.spoilt in ids:
            raise self.error
        return found


def ask(grid: ScriptedGrid, timeout: float = 5.0) -> dict[int, Message]:
    asked = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
    found = list(exchange(grid, asked, timeout))
    return {int(reply.metadata.reply_to_message_id.removeprefix("message-")): reply for reply in found}


@pytest.mark.parametrize("error", [ValueError("Unexpected set of `children`"), KeyError("x")])
def test_an_answer_that_flower_cannot_read_is_an_error_of_that_node(error: Exception) -> None:
    nodes = {node: lambda _: RecordDict() for node in (7, 8, 9)}
    replies = ask(Spoilt(nodes, "message-2", error))
    assert [replies[number].has_error() for number in (1, 2, 3)] == [False, True, False]
    assert replies[2].error.reason.startswith(
        f"its answer is no message of Flower's ({type(error).__name__}: "
    )


def test_a_broken_connection_is_no_fault_of_a_node() -> None:
    with pytest.raises(ConnectionError):
        ask(Spoilt({7: lambda _: RecordDict()}, "message-1", ConnectionError("refused")))


class Repeating(ScriptedGrid):
    """A grid that gives every answer twice, and answers that nobody has asked for."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        found = super().pull_messages(message_ids)
        strangers = [Message(RecordDict(), reply_to=self.sent[0])] if found else []
        for stranger in strangers:
            stranger.metadata.__dict__["_reply_to_message_id"] = "message-99"
        return [*strangers, *found, *found]


def test_an_answer_counts_once() -> None:
    grid = Repeating({7: lambda _: RecordDict(), 8: lambda _: RecordDict()})
    asked = [Message(RecordDict(), node, "query") for node in (7, 8)]
    assert len(list(exchange(grid, asked, 5.0))) == 2


class Counting(ScriptedGrid):
    """A grid that knows how many of the answers that it gave are still held."""

    def __init__(self, nodes: dict) -> None:
        super().__init__(nodes)
        self.given: list[weakref.ref] = []
        self.most = 0

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        found = super().pull_messages(message_ids)
        self.given += [weakref.ref(message) for message in found]
        self.most = max(self.most, sum(each() is not None for each in self.given))
        return found


def test_one_answer_is_held_at_a_time() -> None:
    """All nodes may have answered before the first answer is read."""
    grid = Counting({node: lambda _: RecordDict() for node in range(5)})
    asked = [Message(RecordDict(), node, "query") for node in range(5)]
    replies = exchange(grid, asked, 5.0)
    read = 0
    for reply in replies:
        assert not reply.has_error()
        read += 1
        del reply
    assert (read, grid.most) == (5, 1)


def test_an_answer_that_finds_no_memory_here_is_no_fault_of_the_node() -> None:
    (reply,) = ask(Spoilt({7: lambda _: RecordDict()}, "message-1", MemoryError())).values()
    assert reply.error.reason == "its answer could not be read here (MemoryError:)"
