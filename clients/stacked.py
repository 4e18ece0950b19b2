"""Training clients side by side: their weights stacked along a leading axis, and stepped as one.

`torch.func.vmap` maps an objective over that axis, and an ordinary optimizer, which works elementwise, steps
all clients at once. Small networks gain, as a step of theirs costs little more than its overhead; large
ones do not. Each client's result equals that of the loop up to the rounding of sums, which training may make
more of, so it depends a little on who trains beside it: the loop is the default.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from clients.attacks import poison
from clients.deadline import NEVER, Deadline, LateError, interrupted_after
from clients.local_result import LocalResult
from clients.loop import Optimizers, mean_losses
from clients.parts import trained_parts
from clients.reply import send_reply
from clients.rules import RuleAtWork, load_rules
from clients.stacked_batches import Drawn, Group, draw_batches, make_alone, make_together
from clients.stacked_reply import goes_out_as_trained, reply_together
from clients.state import ClientState, ClientStates, shared_model
from clients.worker import Worker
from models.core.device import moved
from models.core.local_work import for_client
from models.core.seeds import generator_for
from models.data.dataset import Examples
from models.optimizers import make_optimizers
from models.stacking import StackedLayers
from models.state import start_training
from models.stepping import clear_gradients, step
from models.task import Batch, Objective, State
from strategies.rule import RuleResult
from strategies.wire.reply import NodeReply
from strategies.wire.request import ClientRequest

T = TypeVar("T")
NO_METRICS: Mapping[str, float] = {}


def train_stacked(
    worker: Worker,
    requests: Sequence[ClientRequest],
    states: ClientStates,
    reply: NodeReply,
    deadline: Deadline = NEVER,
) -> None:
    """Train the clients of a message by their numbers, in stacks that are the same whoever deals them out."""
    parts = stacks(requests, worker.config.stack_size)
    for place, part in enumerate(parts):
        # As clients do that take turns: see `take_turns`.
        half = replace(deadline.halfway(), each=deadline.each)
        mine = half if place + 1 < len(parts) else deadline
        _train_part(worker, part, states, reply, mine)


def stacks(clients: Sequence[T], size: int) -> list[Sequence[T]]:
    """Return the clients in their order, in as few parts as hold `size` at most, and of nearly that many."""
    number = math.ceil(len(clients) / size)
    ends = [len(clients) * part // max(number, 1) for part in range(number + 1)]
    return [clients[start:end] for start, end in pairwise(ends)]


def _train_part(
    worker: Worker,
    requests: Sequence[ClientRequest],
    states: ClientStates,
    reply: NodeReply,
    deadline: Deadline,
) -> None:
    """Train clients, those that start alike side by side."""
    stacks: dict[tuple[int, str], list[_Learner]] = {}
    for request in requests:
        # Of equal words, which each client may be told in a record of its own.
        words = repr(sorted(request.config.items()))
        alike = stacks.setdefault((id(request.weights), words), [])
        try:
            alike.append(_prepare(worker, request, states, deadline))
        except Exception as error:  # whatever one client does, the others' work counts
            reply.fail(request.client, error)
    for learners in stacks.values():
        if learners:
            _Stack(worker, learners, states, reply, deadline.for_stack(len(learners))).train()


@dataclass(frozen=True)
class _Learner:
    """A client in a stack."""

    request: ClientRequest
    num_examples: int
    parts: Mapping[str, float]
    """Which parts of the model it trains, as metrics."""
    received: Mapping[str, float]
    """Its losses at the weights that it starts from, as metrics, where the strategy asks for them."""
    batches: Iterator[Drawn]
    generator: torch.Generator
    """What its batches are drawn from."""
    state: ClientState

    def metrics(
        self, losses: Mapping[str, float], of_rules: Mapping[str, float] = NO_METRICS
    ) -> dict[str, float]:
        """Return the metrics of its reply."""
        return {"num-examples": self.num_examples, **self.parts, **losses, **of_rules, **self.received}


def _prepare(worker: Worker, request: ClientRequest, states: ClientStates, deadline: Deadline) -> _Learner:
    server_round, client = request.info.server_round, request.client
    examples = poison(worker, client, worker.examples(client)[0])
    generator = generator_for(worker.config.seed, "train", server_round, client)
    config, local_epochs = for_client(worker.config, request.config)
    batches = draw_batches(worker, examples, generator, config.batch_size, local_epochs)
    state = states.load(client, before=server_round)
    received = {}
    if request.info.received_losses:
        start = shared_model(request.given, state.shared)
        received = worker.received_losses(
            server_round, client, start, examples, deadline.for_one(others_wait=True)
        )
    parts = trained_parts(worker.task, examples)
    return _Learner(request, worker.num_examples(examples), parts, received, batches, generator, state)


class _Stack:
    """Clients that take their steps together, until each runs out of batches."""

    def __init__(
        self,
        worker: Worker,
        learners: Sequence[_Learner],
        states: ClientStates,
        reply: NodeReply,
        deadline: Deadline,
    ) -> None:
        """Put the clients' weights together: name -> (K, ...), for K clients."""
        self.worker, self.states, self.reply, self.deadline = worker, states, reply, deadline
        self.learners = list(learners)
        self.half, self.longest = deadline.halfway(), deadline.left / 2
        self.drawing = dict.fromkeys((learner.request.client for learner in learners), 0.0)
        """Seconds that each client's batches have taken."""
        first = learners[0].request
        self.state = _stack_states(worker, first, learners)
        parameters = {
            name: nn.Parameter(self.state[name], own.requires_grad) for name, own in worker.parameters.items()
        }
        self.state |= parameters
        config, _ = for_client(worker.config, first.config)
        self.optimizers: Optimizers = make_optimizers(worker.task, parameters.items(), config)
        self.rules = load_rules(first.info.rules, first.config)
        self.at_work: RuleAtWork | None = None
        if self.rules:
            self.at_work = RuleAtWork(
                self.rules,
                parameters.items(),
                self.optimizers,
                first,
                lambda name, weight: torch.stack(
                    [learner.state.shared.rule.get(name, torch.zeros_like(weight)) for learner in learners]
                ),
            )
        zeros = torch.zeros(len(learners), device=worker.device)
        self.totals = {objective.name: zeros.clone() for objective, _ in self.optimizers}
        self.terms = {objective.name: zeros.clone() for objective, _ in self.optimizers}
        self.seen = zeros.clone()

    def train(self) -> None:
        """Train all clients; collect each one's reply once it has no more batches."""
        start_training(self.worker.model, self.worker.task.freeze)
        while self.learners:
            try:
                self.deadline.check()
                # What hangs is most likely a client's own stream; the others then still have time.
                with interrupted_after(self.deadline.halfway()):
                    drawn = self._draw()
            except LateError as error:
                return self._fail(error)
            self._conclude([row for row, outcome in drawn.items() if outcome is None])
            for row, outcome in drawn.items():
                if isinstance(outcome, Exception):
                    self.reply.fail(self.learners[row].request.client, outcome)
            going_on = {row: each for row, each in drawn.items() if isinstance(each, Mapping | Examples)}
            if len(going_on) < len(self.learners):
                self._keep(list(going_on))
            try:
                with interrupted_after(self.deadline):
                    self._step(self._make(list(going_on.values())))
            except Exception as error:  # of shapes or operations, which are the same for all; or the alarm
                return self._fail(error)
        return None

    def _make(self, drawn: Sequence[Drawn]) -> list[Group]:
        """Return the batches; a client of which none can be made leaves those that step with it."""
        task = self.worker.task
        try:
            return make_together(task, drawn, self.learners[0].generator) if drawn else []
        except LateError:
            raise
        except Exception:  # whose examples are at fault, each by itself shows
            made: list[Batch] = []
            rows: list[int] = []
            for row, learner in enumerate(self.learners):
                try:
                    made.append(make_alone(task, drawn[row], learner.generator))
                    rows.append(row)
                except Exception as error:
                    self.reply.fail(learner.request.client, error)
            self._keep(rows)
            return make_together(task, made, self.learners[0].generator) if made else []

    def _draw(self) -> dict[int, Drawn | Exception | None]:
        """Return row -> its client's next batch, None where it has no more, or why it cannot be drawn.

        A client whose batches take half of the time leaves those that step with it, as they wait for it.
        """
        drawn: dict[int, Drawn | Exception | None] = {}
        for row, learner in enumerate(self.learners):
            began = time.monotonic()
            try:
                drawn[row] = next(learner.batches, None)
            except Exception as error:  # these examples, not the stack, are at fault
                drawn[row] = error
            client = learner.request.client
            self.drawing[client] += time.monotonic() - began
            waited_for = len(self.learners) > 1 and isinstance(drawn[row], Mapping | Examples)
            if waited_for and self.drawing[client] > self.longest:
                drawn[row] = self.half.late()
        return drawn

    def _fail(self, error: Exception) -> None:
        """Fail all clients that still train."""
        for learner in self.learners:
            self.reply.fail(learner.request.client, error)

    def _step(self, groups: Sequence[Group]) -> None:
        """Take one step of every objective; clients whose batches have other shapes are computed apart."""
        here = [(rows, batch, moved(batch, self.worker.device)) for rows, batch in groups]
        for objective, optimizer in self.optimizers:
            clear_gradients(optimizer)
            for rows, batch, on_device in here:
                losses = self._losses(objective, rows, on_device)
                losses.sum().backward()
                self._count(objective, rows, batch, losses.detach())
            step(optimizer)
        for rows, batch in groups:
            self.seen[rows] += _size(batch)

    def _count(self, objective: Objective, rows: list[int], batch: Batch, losses: Tensor) -> None:
        """Add the mean losses (R,) over batches (R, B, ...) to the totals of the clients in these rows."""
        terms: Tensor | int = _size(batch)
        if objective.count is not None:
            each = [{name: column[row] for name, column in batch.items()} for row in range(len(rows))]
            terms = torch.tensor([objective.terms(own) for own in each], device=losses.device)
            losses = torch.where(terms > 0, losses, 0.0)
        everyone = len(rows) == len(self.learners)
        place: list[int] | slice = slice(None) if everyone else rows
        self.totals[objective.name][place] += losses * terms
        self.terms[objective.name][place] += terms

    def _losses(self, objective: Objective, rows: list[int], batch: Batch) -> Tensor:
        """Batches (R, B, ...) of the clients in these rows -> their mean losses (R,)."""
        everyone = len(rows) == len(self.learners)
        weights = {
            f"model.{name}": stacked if everyone else stacked[rows] for name, stacked in self.state.items()
        }
        loss = _Loss(self.worker.model, objective)

        def one_client(weights: State, batch: Batch) -> Tensor:
            value: Tensor = functional_call(loss, weights, (batch,))
            return value

        device, autocast = self.worker.device.type, self.worker.config.precision == "bfloat16"
        layers = StackedLayers(len(rows)) if device == "cpu" and not autocast else nullcontext()
        with torch.autocast(device, torch.bfloat16, enabled=autocast), layers:
            losses: Tensor = vmap(one_client)(weights, batch)
        return losses

    def _keep(self, rows: list[int]) -> None:
        """Go on with the clients in these rows; what the others have learned stays where it is."""
        for _, optimizer in self.optimizers:
            for weight, slots in optimizer.state.items():
                for slot, value in slots.items():
                    if isinstance(value, Tensor) and value.shape == weight.shape:
                        slots[slot] = value[rows]
        if self.at_work:
            self.at_work.keep(rows)
        for stacked in self.state.values():
            stacked.data = stacked.data[rows]
        self.totals = {name: total[rows] for name, total in self.totals.items()}
        self.terms = {name: terms[rows] for name, terms in self.terms.items()}
        self.seen = self.seen[rows]
        self.learners = [self.learners[row] for row in rows]

    def _conclude(self, rows: Sequence[int]) -> None:
        """Collect the replies of the clients in these rows; what they all have is read at once."""
        if not rows:
            return
        totals = {name: total.tolist() for name, total in self.totals.items()}
        terms = {name: count.tolist() for name, count in self.terms.items()}
        seen = self.seen.tolist()
        losses: dict[int, Mapping[str, float]] = {}
        for row in rows:
            try:
                losses[row] = mean_losses(_at(row, totals), _at(row, terms), int(seen[row]))
            except Exception as error:  # a loss that is not finite
                self.reply.fail(self.learners[row].request.client, error)
        left = self._reply_together(losses)
        states = {name: stacked.detach().unbind() for name, stacked in self.state.items()} if left else {}
        for row in left:
            try:
                self._reply(row, _at(row, states), losses[row])
            except Exception as error:  # a weight that is not finite, a full disk
                self.reply.fail(self.learners[row].request.client, error)

    def _reply_together(self, losses: Mapping[int, Mapping[str, float]]) -> list[int]:
        """Collect the replies that can be made at once; return the rows of the others."""
        rows = list(losses)
        learners = [self.learners[row] for row in rows]
        if not rows or any(learner.state for learner in learners):
            return rows
        requests = [learner.request for learner in learners]
        if not goes_out_as_trained(self.worker, requests[0], self.rules, self.reply):
            return rows
        everyone = len(rows) == len(self.learners)
        weights = {name: stacked.detach() for name, stacked in self.state.items()}
        if not everyone:
            weights = {name: stacked[rows] for name, stacked in weights.items()}
        metrics = [learner.metrics(losses[row]) for row, learner in zip(rows, learners, strict=True)]
        return [rows[place] for place in reply_together(self.worker, requests, weights, metrics, self.reply)]

    def _reply(self, row: int, state: State, losses: Mapping[str, float]) -> None:
        """Collect the reply of the client in this row, which has learned this state."""
        learner = self.learners[row]
        rule_result, kept = self.at_work.close(row) if self.at_work else (RuleResult(), {})
        metrics = learner.metrics(losses, rule_result.metrics)
        result = LocalResult(state=state, metrics=metrics, aux=rule_result.aux, rule=kept)
        send_reply(self.worker, learner.request, result, self.rules, learner.state, self.states, self.reply)


def _at(row: int, columns: Mapping[str, Sequence[T]]) -> dict[str, T]:
    """Return what each column has in a row."""
    return {name: column[row] for name, column in columns.items()}


class _Loss(nn.Module):
    """An objective as a module, so that `functional_call` puts a client's weights under it."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean loss over the batch."""
        return self.objective.loss(self.model, batch)


def _stack_states(worker: Worker, first: ClientRequest, learners: Sequence[_Learner]) -> State:
    """Return name -> (K, ...): the server's weights for each client, and what the client remembers."""
    stacked = {}
    given = first.given
    for name, initial in worker.initial.items():
        if name in given:
            shared = given[name].to(worker.device)
            stacked[name] = shared.expand(len(learners), *shared.shape).clone()
        else:
            own = [learner.state.shared.model.get(name, initial) for learner in learners]
            stacked[name] = torch.stack([tensor.to(worker.device) for tensor in own])
    return stacked


def _size(batch: Batch) -> int:
    """Return the number of examples in each client's batch, of batches (R, B, ...)."""
    return next(iter(batch.values())).shape[1]
