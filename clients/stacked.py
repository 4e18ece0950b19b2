"""Training clients side by side: their weights stacked along a leading axis, and stepped as one.

`torch.func.vmap` maps an objective over that axis, and an ordinary optimizer, which works elementwise, steps
all clients at once. Small networks gain, as a step of theirs costs little more than its overhead; large
ones do not. Each client's result equals that of the loop up to the rounding of sums (some 1e-6), so it
depends a little on who trains beside it: the loop is the default.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from clients.attacks import poison
from clients.local_state import LocalState
from clients.loop import Optimizers, mean_losses
from clients.memory import MODEL, own_state
from clients.rules import RuleAtWork, load_rule
from clients.work import Answer, Order, make_answer
from clients.worker import Worker
from models.core.seeds import generator_for
from models.optimizers import make_optimizers
from models.task import Batch, Objective, State
from strategies.rule import Closing

Outcome = tuple[Order, Answer | Exception]


def train_stacked(worker: Worker, orders: Sequence[Order]) -> Iterator[Outcome]:
    """Train the clients of a message, those that start alike in one stack; yield each one's outcome."""
    stacks: dict[tuple[int, int], list[_Learner]] = {}
    for order in orders:
        alike = stacks.setdefault((id(order.weights), id(order.config)), [])
        try:
            alike.append(_prepare(worker, order))
        except Exception as error:  # whatever one client does, the others' work counts
            yield order, error
    for learners in stacks.values():
        if learners:
            yield from _Stack(worker, learners).train()


@dataclass(frozen=True)
class _Learner:
    """A client in a stack."""

    order: Order
    num_examples: int
    batches: Iterator[Batch]
    remembered: Mapping[str, Tensor]


def _prepare(worker: Worker, order: Order) -> _Learner:
    examples = poison(worker, order.client, worker.examples(order.client)[0])
    generator = generator_for(worker.config.seed, "train", order.server_round, order.client)
    epochs = (
        worker.task.batches(worker.model, examples, generator, worker.config.batch_size)
        for _ in range(worker.config.local_epochs)
    )
    remembered = LocalState(order.folder, order.client).load(order.server_round)
    return _Learner(order, worker.task.num_examples(examples), chain.from_iterable(epochs), remembered)


