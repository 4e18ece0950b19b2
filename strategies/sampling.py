"""Building a strategy that samples exactly as many clients as it is told to."""

import inspect
from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import Strategy

FEDERATION = ("num_sampled_clients", "num_clients", "num_rounds")
"""What a strategy that must know its federation may ask for by these names: cohort, clients and rounds."""


def sampling(num_clients: int, training: int, evaluating: int = 0) -> dict[str, float]:
    """Return Flower's sampling parameters for cohorts of these sizes."""
    # Flower rounds the fraction down and then takes the minimum, so the minimum is what decides.
    return {
        "fraction_train": training / num_clients,
        "fraction_evaluate": evaluating / num_clients,
        "min_train_nodes": training,
        "min_evaluate_nodes": evaluating,
        "min_available_nodes": max(training, evaluating),
    }


def make(cls: type[Strategy], given: Mapping[str, float], options: Mapping[str, Any]) -> Strategy:
    """Build a strategy with its options, and with those of the `given` parameters that it takes or passes on.

    Raises what the constructor raises.
    """
    parameters = inspect.signature(cls).parameters
    forwards = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    taken = {name: value for name, value in given.items() if forwards or name in parameters}
    return cls(**taken, **options)
