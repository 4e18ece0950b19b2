"""How far a run is, in one line: a bar on a terminal, a line a round where nobody looks."""

import time
from collections.abc import Iterator
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from server.run_schema import RoundRecord

WIDE = 100
"""Columns of a terminal with room for more than the main metric."""


class RoundLine:
    """Round, time left and main metric; a terminal that is wide has the bar and the other metrics too."""

    def __init__(self, num_server_rounds: int, console: Console, metric: str) -> None:
        self.num_server_rounds = num_server_rounds
        self.console = console
        self.metric = metric
        """The main one; "" = what was measured first."""
        self.bar = Progress(*_columns(), console=console, disable=not console.is_terminal)
        self.rounds = self.bar.add_task("starting", total=num_server_rounds, shown="", left="")
        self.start, self.stop = self.bar.start, self.bar.stop
        self._central: dict[str, float] = {}
        self._clock = Clock()

    def show(self, record: RoundRecord, *, is_new: bool) -> None:
        """Show a round; one that an earlier leg of a resumed run has done is no news to a pipe."""
        self._central = dict(record.central) or self._central
        done = record.server_round - is_failed(record)
        left = self._clock.left(done, self.num_server_rounds) if is_new and not is_failed(record) else ""
        shown = "  ".join(self._words(record))
        self.bar.update(self.rounds, description="round", completed=done, shown=shown, left=left)
        if self.bar.disable and is_new:
            state = "failed" if is_failed(record) else ""
            words = (f"round {record.server_round}/{self.num_server_rounds}", state, shown, left)
            self.console.print("  ".join(filter(None, words)), soft_wrap=True)

    def _words(self, record: RoundRecord) -> Iterator[str]:
        """Yield the main metric, how many clients failed, and where there is room all that was measured."""
        main = self.metric if self.metric in self._central else next(iter(self._central), "")
        if main:
            yield f"{main} {self._central[main]:.4g}"
        if record.failures:
            yield f"{len(record.failures)} failed"
        if self.console.width >= WIDE:
            yield from (f"{name} {value:.4g}" for name, value in record.central.items() if name != main)
            found = ((name, value) for name, value in record.train.items() if name != "num-examples")
            yield from (f"train {name} {value:.4g}" for name, value in found)


class Clock:
    """Says how long the rounds to come take, by those that it has seen."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def left(self, done: int, total: int) -> str:
        """Return the time left; "" before a round has been seen from its start to its end."""
        now = time.monotonic()
        if self._first is None or done < self._first[0]:
            self._first = (done, now)
        rounds, seconds = done - self._first[0], now - self._first[1]
        if rounds < 1 or done >= total:
            return ""
        return f"{timedelta(seconds=round(seconds / rounds * (total - done)))} left"


def is_failed(record: RoundRecord) -> bool:
    """Whether a round was begun and not done: it has no new model, and so no metrics of training."""
    return record.server_round > 0 and not record.train


class _Time(ProgressColumn):
    """The time left; the time that has passed where that is not known."""

    def render(self, task: Task) -> Text:
        """Return it."""
        passed = timedelta(seconds=int(task.elapsed or 0))
        return Text(task.fields["left"] or str(passed), no_wrap=True)


class _Words(ProgressColumn):
    """What the rest of the line says."""

    def __init__(self, pattern: str) -> None:
        super().__init__(Column(no_wrap=True))
        self.pattern = pattern

    def render(self, task: Task) -> Text:
        """Return it."""
        return Text(self.pattern.format(task=task))


def _columns() -> Iterator[ProgressColumn]:
    """Yield the parts of the line; the bar takes what the others leave."""
    yield _Words("{task.description}")
    yield _Words("{task.completed:.0f}/{task.total:.0f}")
    yield BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=40))
    yield _Time(Column(no_wrap=True))
    yield _Words("{task.fields[shown]}")
