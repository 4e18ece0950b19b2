"""A live progress bar over the metrics that a run writes."""

import os
import threading
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from server.run_schema import METRICS, RoundRecord

PAUSE = 0.2
"""Seconds between looks at the metrics."""


class RoundProgress:
    """Follows RUN/metrics.jsonl in a thread of its own, while the run goes on here or elsewhere."""

    def __init__(self, run_dir: Path, num_server_rounds: int, console: Console) -> None:
        self.metrics = run_dir / METRICS
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self.rounds = self.bar.add_task("starting", total=num_server_rounds, shown="")
        self._over = threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "RoundProgress":
        self.bar.start()
        self._follower.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._follower.join()
        self.bar.stop()

    def _follow(self) -> None:
        position, inode = 0, 0
        while True:
            last_look = self._over.wait(PAUSE)
            if self.metrics.exists():
                with self.metrics.open("rb") as file:
                    if (now := os.fstat(file.fileno()).st_ino) != inode:
                        position, inode = 0, now  # a resumed run has dropped the rounds that it does again
                    file.seek(position)
                    # Bytes: half a line may end inside a character.
                    while (line := file.readline()).endswith(b"\n"):
                        position = file.tell()
                        self._show(RoundRecord.model_validate_json(line))
            if last_look:
                return

    def _show(self, record: RoundRecord) -> None:
        parts = [("train", name, value) for name, value in record.train.items() if name != "num-examples"]
        parts += [("test", name, value) for name, value in record.central.items()]
        shown = escape("  ".join(f"{place} {name} {value:.4g}" for place, name, value in parts))
        if record.failures:
            shown += f"  [red]{len(record.failures)} failed[/red]"
        self.bar.update(self.rounds, description="training", completed=record.server_round, shown=shown)
