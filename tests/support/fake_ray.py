"""A stand-in for Ray whose answers come in every order in which they may, and whose workers die."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import MetricRecord, RecordDict
from ray.exceptions import RayActorError, RayTaskError

from simulations.config import ResolvedSimulation
from simulations.runtime.ray_workers import RayWorkers, Seat
from strategies.wire.exact_sum import ExactSum
from strategies.wire.reply import METRICS, NodeReply

WEIGHTED_BY = "num-examples"


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

    def __init__(self, ray: "FakeRay") -> None:
        self.ray = ray
        self.todo: list[tuple[Reference, str, Sequence[int]]] = []
        self.is_alive = True
        self.held: NodeReply | None = None
        self.do, self.hand_over = _Method(self, "do"), _Method(self, "hand_over")

    def step(self) -> None:
        """Do what comes next, or die of it."""
        reference, name, clients = self.todo[0]
        if self.ray.dies_of(clients):
            self.die()
            return
        del self.todo[0]
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
        reference = Reference()
        self.actor.todo.append((reference, self.name, arguments[3] if arguments else ()))
        if not self.actor.is_alive:
            self.actor.die()
        return reference


class FakeRay:
    """What the dealer uses of Ray."""

    def __init__(self, seed: int, deadly: Sequence[int] = (), error: RayTaskError | None = None) -> None:
        """`deadly` clients kill each worker that works for them; `error` is the answer to each hand-over."""
        self.random, self.deadly, self.error = random.Random(seed), deadly, error
        self.actors: list[Actor] = []

    def dies_of(self, clients: Sequence[int]) -> bool:
        """Whether a worker dies of these clients."""
        return any(client in self.deadly for client in clients)

    def start(self) -> tuple[Actor, Reference]:
        """Start a worker, which has begun."""
        self.actors.append(Actor(self))
        begun = Reference()
        begun.put(1)
        return self.actors[-1], begun

    def wait(
        self, references: Sequence[Reference], timeout: float
    ) -> tuple[list[Reference], list[Reference]]:
        """Let workers work for a while, and return any one of the answers that are there."""
        assert int(timeout * 1000) < 2**63  # else Ray raises OverflowError
        ready = [each for each in references if each.is_there]
        while not ready or self.random.random() < 0.7:
            busy = [actor for actor in self.actors if actor.todo]
            if not busy:
                break
            self.random.choice(busy).step()
            ready = [each for each in references if each.is_there]
        return ([self.random.choice(ready)] if ready else []), None

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
        self.seats = [Seat(number, *self._start()) for number in range(num_workers)]

    def _start(self) -> tuple[Any, Any]:
        return self.ray.start()
