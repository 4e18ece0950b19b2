"""The same federation in plain PyTorch, as a person would write it by hand.

In one process, a loop. In several, the weights lie in shared memory, where they are put once a round; warm
processes take clients from a queue, the largest first, and add what they have trained to a sum of their own,
also in shared memory; the parent adds the sums. Each process computes on one thread.
"""

import random
import traceback
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing import get_context
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from models.core.config import RunConfig, TaskConfig, read
from models.core.device import pinned
from models.data.dataset import Indices
from models.data.datasets import load_dataset
from models.data.partition import make_partition
from models.optimizers import choose
from models.registry import load_task
from server.errors import RunFailedError
from simulations.bench.clock import note_start
from simulations.bench.workloads import inputs_and_targets, loss


@dataclass(frozen=True)
class Federation:
    """A network, and the clients that train it."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    rows: list[Indices]
    """Places (num_examples,) of each client's examples."""
    clients_per_round: int
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float

    def cohort(self, number: int) -> list[int]:
        """Return the clients that train in a round, those with most examples first."""
        drawn = random.Random(number).sample(range(len(self.rows)), self.clients_per_round)
        return sorted(drawn, key=lambda client: -len(self.rows[client]))

    def initial(self) -> Tensor:
        """Return the weights to begin with, one after the other (num_parameters,)."""
        return parameters_to_vector(self.model.parameters()).detach().clone()


def federation_of(run_config: RunConfig) -> Federation:
    """Return the federation that polyfed would train by SGD and cross-entropy, with the same deal."""
    config = read(TaskConfig, run_config)
    dataset = load_dataset(config)
    task, deal = load_task(config, dataset), make_partition(dataset, config)
    (objective,) = task.objectives
    sgd = choose(objective, config)
    inputs, targets = inputs_and_targets(dataset)
    torch.manual_seed(config.seed)
    return Federation(
        model=task.build(),
        inputs=inputs,
        targets=targets,
        rows=[deal[client] for client in range(config.num_clients)],
        clients_per_round=int(run_config["clients-per-round"]),
        epochs=config.local_epochs,
        batch_size=config.batch_size,
        learning_rate=sgd.learning_rate,
        momentum=sgd.options["momentum"],
    )


class Trainer:
    """A model that one client after the other is trained with."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.rows = [torch.from_numpy(rows) for rows in federation.rows]
        self.model = deepcopy(federation.model)
        self.weights = federation.initial()
        vector_to_parameters(self.weights, self.model.parameters())  # which are parts of it from now on
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=federation.learning_rate, momentum=federation.momentum
        )
        self.generator = torch.Generator()

    def train(self, start: Tensor, number: int, client: int) -> int:
        """Train a client from the weights `start` in round `number`; return how many examples it has."""
        of, rows = self.federation, self.rows[client]
        self.weights.copy_(start)
        self.optimizer.state.clear()
        self.generator.manual_seed(number * len(self.rows) + client)
        for _ in range(of.epochs):
            order = torch.randperm(len(rows), generator=self.generator)
            for batch in rows[order].split(of.batch_size):
                self.optimizer.zero_grad()
                loss(self.model(of.inputs[batch]), of.targets[batch]).backward()
                self.optimizer.step()
        return len(rows)


def train_plainly(federation: Federation, num_rounds: int, clock: Path) -> Tensor:
    """Train and average round by round in this process; return the final weights (num_parameters,)."""
    with pinned(1):
        trainer, weights = Trainer(federation), federation.initial()
        for number in range(num_rounds):
            note_start(clock)
            total, num_examples = torch.zeros_like(weights), 0
            for client in federation.cohort(number):
                count = trainer.train(weights, number, client)
                total.add_(trainer.weights, alpha=count)
                num_examples += count
            weights = total.div_(num_examples)
    return weights


def train_side_by_side(
    federation: Federation, num_rounds: int, clock: Path, num_processes: int = 2
) -> Tensor:
    """Do as `train_plainly` does, in several processes."""
    federation.inputs.share_memory_()
    federation.targets.share_memory_()
    weights = federation.initial().share_memory_()
    sums = torch.zeros(num_processes, len(weights)).share_memory_()
    with pinned(1), _Workers(federation, weights, sums) as workers:
        for number in range(num_rounds):
            note_start(clock)
            sums.zero_()
            num_examples = workers.train(number, federation.cohort(number))
            torch.div(sums.sum(0), num_examples, out=weights)
    final: Tensor = weights.clone()
    return final


class _Workers:
    """A process for each of the sums, all at one queue."""

    def __init__(self, federation: Federation, weights: Tensor, sums: Tensor) -> None:
        context = get_context("spawn")  # a fork would inherit torch's threads, and wait for them
        self.waiting = context.SimpleQueue()
        pipes = [context.Pipe(duplex=False) for _ in sums]
        self.answers: list[Connection] = [receiver for receiver, _ in pipes]
        self.processes = [
            context.Process(
                target=_work, args=(federation, weights, total, self.waiting, sender), daemon=True
            )
            for total, (_, sender) in zip(sums, pipes, strict=True)
        ]

    def __enter__(self) -> "_Workers":
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.terminate()
            process.join()

    def train(self, number: int, cohort: Sequence[int]) -> int:
        """Let the clients be trained in round `number`; return how many examples they have."""
        for client in cohort:
            self.waiting.put((number, client))
        num_examples, missing = 0, len(cohort)
        while missing:
            for ready in wait([*self.answers, *(process.sentinel for process in self.processes)]):
                if not isinstance(ready, Connection):
                    raise RunFailedError("a process of the plain loop has died")
                answer: int | str = ready.recv()
                if isinstance(answer, str):
                    raise RunFailedError(f"a process of the plain loop failed: {answer}")
                num_examples += answer
                missing -= 1
        return num_examples


def _work(federation: Federation, weights: Tensor, total: Tensor, waiting: Any, answer: Connection) -> None:
    """Train the clients that wait, add each to this process's sum, and say how many examples it has."""
    try:
        with pinned(1):
            trainer = Trainer(federation)
            while True:
                number, client = waiting.get()
                count = trainer.train(weights, number, client)
                total.add_(trainer.weights, alpha=count)
                answer.send(count)
    except Exception:
        answer.send(traceback.format_exc())
