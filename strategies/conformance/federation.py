"""A toy federation, in which a strategy meets what it will meet in a run.

Its clients descend parabolas under the strategy's local rule. Between their replies and the strategy stands
a check, which may change them.
"""

import copy
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch
from flwr.app import ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy
from torch import Tensor

from strategies.declaration import chain_of, declaration_of
from strategies.memory import capture, restore
from strategies.near_misses import check_near_misses
from strategies.rule import (
    RECEIVED,
    AuxTensors,
    Chain,
    LocalRule,
    ParameterResult,
    RuleResult,
    aux_arrays,
    split_aux,
)
from strategies.sampling import WRAPPED, federation, make, sampling, wraps
from strategies.wire.arrays import to_arrays, to_record
from strategies.wire.form import ARRAYS, in_form
from strategies.wire.identity import let_messages_be_made
from strategies.wire.train_config import SERVER_ROUND

Weights = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
ClientReplies = dict[int, RecordDict | Error]
"""Client -> what it replies, or its failure, in client order."""
Change = Callable[[ClientReplies], ClientReplies]

SHAPES: Shapes = {
    "features.0.weight": (4, 1, 3, 3),
    "features.0.bias": (4,),
    "mask_value": (1, 1, 1),
    "classifier.weight": (3, 4),
    "scale": (),
    "heads.été 1.base_layer.lora_A.default.weight": (2, 1),
}
"""States of tasks in small: every number of axes that they have, single numbers, and what a name may hold."""
STEPS, RATE = 3, 0.1
NUM_CLIENTS, COHORT, ROUNDS = 9, 8, 4


class ConformanceError(AssertionError):
    """A strategy does not do what every strategy must."""


@dataclass(frozen=True)
class Candidate:
    """A strategy as a run config names it; one within another is a candidate too, FedAvg unless given."""

    cls: type[Strategy]
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, num_clients: int = NUM_CLIENTS, cohort: int = COHORT) -> Strategy:
        """Build it as a run does; raise ValueError for what looks like a declaration and is none."""
        let_messages_be_made()
        options = dict(self.options)
        if wraps(self.cls):
            options[WRAPPED] = options.get(WRAPPED, Candidate(FedAvg)).build(num_clients, cohort)
        named = federation(num_clients, cohort, ROUNDS)
        check_near_misses(self.cls)
        strategy = make(self.cls, sampling(num_clients, cohort), named, options)
        check_near_misses(strategy)
        return strategy


class Client:
    """Descends a parabola for every weight; which one, its number decides."""

    def __init__(self, number: int) -> None:
        self.number = number
        # Squares, so that no two clients are equally far from a third.
        self.curvature, self.optimum = 1 + number / 8, float(number**2)
        self.num_examples = 3 + number
        self.kept: dict[str, dict[str, Tensor]] = {}
        """What its rule keeps: kind -> weight's name -> tensor."""

    def train(self, message: Message, rule: LocalRule) -> tuple[dict[str, ParameterResult], RuleResult]:
        """Take STEPS steps from the server's weights."""
        weights, sent = split_aux(to_tensors(message))
        results = {}
        for name, anchor in weights.items():
            zeros = torch.zeros_like(anchor)
            aux = AuxTensors(
                anchor,
                {kind: sent[kind][name] for kind in rule.sent},
                {kind: self.kept.get(kind, {}).get(name, zeros) for kind in rule.kept},
            )
            weight = anchor.clone()
            for _ in range(STEPS):
                gradient = self.curvature * (weight - self.optimum)
                weight = weight - RATE * rule.gradient(gradient, weight, aux)
            results[name] = ParameterResult(weight, aux, STEPS, STEPS * RATE, STEPS * RATE)
        rule_result = rule.close(results)
        self.kept = {
            kind: {name: each.aux.kept[kind] for name, each in results.items()} for kind in rule.kept
        }
        return results, rule_result

    def reply(self, message: Message, rule: LocalRule, server_round: int) -> RecordDict:
        """Train and reply as polyfed's clients do."""
        results, rule_result = self.train(message, rule)
        tensors = {name: each.weight for name, each in results.items()}
        for kind, aux in rule_result.aux.items():
            tensors |= aux_arrays(kind, aux)
        received = {name: tensor.numpy() for name, tensor in to_tensors(message).items()}
        generator = torch.Generator().manual_seed(server_round * NUM_CLIENTS + self.number)
        arrays, more = rule.reply(
            {name: tensor.numpy() for name, tensor in tensors.items()}, received, generator
        )
        metrics = {
            "num-examples": self.num_examples,
            "loss": self.curvature,
            f"{RECEIVED}loss": self.curvature,
            **rule_result.metrics,
            **more,
        }
        return RecordDict({"arrays": to_record(arrays), "metrics": MetricRecord({**metrics})})

    def evaluate(self, message: Message) -> RecordDict:
        """Reply how far the weights are from the client's optimum."""
        far = [float(((weight - self.optimum) ** 2).sum()) for weight in to_tensors(message).values()]
        return RecordDict({"metrics": MetricRecord({"num-examples": self.num_examples, "loss": sum(far)})})


