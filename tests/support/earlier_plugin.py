"""The plugin of docs/strategies.md as it was in 0.1.0, with its imports and declaration as they are now."""

from flwr.serverapp.strategy import FedAvg

from strategies import Declaration, LocalRule, to_arrays, to_record


class Limit(LocalRule):
    """Keeps every entry of a gradient within `limit`."""

    def __init__(self, config):
        self.limit = float(config["halfway-limit"])

    def gradient(self, gradient, weight, companions):
        return gradient.clamp(-self.limit, self.limit)


class Halfway(FedAvg):
    """FedAvg that goes a part of the way, `step`, from the old weights to the clients' mean."""

    declaration = Declaration(weighted_mean=True, local_rules=("earlier_plugin:Limit",))

    def __init__(self, step: float = 0.5, limit: float = 1.0, **options):
        super().__init__(**options)
        self.step, self.limit = step, limit

    def configure_train(self, server_round, arrays, config, grid):
        self.old = to_arrays(arrays)
        config["halfway-limit"] = self.limit  # reaches the rule's constructor on every client
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return None, metrics
        new = to_arrays(mean)
        return to_record({name: x + self.step * (new[name] - x) for name, x in self.old.items()}), metrics
