"""`polyfed chat RUN`: each line is answered, from a pipe and at a terminal; what cannot be is one line."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Ended, polyfed
from finished import Make, finish

from models.core.config import Value
from simulations.chat import Speaker


class Pipe(io.TextIOWrapper):
    """Lines that come as bytes."""

    def __init__(self, content: bytes, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a place for the runs of this file."""
    return tmp_path_factory.mktemp("runs")


def made(tiny: Make, folder: Path, name: str, **changes: Any) -> Path:
    """Return the folder of a run, which is made when it is first asked for."""
    if not (folder / name).exists():
        lines = [json.dumps({"turns": [f"how is {n}?", f"{n} is fine"]}) for n in range(30)]
        (folder / "talks.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (folder / "pairs.tsv").write_text("".join(f"{n}\tn{n}\n" for n in range(30)), encoding="utf-8")
        small: dict[str, Any] = {
            "task": "dialogue",
            "task_options": "embedding_size = 4, hidden_size = 4, longest = 8",
            "dataset": f"dialogue:{folder}/talks.jsonl",
            "num_clients": 2,
            "partitioner": "iid",
            "num_server_rounds": 1,
            "run_dir": str(folder / name),
        }
        config: dict[str, Value] = tiny(**{**small, **changes})
        finish(config)
    return folder / name


def chat(run: Path, content: bytes, *words: str, terminal: bool = False) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", Pipe(content, terminal))
        return polyfed("chat", run, *words)


def heard(patch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return a list of the turns that the model will be given; it answers by their number."""
    given: list[list[str]] = []

    def answer(_: Speaker, turns: list[str]) -> str:
        given.append([*turns])
        return f"{len(turns)}\nturns\x1b[2J"

    patch.setattr(Speaker, "answer", answer)
    return given


def test_a_pipe_gets_a_line_for_each_of_its_own(
    tiny: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tiny, folder, "talk")
    given = heard(monkeypatch)
    ended = chat(run, "hi\n so?\r\n\n\nnew \xff\x1b[0m".encode("latin-1"))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == ["1 turns [2J", "3 turns [2J", "1 turns [2J"]
    assert given[:2] == [["hi"], ["hi", "1\nturns\x1b[2J", "so?"]]
    assert given[2] == ["new \ufffd [0m"]


def test_all_letters_and_blanks_come_through_both_ways(
    tiny: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tiny, folder, "talk")
    letters = "\u00ab\u00a0\u00e7a\u202f!\u00a0\u00bb \u0645\u06cc\u200c\u0634"
    letters += " \U0001f469\u200d\U0001f52c \u65e5\u3000\u672c so\u00adft"
    given: list[list[str]] = []

    def answer(_: Speaker, turns: list[str]) -> str:
        given.append([*turns])
        return f"{letters}\u202e\u2066\u2028\x1e.\n"

    monkeypatch.setattr(Speaker, "answer", answer)
    ended = chat(run, f"{letters}\u202e\u2066\u2028\x1e.\nand?\n".encode())
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.split("\n")[0].rstrip() == f"{letters}    ."
    assert given[0] == [f"{letters}    ."]
    # Turns of a dataset hold no sign between turns, and no blanks at their ends.
    assert given[1] == [f"{letters}    .", f"{letters}\u202e\u2066\u2028 .", "and?"]


def test_a_terminal_gets_prompts(tiny: Make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tiny, folder, "talk")
    heard(monkeypatch)
    ended = chat(run, b"hi\n", terminal=True)
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "This is talk (dialogue, its best model). An empty line begins anew; Ctrl-D ends.",
        "you> model> 1",
        "turns [2J",
        "you> ",
    ]


def test_the_model_itself_answers_the_same_again(tiny: Make, folder: Path) -> None:
    run = made(tiny, folder, "talk")
    given = (run, Path(f"{run}:last"), run)
    answers = [chat(each, b"how is 4?\nhow is it?\n") for each in given]
    assert [len(each.out.splitlines()) for each in answers] == [2, 2, 2]
    assert answers[0] == answers[2]
    assert answers[0].err == ""


def test_a_translator_translates_each_line_by_itself(tiny: Make, folder: Path) -> None:
    run = made(
        tiny,
        folder,
        "translator",
        task="seq2seq",
        task_options="embedding_size = 4, hidden_size = 4",
        dataset=f"parallel:{folder}/pairs.tsv",
    )
    first, second = chat(run, b"7\n7\n").out.splitlines()
    assert first == second


@pytest.mark.parametrize(
    ("name", "changes", "which", "message"),
    [
        ("nowhere", None, "", "there is no run folder {run}"),
        (
            "digits",
            {"task": "cnn", "task_options": "", "dataset": "digits"},
            "",
            "{run} is a run of the task cnn, which does not write texts: give a run of dialogue or seq2seq",
        ),
        (
            "apart",
            {"task_options": "embedding_size = 4, hidden_size = 4, longest = 8, local = ['head.*']"},
            "",
            "chat: {run}/models/best.safetensors lacks head.weight, which stays with the clients: give a run "
            "that averages the whole model",
        ),
        (
            "misspelt",
            {},
            ":first",
            "chat: {run}:first is not there: give {run}, {run}:best or {run}:last",
        ),
        (
            "unmeasured",
            {"evaluate_every": 0},
            ":best",
            "chat: {run} is no run that has kept such a model: it holds no models/best.safetensors",
        ),
    ],
)
def test_what_cannot_be_talked_with_is_one_line(
    tiny: Make, folder: Path, name: str, changes: dict[str, Any] | None, which: str, message: str
) -> None:
    run = folder / name if changes is None else made(tiny, folder, name, **changes)
    if name == "unmeasured":
        (run / "models" / "best.safetensors").unlink(missing_ok=True)
    ended = chat(Path(f"{run}{which}"), b"hi\n")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"polyfed: {message.format(run=run)}\n"


def test_damaged_weights_are_one_line(tiny: Make, folder: Path) -> None:
    run = made(tiny, folder, "damaged")
    for name in ("best", "last"):
        (run / "models" / f"{name}.safetensors").write_bytes(b"nothing")
    ended = chat(run, b"hi\n")
    assert ended.code == 2
    assert ended.err.startswith(f"polyfed: chat: {run}/models/best.safetensors cannot be read (")
    assert len(ended.err.splitlines()) == 1