class Federation:
    """A strategy with its clients; `alike` clients all do the same."""

    def __init__(
        self,
        candidate: Candidate,
        num_clients: int = NUM_CLIENTS,
        cohort: int = COHORT,
        alike: bool = False,
        shapes: Shapes = SHAPES,
    ) -> None:
        self.candidate, self.cohort = candidate, cohort
        self.strategy = candidate.build(num_clients, cohort)
        self.clients = {number: Client(1 if alike else number) for number in range(num_clients)}
        self.server_round = 0
        self.weights: Weights = {
            name: np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
            for name, shape in shapes.items()
        }

    def get_node_ids(self) -> list[int]:
        """Return the clients, as the Grid of a run does."""
        return list(self.clients)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return what clients reply to a question of the strategy's own, as the Grid of a run does."""
        return [Message(self._reply(message), reply_to=message) for message in self._in_form(messages)]

    def rule(self, config: Mapping[str, object]) -> LocalRule:
        """Return the strategy's client half."""
        places = (name.split(":") for name in declaration_of(self.strategy).local_rules)
        return Chain([getattr(import_module(module), attribute)(config) for module, attribute in places])

    def ask(self) -> dict[int, Message]:
        """Begin the next round; return what the strategy asks of each client, in client order."""
        self.server_round += 1
        config = ConfigRecord({SERVER_ROUND: self.server_round})
        self._seed()
        messages = self.strategy.configure_train(
            self.server_round, to_record(self.weights), config, cast(Grid, self)
        )
        asked = {message.metadata.dst_node_id: message for message in self._in_form(messages)}
        return dict(sorted(asked.items()))

    def play(self, change: Change = dict) -> Weights | None:
        """Play a round; return the new weights, or None where the strategy refuses to make any."""
        asked = self.ask()
        replies: ClientReplies = {number: self._reply(message) for number, message in asked.items()}
        messages = [Message(reply, reply_to=asked[number]) for number, reply in change(replies).items()]
        self._seed()
        try:
            arrays, _ = self.strategy.aggregate_train(self.server_round, messages)
        except AppExitException:  # Flower's way to say that it cannot be done
            return None
        if arrays is not None:
            self.weights = self._complete(to_arrays(arrays))
        return None if arrays is None else self.weights

    def resumed(self) -> "Federation":
        """Return this federation as it comes back from a checkpoint: with a new strategy object."""
        other = copy.copy(self)
        other.clients = copy.deepcopy(self.clients)
        other.strategy = self.candidate.build(len(self.clients), self.cohort)
        tree, arrays = capture(self.strategy)
        restore(other.strategy, json.loads(json.dumps(tree)), arrays)
        return other

    def _in_form(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Put what is said to clients into two records, as a run does."""
        *_, innermost = chain_of(self.strategy)
        for message in messages:
            content = in_form(message.content, self.weights, getattr(innermost, "arrayrecord_key", ARRAYS))
            message.content = content
            yield message

    def _reply(self, message: Message) -> RecordDict:
        client = self.clients[message.metadata.dst_node_id]
        if message.metadata.message_type == MessageType.EVALUATE:
            return client.evaluate(message)
        return client.reply(message, self.rule(config_of(message)), self.server_round)

    def _complete(self, arrays: Weights) -> Weights:
        """Cast what the strategy returned to the model's type; raise for what is missing or misshapen."""
        for name, old in self.weights.items():
            got = arrays[name].shape if name in arrays else "nothing"
            if got != old.shape:
                raise ConformanceError(f"{name} must come back in the shape {old.shape}, got {got}")
        return {name: arrays[name].astype(old.dtype) for name, old in self.weights.items()}

    def _seed(self) -> None:
        random.seed(self.server_round)
        np.random.seed(self.server_round)


def to_tensors(message: Message) -> dict[str, Tensor]:
    """Return copies of the arrays in a message."""
    (record,) = message.content.array_records.values()
    return {name: torch.tensor(array) for name, array in to_arrays(record).items()}


def config_of(message: Message) -> Mapping[str, object]:
    """Return what the strategy says to a client beside the arrays."""
    (config,) = message.content.config_records.values()
    return config
