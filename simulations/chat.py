"""`polyfed chat RUN`: talking with the model that a run has kept."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console
from torch import nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.core.plugins import find
from models.data.turns import SEPARATOR
from models.registry import ENTRY_POINTS, TASKS, task_classes
from models.text.text_to_text import TextToText
from simulations.runs.kept import load_kept_model
from simulations.runs.record import Run
from simulations.terminal import END_OF_LINE, harmless

YOU, MODEL = "you> ", "model> "


@dataclass(frozen=True)
class Speaker:
    """A model that answers."""

    task: TextToText
    model: nn.Module
    name: str
    """What it is, for people."""

    def answer(self, turns: list[str]) -> str:
        """Return what it writes after these turns."""
        return self.task.answer(self.model, turns)


def load_speaker(given: Path) -> Speaker:
    """Return the model that RUN, RUN:best or RUN:last names, else the best, or the last where there is none.

    Raises UserError where that is no run of a task that writes texts, or has kept no whole model.
    """
    kept = load_kept_model(given, "chat:", _check_writes, whole=True)
    assert isinstance(kept.task, TextToText)
    name = f"{kept.run.name} ({kept.config.task}, its {kept.weights.path.stem} model)"
    return Speaker(kept.task, kept.model, name)


def talk(speaker: Speaker, lines: TextIO, console: Console) -> None:
    """Answer each line until there are no more, and begin anew after an empty one.

    A person is prompted; a pipe gets a line for each of its own, and nothing else.
    """
    asked = lines.isatty()
    if asked:
        console.print(f"This is {speaker.name}. An empty line begins anew; Ctrl-D ends.", soft_wrap=True)
    turns: list[str] = []
    for line in _typed() if asked else _piped(lines):
        said = harmless(line, instead=" ").strip()
        if not said:
            turns = []
            continue
        turns.append(said)
        answer = speaker.answer(turns)
        shown = harmless(answer, keep=END_OF_LINE if asked else "", instead=" ")
        console.print(f"{MODEL if asked else ''}{shown}", soft_wrap=True)
        answer = answer.replace(SEPARATOR, " ").strip()  # as turns are in a dataset
        turns += [answer] if answer else []
        sys.stdout.flush()


def _writes(found: object) -> bool:
    return any(issubclass(cls, TextToText) for cls in task_classes("", found))


def _check_writes(run: Run, config: TaskConfig) -> None:
    """Raise UserError for a task that does not write texts, before its data is loaded."""
    if not _writes(find(config.task, "task", TASKS, ENTRY_POINTS)):
        able = [name for name, found in TASKS.items() if _writes(found)]
        raise UserError(
            f"{run.path} is a run of the task {config.task}, which does not write texts: give a run of "
            f"{' or '.join(able)}"
        )


def _typed() -> Iterator[str]:
    """Yield what a person types."""
    with suppress(ImportError):  # not everywhere; the arrow keys work with it
        import readline  # noqa: F401
    ask: Callable[[str], str] = input
    while True:
        try:
            yield ask(YOU)
        except EOFError:
            print()
            return


def _piped(lines: TextIO) -> Iterator[str]:
    """Yield lines as they come; bytes that are no text are a sign of their own."""
    content = getattr(lines, "buffer", None)
    if content is None:
        yield from lines
        return
    for line in content:
        yield line.decode("utf-8", "replace")
