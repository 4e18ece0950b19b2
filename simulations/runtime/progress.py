"""Follows the metrics that a run writes, to show how far it is."""

import os
import threading
from pathlib import Path
from types import TracebackType

from rich.console import Console

from server.run_schema import METRICS, RoundRecord
from simulations.runtime.round_line import RoundLine

PAUSE = 0.2
"""Seconds between looks at the metrics."""


class RoundProgress:
    """Follows RUN/metrics.jsonl in a thread of its own, while the run goes on here or elsewhere."""

    def __init__(self, run_dir: Path, num_server_rounds: int, console: Console, metric: str = "") -> None:
        self.metrics = run_dir / METRICS
        self.line = RoundLine(num_server_rounds, console, metric)
        # Of the run that this one goes on with; a round that is done again has other seconds in its line.
        self._old = set(self.metrics.read_bytes().splitlines(True)) if self.metrics.exists() else set()
        self._over = threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "RoundProgress":
        self.line.start()
        self._follower.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._follower.join()
        self.line.stop()

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
                        self.line.show(RoundRecord.model_validate_json(line), is_new=line not in self._old)
            if last_look:
                return
