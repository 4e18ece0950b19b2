"""Strategies that ask clients in ways of their own: "asking:Class"."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from strategies import AuxTensors, Declaration, LocalRule
from strategies.rule import Arrays


class Told(FedAvg):
    """Tells clients what `told` holds, "CLIENT" -> words, each in a record of its own."""

    def __init__(self, told: dict[str, dict[str, Any]], **options: Any) -> None:
        super().__init__(**options)
        self.told = told

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return [
            Message(
                RecordDict({"model": arrays, "words": ConfigRecord({**words})}),
                int(client),
                MessageType.TRAIN,
            )
            for client, words in self.told.items()
        ]


class Summed(Told):
    """The same, and lets nodes add up."""

    declaration = Declaration(weighted_mean=True)


class Drawn(FedAvg):
    """Asks the clients that `drawn` names, one message for each time; all messages hold the same records."""

    def __init__(self, drawn: list[int], epochs: list[int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.drawn, self.epochs, self.replied = drawn, epochs, list[int]()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        for place, client in enumerate(self.drawn):
            own = ConfigRecord({"local-epochs": self.epochs[place]}) if self.epochs else config
            yield Message(RecordDict({"arrays": arrays, "config": own}), client, MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        self.replied = [reply.metadata.src_node_id for reply in replies]
        return super().aggregate_train(server_round, replies)


class DrawnAndSummed(Drawn):
    """The same, and lets nodes add up."""

    declaration = Declaration(weighted_mean=True)


class Push(LocalRule):
    """Steps along g + push * strength."""

    sent = ("push",)

    def __init__(self, config: Mapping[str, object]) -> None:
        self.strength = float(config["strength"])  # type: ignore[arg-type]

    def gradient(self, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
        return gradient + self.strength * aux.sent["push"]


class Widening(LocalRule):
    """Replies every weight twice over, or not a number, where it is told to."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self.how = config.get("how", "")

    def reply(self, arrays: Arrays, received: Arrays, generator: torch.Generator) -> tuple[Arrays, dict]:
        if self.how == "wide":
            return {name: np.stack([array, array]) for name, array in arrays.items()}, {}
        if self.how == "nan":
            return {name: np.full_like(array, np.nan) for name, array in arrays.items()}, {}
        return arrays, {}


class Widened(Told):
    """Tells clients how, and lets nodes add up."""

    declaration = Declaration(weighted_mean=True, local_rules=("asking:Widening",))


class Records(FedAvg):
    """Sends what its rule needs in records of their own, and before the weights."""

    declaration = Declaration(local_rules=("asking:Push",))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        push = ArrayRecord({name: Array(np.full_like(each.numpy(), 2.0)) for name, each in arrays.items()})
        content = RecordDict(
            {
                "push": push,
                "numbers": MetricRecord({"strength": 0.5, "read-by-none": 1}),
                "arrays": arrays,
                "config": config,
            }
        )
        return [Message(content, client, MessageType.TRAIN) for client in grid.get_node_ids()]


class Decaying(FedAvg):
    """Halves the step size each round, in the config that it is given again, as Flower's guides have it."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        rate = config.get("learning-rate", 0.2)
        config["learning-rate"] = rate / 2  # type: ignore[operator]
        config["blob"] = b"bytes"
        return super().configure_train(server_round, arrays, config, grid)


class Wrong(FedAvg):
    """Does what `wrong` names."""

    def __init__(self, wrong: str, **options: Any) -> None:
        super().__init__(**options)
        self.wrong = wrong
        if wrong == "evaluate_fn":
            self.evaluate_fn = print

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        client, content = 0, RecordDict({"arrays": arrays, "config": config})
        match self.wrong:
            case "client":
                client = 7
            case "part":
                content["arrays"] = ArrayRecord({"other": Array(np.zeros(1))})
            case "no weights":
                content = RecordDict({"config": config})
            case "pull":
                grid.pull_messages(["1"])
        return [Message(content, client, MessageType.TRAIN)]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        if self.wrong == "shape" and arrays is not None:
            arrays = ArrayRecord({name: Array(np.zeros((2, 3))) for name in arrays})
        return arrays, metrics


class Unheard(FedAvg):
    """Asks clients itself, and hears their failures."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        content = RecordDict({"arrays": arrays, "config": config})
        asked = [Message(content, client, MessageType.TRAIN) for client in grid.get_node_ids()]
        replies = list(grid.send_and_receive(asked, timeout=60))
        fine = [reply.metadata.src_node_id for reply in replies if reply.has_content()]
        return [Message(content, client, MessageType.TRAIN) for client in fine]
