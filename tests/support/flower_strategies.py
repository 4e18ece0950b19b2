"""Strategies as a user of Flower would write them; "flower_strategies:Class"."""

# mypy: ignore-errors
import random
from collections import Counter, defaultdict

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg


class OwnConfig(FedAvg):
    """Every client gets a config of its own (local epochs, learning rate): a fresh ConfigRecord each."""

    def configure_train(self, server_round, arrays, config, grid):
        out = []
        for node in list(grid.get_node_ids())[:4]:
            mine = ConfigRecord({"local-epochs": 1 + node % 3, "lr": 0.01})
            out.append(Message(RecordDict({"arrays": arrays, "config": mine}), node, MessageType.TRAIN))
        return out


class OwnConfigCopy(FedAvg):
    """The same, starting from what polyfed gave."""

    def configure_train(self, server_round, arrays, config, grid):
        out = []
        for node in list(grid.get_node_ids())[:4]:
            mine = ConfigRecord(
                {**config, "server-round": server_round, "local-epochs": 1 + node % 3, "lr": 1e-9}
            )
            out.append(Message(RecordDict({"arrays": arrays, "config": mine}), node, MessageType.TRAIN))
        return out


class ExtraRecord(FedAvg):
    """A second record beside the weights, as Flower's messages allow."""

    def configure_train(self, server_round, arrays, config, grid):
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for m in messages:
            m.content["extra"] = ConfigRecord({"hint": 1.0})
        return messages


class Start(FedAvg):
    """Overrides start, as Flower's how-to on saving models and W&B does."""

    def start(
        self,
        grid,
        initial_arrays,
        num_rounds=3,
        timeout=3600,
        train_config=None,
        evaluate_config=None,
        evaluate_fn=None,
    ):
        return super().start(
            grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn
        )


class OwnMetrics(FedAvg):
    """Aggregates metrics in its own way, in training and in evaluation."""

    def __init__(self, **options):
        super().__init__(**options)
        self.train_metrics_aggr_fn = self._train
        self.evaluate_metrics_aggr_fn = self._evaluate

    def _train(self, contents, key):
        losses = [next(iter(c.metric_records.values()))["loss"] for c in contents]
        return MetricRecord({"loss-spread": max(losses) - min(losses), "losses": losses})

    def _evaluate(self, contents, key):
        acc = [next(iter(c.metric_records.values()))["accuracy"] for c in contents]
        return MetricRecord(
            {
                "worst-accuracy": min(acc),
                "accuracy-variance": sum((a - sum(acc) / len(acc)) ** 2 for a in acc) / len(acc),
            }
        )


class PowerOfChoice(FedAvg):
    """Asks twice as many clients for their loss, and trains those with the highest (Cho et al. 2020)."""

    def configure_train(self, server_round, arrays, config, grid):
        candidates = random.sample(list(grid.get_node_ids()), 6)
        ask = ConfigRecord({**config, "server-round": server_round})
        record = RecordDict({"arrays": arrays, "config": ask})
        replies = grid.send_and_receive([Message(record, n, MessageType.EVALUATE) for n in candidates])
        losses = {
            r.metadata.src_node_id: next(iter(r.content.metric_records.values()))["loss"]
            for r in replies
            if r.has_content()
        }
        chosen = sorted(losses, key=losses.get)[-3:]
        config["server-round"] = server_round
        record = RecordDict({"arrays": arrays, "config": config})
        return [Message(record, n, MessageType.TRAIN) for n in chosen]


class Remembers(FedAvg):
    """Counts how often each client took part, in the containers of the standard library."""

    def __init__(self, **options):
        super().__init__(**options)
        self.times = Counter()
        self.history = defaultdict(list)
        self.seen = set()

    def configure_train(self, server_round, arrays, config, grid):
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for m in messages:
            c = m.metadata.dst_node_id
            self.times[c] += 1
            self.history[server_round].append(c)
            self.seen.add(c)
        return messages


class Partial(FedAvg):
    """Returns only the head."""

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        return ArrayRecord({k: v for k, v in arrays.items() if k.startswith("classifier")}), metrics


class CustomAction(FedAvg):
    """Sends its messages to an action of its own, 'train.warmup', as Flower's message types allow."""

    def configure_train(self, server_round, arrays, config, grid):
        messages = list(super().configure_train(server_round, arrays, config, grid))
        return [Message(m.content, m.metadata.dst_node_id, "train.warmup") for m in messages]


class Async(FedAvg):
    """Pushes and pulls by itself."""

    def configure_train(self, server_round, arrays, config, grid):
        messages = list(super().configure_train(server_round, arrays, config, grid))
        grid.push_messages(messages)
        return messages


class WithReplacement(FedAvg):
    """Draws clients with replacement, as the theory of FedAvg's sampling scheme I has it (Li et al. 2020)."""

    def configure_train(self, server_round, arrays, config, grid):
        nodes = random.choices(list(grid.get_node_ids()), k=8)
        config["server-round"] = server_round
        record = RecordDict({"arrays": arrays, "config": config})
        self.asked = len(nodes)
        return [Message(record, n, MessageType.TRAIN) for n in nodes]

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        return super().aggregate_train(server_round, replies)
