"""A stand-in for Ray whose answers come in every order in which they may, and whose workers die and hang."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import MetricRecord, RecordDict
from ray.exceptions import RayActorError, RayTaskError

from simulations.config import ResolvedSimulation
from simulations.runtime import ray_dealer, ray_grid, ray_workers
from simulations.runtime.ray_workers import RayWorkers, Seat
from strategies.wire.exact_sum import ExactSum
from strategies.wire.node import NodeDescription, NodeError
from strategies.wire.reply import METRICS, NodeReply

WEIGHTED_BY = "num-examples"
FINE = NodeDescription(partition_id=0, num_partitions=1, own_data=False, data="d", state=("s",)).pack()
DIES = "dies"
"""What a worker says of itself that dies before it can."""
Says = RecordDict | Exception | str


class Reference:
    """A reference to an answer, which is there or not."""

    def __init__(self) -> None:
        self.answer: Any = None
        self.is_there = False

    def put(self, answer: Any) -> None:
        """Let the answer be there, or the exception that comes in its place."""
        self.answer, self.is_there = answer, True


class Actor:
    """A worker that adds up its clients: client c replies 2^c, so that the sum says who is in it."""

    def __init__(self, ray: "FakeRay", says: Says) -> None:
        self.ray, self.says = ray, says
        self.todo: list[tuple[Reference, str, Sequence[int]]] = []
        self.is_alive, self.hangs, self.has_begun = True, False, False
        self.number = -1
        self.given: list[tuple[int, ...]] = []
        """Its portions, in the order in which it was given them."""
        self.held: NodeReply | None = None
        self.do, self.hand_over, self.describe = (
            _Method(self, name) for name in ("do", "hand_over", "describe")
        )

    def step(self) -> None:
        """Do what comes next, or die of it, or hang in it."""
        reference, name, clients = self.todo[0]
        if self.ray.takes_one(self.ray.deadly, clients) or (name == "describe" and self.says == DIES):
            self.die()
            return
        if self.ray.takes_one(self.ray.hanging, clients):
            self.hangs = True
            return
        del self.todo[0]
        if name == "describe":
            self.has_begun = True
            reference.put(self.says)
            return
        if name == "hand_over":
            held, self.held = self.held, None
            reference.put(self.ray.error or held)
            return
        self.held = self.held or NodeReply(total=ExactSum(), weighted_by=WEIGHTED_BY)
        for client in clients:
            content = RecordDict({METRICS: MetricRecord({WEIGHTED_BY: 1})})
            self.held.add(client, content, {"weight": np.array([2.0**client])})
        reference.put(None)

    def die(self) -> None:
        """Answer nothing any more."""
        self.is_alive = False
        for reference, *_ in self.todo:
            reference.put(RayActorError())
        self.todo = []


class _Method:
    def __init__(self, actor: Actor, name: str) -> None:
        self.actor, self.name = actor, name

    def remote(self, *arguments: Any) -> Reference:
        """Ask the worker."""
        reference, clients = Reference(), ()
        if self.name == "do":
            assert self.actor.has_begun, "its time passes before it can work"
            number, _, _, clients, _ = arguments
            assert number == self.actor.number or self.actor.held is None
            self.actor.number = number
            self.actor.ray.asked.append(tuple(clients))
            self.actor.given.append(tuple(clients))
        self.actor.todo.append((reference, self.name, clients))
        if not self.actor.is_alive:
            self.actor.die()
        return reference


class FakeRay:
    """What a run uses of Ray, and a clock that moves where everybody is waited for."""

    def __init__(
        self,
        seed: int,
        deadly: Iterable[int] = (),
        hanging: Iterable[int] = (),
        error: RayTaskError | None = None,
        says: Iterable[Says] = (),
    ) -> None:
        """Let a client kill a worker, or hang there, as often as it is among the `deadly` or `hanging` ones.

        `error` is the answer to each hand-over; `says` is what one worker after the other says of itself.
        """
        self.random, self.error, self.says = random.Random(seed), error, list(says)
        self.deadly, self.hanging = Counter(deadly), Counter(hanging)
        self.actors: list[Actor] = []
        self.asked: list[tuple[int, ...]] = []
        """Portions, in the order in which workers were given them."""
        self.now = 0.0

    def takes_one(self, faults: Counter[int], clients: Sequence[int]) -> bool:
        """Whether a fault befalls one of these clients, which is then done with."""
        found = next((client for client in clients if faults[client]), None)
        faults[found if found is not None else -1] -= 1
        return found is not None

    def start(self) -> Actor:
        """Start a worker."""
        self.actors.append(Actor(self, self.says.pop(0) if self.says else FINE))
        return self.actors[-1]

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def put(self, content: Any) -> Any:
        """Share what is given."""
        return content

    def wait(
        self, references: Sequence[Reference], timeout: float, fetch_local: bool = True
    ) -> tuple[list[Reference], list[Reference]]:
        """Let workers work for a while, and return any one of the answers that are there."""
        assert references
        assert int(timeout * 1000) < 2**63  # else Ray raises OverflowError
        ready = [each for each in references if each.is_there]
        while timeout and (not ready or self.random.random() < 0.7):
            busy = [actor for actor in self.actors if actor.todo and not actor.hangs]
            if not busy:
                break
            self.random.choice(busy).step()
            ready = [each for each in references if each.is_there]
        if not ready:
            self.now += timeout
        return ([self.random.choice(ready)] if ready else []), []

    def get(self, reference: Reference) -> Any:
        """Return an answer, or raise it."""
        assert reference.is_there
        if isinstance(reference.answer, Exception):
            raise reference.answer
        return reference.answer

    def kill(self, actor: Actor) -> None:
        """End a worker."""
        actor.die()


class FakeWorkers(RayWorkers):
    """Seats with workers of a FakeRay."""

    def __init__(self, ray: FakeRay, num_workers: int) -> None:
        super().__init__({}, ResolvedSimulation(num_workers, 1, 0.0))
        self.ray = ray
        self.seats = [Seat(number, self._start()) for number in range(num_workers)]

    def _start(self) -> Any:
        return self.ray.start()


def put_in_place(monkeypatch: pytest.MonkeyPatch, ray: FakeRay) -> None:
    """Let runs find this Ray, and its clock."""
    for module in (ray_dealer, ray_grid, ray_workers):
        monkeypatch.setattr(module, "ray", ray)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=ray.monotonic))


def cannot(line: str, whole: str = "Traceback") -> RecordDict:
    """Return what a worker says that cannot take part."""
    return NodeError(line, whole).pack()
