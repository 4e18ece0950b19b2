"""RUN/opened-sums.jsonl: of whom the sums were that a run has opened, so that it opens the same ones again.

Nodes open no other sum of a round that is done again after a resume.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OpenedSum:
    """A sum that was opened, or may have been: nodes were asked to."""

    threshold: int
    """How many nodes had to stay."""
    clients: Mapping[int, Sequence[int]]
    """Node, by its partition-id, in order -> its clients in the sum, in order."""


class OpenedSums:
    """The sums that a run has asked nodes to open, by round."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one; what is left of a line that was cut off is dropped."""
        self.path = path
        self._sums: dict[int, OpenedSum] = {}
        for line in path.read_bytes().splitlines() if path.exists() else []:
            try:
                server_round, threshold, clients = json.loads(line)
                read = OpenedSum(threshold, {number: tuple(hosted) for number, hosted in clients})
            except (ValueError, TypeError):  # nodes know it all the same
                continue
            self._sums.setdefault(server_round, read)

    def of(self, server_round: int) -> OpenedSum | None:
        """Return the sum of a round; None where none was opened."""
        return self._sums.get(server_round)

    def note(self, server_round: int, opened: OpenedSum) -> None:
        """Note a sum before nodes are asked to open it."""
        self._sums[server_round] = opened
        clients = [[number, [*hosted]] for number, hosted in opened.clients.items()]
        with self.path.open("a+b") as file:
            # A line of its own, also after one that was cut off.
            file.write(b"\n" + json.dumps([server_round, opened.threshold, clients]).encode())