class _Stack:
    """Clients that take their steps together, until each runs out of batches."""

    def __init__(self, worker: Worker, learners: Sequence[_Learner]) -> None:
        """Put the clients' weights together: name -> (K, ...), for K clients."""
        self.worker = worker
        self.learners = list(learners)
        first = learners[0].order
        self.state = _stack_states(worker, first.weights, learners)
        parameters = {
            name: nn.Parameter(self.state[name], own.requires_grad)
            for name, own in worker.model.named_parameters()
        }
        self.state |= parameters
        self.optimizers: Optimizers = make_optimizers(worker.task, parameters.items(), worker.config)
        rule = load_rule(first.config, "local-rule")
        self.rule = rule and RuleAtWork(
            rule,
            parameters.items(),
            self.optimizers,
            first.weights,
            lambda name, weight: torch.stack(
                [learner.remembered.get(name, torch.zeros_like(weight)) for learner in learners]
            ),
        )
        zeros = torch.zeros(len(learners), device=worker.device)
        self.totals = {objective.name: zeros.clone() for objective, _ in self.optimizers}
        self.seen = zeros.clone()

    def train(self) -> Iterator[Outcome]:
        """Train all clients; yield each one's outcome once it has no more batches."""
        if not self.worker.model.training:
            self.worker.model.train()
        while self.learners:
            batches: list[Batch] = []
            going: list[int] = []
            for row, learner in enumerate(self.learners):
                try:
                    batches.append(next(learner.batches))
                    going.append(row)
                except StopIteration:
                    yield learner.order, self._conclude(row)
                except Exception as error:  # these rows, not the stack, are at fault
                    yield learner.order, error
            if len(going) < len(self.learners):
                self._keep(going)
            try:
                self._step(batches)
            except Exception as error:  # of shapes or operations, which are the same for all
                yield from ((learner.order, error) for learner in self.learners)
                return

    def _step(self, batches: Sequence[Batch]) -> None:
        """Take one step of every objective; clients whose batches have other shapes are computed apart."""
        rows_of: dict[tuple[torch.Size, ...], list[int]] = {}
        for row, batch in enumerate(batches):
            rows_of.setdefault(tuple(column.shape for column in batch.values()), []).append(row)
        device = self.worker.device
        groups = [
            (
                rows,
                {name: torch.stack([batches[row][name] for row in rows]).to(device) for name in batches[0]},
            )
            for rows in rows_of.values()
        ]
        for objective, optimizer in self.optimizers:
            optimizer.zero_grad()
            for rows, batch in groups:
                losses = self._losses(objective, rows, batch)
                losses.sum().backward()
                self.totals[objective.name][rows] += losses.detach() * _size(batch)
            optimizer.step()
        for rows, batch in groups:
            self.seen[rows] += _size(batch)

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

        autocast = self.worker.config.precision == "bfloat16"
        with torch.autocast(self.worker.device.type, torch.bfloat16, enabled=autocast):
            losses: Tensor = vmap(one_client)(weights, batch)
        return losses

    def _keep(self, rows: list[int]) -> None:
        """Go on with the clients in these rows; what the others have learned stays where it is."""
        for _, optimizer in self.optimizers:
            for weight, slots in optimizer.state.items():
                for slot, value in slots.items():
                    if isinstance(value, Tensor) and value.shape == weight.shape:
                        slots[slot] = value[rows]
        if self.rule:
            self.rule.keep(rows)
        for stacked in self.state.values():
            stacked.data = stacked.data[rows]
        self.totals = {name: total[rows] for name, total in self.totals.items()}
        self.seen = self.seen[rows]
        self.learners = [self.learners[row] for row in rows]

    def _conclude(self, row: int) -> Answer | Exception:
        """Return what the client in this row replies, once it has remembered what stays with it."""
        learner = self.learners[row]
        order, state = learner.order, {name: stacked.detach()[row] for name, stacked in self.state.items()}
        try:
            totals = {name: float(total[row]) for name, total in self.totals.items()}
            losses = mean_losses(totals, int(self.seen[row]))
            closing, own = self.rule.close(row) if self.rule else (Closing(), {})
            metrics = {"num-examples": learner.num_examples, **losses, **closing.metrics}
            rule = self.rule.rule if self.rule else None
            answer = make_answer(self.worker, order, state, metrics, closing.beside, rule, learner.remembered)
            own |= {**own_state(self.worker, state, order.weights), **answer.kept}
            if own or learner.remembered:
                store = LocalState(order.folder, order.client)
                store.save(order.server_round, own, int(str(order.config["checkpoint-round"])))
            return answer
        except Exception as error:  # a loss or a weight that is not finite, a full disk
            return error


class _Loss(nn.Module):
    """An objective as a module, so that `functional_call` puts a client's weights under it."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean loss over the batch."""
        return self.objective.loss(self.model, batch)


def _stack_states(worker: Worker, weights: Mapping[str, Tensor], learners: Sequence[_Learner]) -> State:
    """Return name -> (K, ...): the server's weights for each client, and what the client remembers."""
    stacked = {}
    for name, initial in worker.initial.items():
        if name in weights:
            shared = weights[name].to(worker.device)
            stacked[name] = shared.expand(len(learners), *shared.shape).clone()
        else:
            own = [learner.remembered.get(MODEL + name, initial) for learner in learners]
            stacked[name] = torch.stack([tensor.to(worker.device) for tensor in own])
    return stacked


def _size(batch: Batch) -> int:
    """Return the number of examples in each client's batch, of batches (R, B, ...)."""
    return next(iter(batch.values())).shape[1]
