"""Dialogues as rows: what a reply is made from, and what may be held out."""

from models.data.parallel_text import read
from models.data.turns import (
    Conversation,
    Row,
    Window,
    dialogues,
    distinct,
    joined,
    new_rows,
    plain,
    rows_of,
    window_of,
)

WIDE = Window(turns=2, num_bytes=100)


def test_each_turn_from_the_second_on_answers_those_before_it() -> None:
    rows, too_long = rows_of([Conversation(["a", "b", "c", "d"], "x")], WIDE)
    assert rows == [Row(["a"], "b", "x"), Row(["a", "b"], "c", "x"), Row(["b", "c"], "d", "x")]
    assert too_long == 0


def test_a_context_has_the_last_turns_that_fit_together() -> None:
    assert Window(3, 7).context(["one", "two", "six"]) == ["two", "six"]  # with a sign between: 3 + 1 + 3
    assert Window(3, 6).context(["one", "two", "six"]) == ["six"]
    assert Window(3, 2).context(["one", "two"]) == ["two"]
    assert Window(2, 99).context(["one", "two", "six"]) == ["two", "six"]
    assert Window(3, 3).context(["a", "é"]) == ["é"]  # bytes count, not letters


def test_replies_that_are_too_long_are_counted_and_so_is_what_answers_them() -> None:
    rows, too_long = rows_of([Conversation(["a", "b", "much too long", "c", "d"], "x")], Window(1, 5))
    assert [(row.context, row.reply) for row in rows] == [(["a"], "b"), (["c"], "d")]
    assert too_long == 2


def test_no_held_out_row_has_a_turn_that_training_has_in_any_spelling() -> None:
    train = [Row(["Hello"], "Hi  there", "x"), Row(["How?", "So."], "I see.", "x")]
    test = [
        Row(["new"], "newer", "y"),
        Row(["new"], "hi there", "y"),
        Row(["HELLO"], "newer", "y"),
        Row(["newest", "so."], "newer", "y"),
        Row(["new"], "i see. ", "y"),
    ]
    assert new_rows(test, train) == test[:1]
    assert plain(" I  See. ") == "i see."


def test_of_rows_that_are_the_same_the_first_is_kept() -> None:
    rows = [Row(["a"], "b", "x"), Row(["A "], "B", "y"), Row(["a"], "c", "x"), Row(["a", "a"], "b", "x")]
    assert [*distinct(rows)] == [rows[0], rows[2], rows[3]]


def test_rows_become_pairs_with_a_sign_between_turns() -> None:
    train = [Row(["a", "b"], "c", "Bo"), Row(["d"], "é", "Al")]
    dataset = dialogues("x", train, [Row(["e"], "f", "?")], WIDE, natural=True, known=3)
    assert read(dataset.train["source"]) == ["a\x1eb", "d"] == [joined(["a", "b"]), "d"]
    assert read(dataset.train["target"]) == ["c", "é"]
    assert dataset.client_names == ("Al", "Bo")
    assert dataset.client is not None
    assert dataset.client.tolist() == [1, 0]
    assert dataset.info == {"skipped": 0, "known": 3, "context_turns": 2, "max_bytes": 100}
    assert window_of(dataset) == WIDE
    assert dialogues("x", train, train, WIDE, natural=False).client is None
