"""Building the strategy that the run config names."""

from collections.abc import Iterable

from flwr.serverapp.strategy import Strategy
from torch.optim import Optimizer

from models.config import parse_options, require
from models.errors import UserError
from models.plugins import check_options, find
from server.config import ServerConfig
from strategies.registry import ENTRY_POINTS, STRATEGIES
from strategies.sampling import make, sampling


def cohort_size(config: ServerConfig, num_clients: int) -> int:
    """Return how many clients train in a round.

    Raises UserError for more than there are.
    """
    most = f"at most num-clients ({num_clients})"
    require(config.clients_per_round <= num_clients, "clients-per-round", most, config.clients_per_round)
    return config.clients_per_round or max(1, round(config.fraction_train * num_clients))


def load_strategy(config: ServerConfig, num_clients: int) -> Strategy:
    """Build the strategy with its options, and with Flower's sampling parameters for our cohort size.

    Raises UserError for an unknown strategy, or options that it does not take.
    """
    cls = strategy_class(config.strategy, find(config.strategy, "strategy", STRATEGIES, ENTRY_POINTS))
    training = cohort_size(config, num_clients)
    evaluating = round(config.fraction_evaluate * num_clients)
    if config.fraction_evaluate > 0:
        evaluating = max(evaluating, 1)
    given = sampling(num_clients, training, evaluating)
    options = parse_options("strategy-options", config.strategy_options)
    check_options(f"strategy {config.strategy}", cls, options, given=tuple(given))
    try:
        return make(cls, given, options)
    except (TypeError, ValueError) as error:
        raise UserError(f"strategy-options do not fit {config.strategy}: {error}") from error


def strategy_class(name: str, found: object) -> type[Strategy]:
    """Return what was found under `name`; UserError where it is no strategy."""
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise UserError(
            f"strategy {name!r} must be a subclass of flwr.serverapp.strategy.Strategy, and it is {found!r}"
        )
    return found


def check_optimizers(strategy: Strategy, optimizers: Iterable[Optimizer]) -> None:
    """Raise UserError for an optimizer that the strategy's theory does not hold for, if it has a say."""
    check = getattr(strategy, "check_optimizer", None)
    if check is None:
        return
    try:
        for optimizer in optimizers:
            check(optimizer)
    except ValueError as error:
        raise UserError(str(error)) from error
