"""Scripted nodes whose hearts beat, as those that a SuperLink lists, on a clock that a test moves."""

from collections.abc import Iterable
from types import SimpleNamespace

import pytest
from flwr.proto.node_pb2 import NodeInfo
from scripted_grid import Answer, ScriptedGrid


class BeatingGrid(ScriptedGrid):
    """Nodes by id, which the SuperLink lists until `forget`; those in `dead` neither beat nor answer."""

    def __init__(self, nodes: dict[int, Answer], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__({})
        self.now = 1000.0
        self.dead: set[int] = set()
        self.starts: dict[int, int] = {}
        self.beats: dict[int, float] = {}
        self.keys: dict[int, bytes] = {}
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep)
        for module in ("sightings", "node_registry", "node_questions", "first_nodes", "sampling"):
            monkeypatch.setattr(f"server.{module}.time", clock)
        clock.perf_counter = clock.monotonic
        for node, answer in nodes.items():
            self.start(node, answer)

    def sleep(self, seconds: float) -> None:
        """Let time pass, in which the living beat."""
        self.now += seconds
        for node in self.nodes.keys() - self.dead:
            if self.now - self.beats[node] >= 20:
                self.beats[node] = self.now

    def start(self, node: int, answer: Answer) -> None:
        """Start a node, or start it anew."""
        self.nodes[node] = lambda message: None if node in self.dead else answer(message)
        self.dead.discard(node)
        self.starts[node] = self.starts.get(node, 0) + 1
        self.beats[node] = self.now

    def kill(self, node: int) -> None:
        """Let a node neither beat nor answer; it is listed all the same."""
        self.dead.add(node)

    def forget(self, node: int) -> None:
        """Let the SuperLink list a node no longer."""
        del self.nodes[node]

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return what the SuperLink knows of its nodes."""
        return [
            NodeInfo(
                node_id=node,
                last_activated_at=f"start {self.starts[node]}",
                online_until=self.beats[node] + 60,
                public_key=self.keys.get(node, b""),
            )
            for node in self.nodes
        ]
