"""Building a strategy that samples exactly as many clients as it is told to."""

import inspect
from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import Strategy

WRAPPED = "strategy"
"""The option, and the constructor's parameter, that names the strategy within a strategy."""
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


def federation(num_clients: int, training: int, num_rounds: int) -> dict[str, int]:
    """Return what strategies may ask for by the names in FEDERATION."""
    return dict(zip(FEDERATION, (training, num_clients, num_rounds), strict=True))


def wraps(cls: type[Strategy]) -> bool:
    """Whether a strategy is made around another one, which its constructor takes."""
    return WRAPPED in inspect.signature(cls).parameters


def parameters_of(cls: type[Strategy]) -> set[str]:
    """Return what a strategy's constructor takes by name, or passes on to a parent's that does."""
    found: set[str] = set()
    for parent in cls.__mro__:
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(vars(parent)["__init__"]).parameters
        found |= parameters.keys()
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return found


def make(
    cls: type[Strategy], given: Mapping[str, float], named: Mapping[str, int], options: Mapping[str, Any]
) -> Strategy:
    """Build a strategy with its options, and with what a run fills in.

    Of `given`, the sampling parameters, it gets those that it takes or passes on, of `named`, those of the
    federation, only what it takes by name, or a parent that it passes on to. Raises what the constructor
    raises.
    """
    parameters = inspect.signature(cls).parameters
    forwards = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    taken = {name: value for name, value in given.items() if forwards or name in parameters}
    asked_for = {name: value for name, value in named.items() if name in parameters_of(cls)}
    return cls(**taken, **asked_for, **options)
