"""Asynchronous rounds on real nodes: time passes by itself, and updates arrive as nodes are done."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from flwr.app import Message
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from models.core.errors import UserError
from server.asynchronous_rounds import AsynchronousRounds
from server.cohort import CohortGrid
from server.cohort_result import CohortResult
from server.pace import TIME, clock_of
from server.real_time import RealTime
from server.requests import Wave
from server.run_schema import explain
from server.turns import Clock, InFlight, Places
from strategies.rule import Arrays
from strategies.wire.request import RoundInfo

OLDEST = "oldest"
"""Key of what a checkpoint keeps, beside the clock."""
PAIRS = TypeAdapter(list[tuple[int, int]])
REMARK = "this run does not repeat: updates count in the order in which real nodes were done (buffer-size)"


class RealArrivals(AsynchronousRounds):
    """Rounds that end when `buffer-size` updates have arrived from real nodes.

    What is under way when a run is killed is asked again, of the newest model, when it goes on.
    """

    def __init__(self, seed: int, cohort: int, num_clients: int, *given: Any) -> None:
        """Take how many clients train at a time, of how many, and what `AsynchronousRounds` takes."""
        super().__init__(*given)
        self.seed, self.cohort, self.num_clients = seed, cohort, num_clients
        self.clock = Clock()
        self.places: Places | None = None
        """None before the first round of this leg of the run."""
        self.time: RealTime | None = None
        self.again: list[int] = []
        """Clients that were under way when the run was cut, and have not been asked again yet."""
        self.oldest: dict[int, int] = {}
        """Round -> the oldest round of those whose requests were under way at its end."""
        self.updates: list[tuple[InFlight, Message]] = []
        """What has arrived in this round."""

    def begin(self, server_round: int, grid: CohortGrid) -> Sequence[int]:
        """Return the clients whose nodes are there: any of them may be asked as the round goes on."""
        if self.time is None or self.places is None:
            self.time = RealTime(grid, self.clock, self.weighted_by)
            self.places = Places(self.time, self.seed, self.cohort)
            self.places.first = self.again
        self.to_ask = grid.present()
        return self.to_ask

    def info(self, info: RoundInfo) -> RoundInfo:
        """Have every client reply for itself, and keep what it would have to go on from after a resume.

        A checkpoint names the states of clients before what is under way as it is written; that is of the
        rounds since the oldest of these.
        """
        kept = info.restorable_round
        self.oldest = {number: oldest for number, oldest in self.oldest.items() if number >= kept}
        needed = min([kept, *(oldest - 1 for oldest in self.oldest.values())])
        return replace(super().info(info), restorable_round=needed)

    def exchange(self, grid: CohortGrid) -> Callable[..., CohortResult]:
        """Return what asks clients as places get free, until enough updates have arrived."""
        return partial(self._exchange, grid)

    def _exchange(
        self, grid: CohortGrid, messages: Sequence[Message], info: RoundInfo, timeout: float, *_: Any
    ) -> CohortResult:
        # Nobody has to be told when enough have answered, and there are no statistics in such rounds.
        assert self.time is not None
        assert self.places is not None
        started = time.perf_counter()
        waves = grid.requests.read(messages)
        grid.requests.warn(waves)
        wave = _only(grid.requests.strategy, waves)
        self.time.open_round(wave, info, timeout)
        self.places.turn(info.server_round, sorted(wave.requests), self.buffer_size)
        self.updates, cohort = self.time.close_round(time.perf_counter() - started)
        return cohort

    def end(self, server_round: int, cohort: CohortResult, weights: Arrays) -> CohortResult:
        """Return the updates that have arrived, as if they had begun in this round."""
        self.buffer.began[server_round] = weights
        under_way = {each.server_round for each in self.clock.in_flight}
        self.oldest[server_round] = min(under_way, default=server_round + 1)
        found = []
        for number, (place, update) in enumerate(self.updates, 1):
            self.buffer.put(place.server_round, [update], self.buffer.began[place.server_round])
            to_come = under_way | {later.server_round for later, _ in self.updates[number:]}
            taken = self.buffer.take([place.client], server_round, weights, to_come)
            found += [(place, content) for _, content in taken]
        self.buffer.trim(under_way)  # also where nothing has arrived
        return self.combined(server_round, found, cohort)

    def evaluates(self, client: int) -> bool:
        """Whether a client's node works on nothing else: who trains is not asked to evaluate meanwhile."""
        return self.time is None or not self.time.trains(client)

    @property
    def remarks(self) -> Sequence[str]:
        """That the run does not repeat, unless every round waits for all."""
        return () if self.buffer_size == self.num_clients else (REMARK,)

    def memory(self) -> tuple[Any, dict[str, Tensor]]:
        """Return who was drawn and is under way; updates that have arrived are part of the model."""
        under_way = [*self.clock.in_flight, *(InFlight(client, 0) for client in self.again)]
        clock = replace(self.clock, in_flight=under_way)
        return {TIME: asdict(clock), OLDEST: sorted(self.oldest.items())}, {}

    def restore(self, memory: Any, tensors: Mapping[str, Tensor]) -> None:
        """Have those who were under way asked again, and wait no more for what is under way now."""
        if not isinstance(memory, dict) or memory.keys() != {TIME, OLDEST}:
            raise ValueError("it is of a run without asynchronous rounds on real nodes")
        clock = clock_of(memory)
        try:
            oldest = PAIRS.validate_json(json.dumps(memory[OLDEST]), strict=True)
        except ValidationError as error:
            raise ValueError(f"its list of what was under way is broken: {explain(error)}") from error
        if self.time is not None:
            self.time.give_up()
        self.time, self.places = None, None
        self.oldest, self.again = dict(oldest), [each.client for each in clock.in_flight]
        self.clock = Clock(drawn=clock.drawn)


def _only(strategy: str, waves: Sequence[Wave]) -> Wave:
    """Return what clients are asked in a round; raise UserError for anything but one training of each."""
    if len(waves) == 1 and waves[0].training:
        return waves[0]
    raise UserError(
        f"strategy {strategy} asks clients for several things in a round: in asynchronous rounds on real "
        "nodes (buffer-size) it must ask each of them to train, once"
    )
