"""Building the strategy that the run config names."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from flwr.serverapp.strategy import Strategy
from torch import nn
from torch.optim import Optimizer

from models.core.config import TaskConfig, parse_options, require
from models.core.errors import UserError, unknown
from models.core.plugins import check_options, check_required, constructor_parameters, find, load_object
from models.state import federated_names, frozen_names, model_state
from models.task import Task
from server.config import ServerConfig
from strategies.declaration import chain_of, declaration_of
from strategies.memory import NotSavedError, capture
from strategies.near_misses import check_near_misses
from strategies.privacy.central_dp import CentralDP
from strategies.registry import ENTRY_POINTS, STRATEGIES
from strategies.rule import PERSONAL, RECEIVED, LocalRule
from strategies.sampling import WRAPPED, federation, make, sampling, wraps
from strategies.wire.compression import CODECS


def cohort_size(config: ServerConfig, num_clients: int) -> int:
    """Return how many clients train in a round.

    Raises UserError for more than there are.
    """
    most = f"at most num-clients ({num_clients})"
    require(config.clients_per_round <= num_clients, "clients-per-round", most, config.clients_per_round)
    return config.clients_per_round or max(1, round(config.fraction_train * num_clients))


def sampled_size(config: ServerConfig, num_clients: int) -> int:
    """Return how many clients are asked to train in a round: with `oversample`, more than are waited for."""
    return min(num_clients, math.ceil(config.oversample * cohort_size(config, num_clients)))


def evaluating_size(config: ServerConfig, num_clients: int) -> int:
    """Return how many clients evaluate in a round."""
    return max(round(config.fraction_evaluate * num_clients), 1 if config.fraction_evaluate > 0 else 0)


def load_strategy(config: ServerConfig, num_clients: int) -> Strategy:
    """Build the strategy with its options, and with Flower's sampling parameters for our cohort size.

    Raises UserError for an unknown strategy, or options that it does not take.
    """
    cohort, training = cohort_size(config, num_clients), sampled_size(config, num_clients)
    most = f"at most the number of clients that train at a time ({cohort})"
    require(config.buffer_size <= cohort, "buffer-size", most, config.buffer_size)
    answers = config.buffer_size or cohort
    waited_for = f"at most the {answers} clients that a round waits for"
    require(config.min_replies <= answers, "min-replies", waited_for, config.min_replies)
    most = f"at most num-clients ({num_clients})"
    require(config.min_clients <= num_clients, "min-clients", most, config.min_clients)
    evaluating = evaluating_size(config, num_clients)
    given = sampling(num_clients, training, evaluating)
    if config.buffer_size:  # it is shown those clients alone that begin
        given |= {"fraction_train": 1.0, "min_train_nodes": 1, "min_available_nodes": 1}
    elif config.availability:  # it is shown those that are there
        given |= {"min_available_nodes": training}
    named = federation(num_clients, config.buffer_size or training, config.num_server_rounds)
    options = parse_options("strategy-options", config.strategy_options)
    strategy = _build(config.strategy, options, given, named)
    rules_of(strategy)
    return strategy


def _build(
    name: str, options: dict[str, Any], given: Mapping[str, float], named: Mapping[str, int]
) -> Strategy:
    """Build a strategy, and first the one that it wraps, if its constructor takes a `strategy`."""
    cls = strategy_class(name, find(name, "strategy", STRATEGIES, ENTRY_POINTS))
    check_options(f"strategy {name}", cls, options, given=(*given, *named))
    if wraps(cls):
        wrapped, its_options = _wrapped(options.pop(WRAPPED, "FedAvg"))
        options[WRAPPED] = _build(wrapped, its_options, given, named)
    check_required(f"strategy {name}", cls, {*given, *named, *options})
    try:
        strategy = make(cls, given, named, options)
    except ValueError as error:  # a constructor's refusal
        raise UserError(f"strategy-options do not fit {name}: {error}") from error
    except TypeError as error:
        # Of one that passes its options on, Python alone says which it does not take.
        refused = [option for option in options if f"keyword argument {option!r}" in str(error)]
        if not refused:
            raise  # a fault in its code
        known = [each for each in constructor_parameters(cls) if each not in (*given, *named)]
        if refused[0] not in known:
            raise unknown(f"option of strategy {name}", refused[0], known) from error
        raise UserError(f"strategy-options do not fit {name}: {error}") from error
    try:
        check_near_misses(strategy)
        declaration_of(strategy)
    except (TypeError, ValueError) as error:
        raise UserError(f"strategy {name}: {error}") from error
    check_methods(strategy)
    return strategy


def _wrapped(given: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of the strategy within another."""
    match given:
        case str():
            return given, {}
        case {"name": str(name)}:
            return name, {option: value for option, value in given.items() if option != "name"}
    raise UserError(
        "the option strategy must be a name, or a table such as {name = 'FedAdam', eta = 0.01}, "
        f"got {given!r}"
    )


def strategy_class(name: str, found: object) -> type[Strategy]:
    """Return what was found under `name`.

    Raises UserError where it is no strategy, and where it declares what nobody would read.
    """
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise UserError(
            f"strategy {name!r} must be a subclass of flwr.serverapp.strategy.Strategy, and it is {found!r}"
        )
    try:
        check_near_misses(found)
    except ValueError as error:
        raise UserError(f"strategy {name}: {error}") from error
    return found


def rules_of(strategy: Strategy) -> tuple[type[LocalRule], ...]:
    """Return the classes of the client half.

    Raises UserError for one that is not there, or is none; every client would fail by it.
    """
    declaration, rules = declaration_of(strategy), []
    for name in (*declaration.local_rules, *declaration.personal_rules):
        rule = load_object(name, "local rule")
        if not (isinstance(rule, type) and issubclass(rule, LocalRule)):
            raise UserError(
                f"local rule {name!r} must be a subclass of strategies.LocalRule, and it is {rule!r}"
            )
        rules.append(rule)
    return tuple(rules)


def check_methods(strategy: Strategy) -> None:
    """Raise UserError for what Flower would call, or could be thought to call, and polyfed does not."""
    cls = type(strategy)
    if cls.start is not Strategy.start:
        raise UserError(
            f"strategy {cls.__name__} overrides start, which nobody calls: polyfed's own rounds call its "
            "other methods; do it in aggregate_train, or in a callback (docs/callbacks.md)"
        )
    if callable(getattr(strategy, "evaluate_fn", None)):
        raise UserError(
            f"strategy {cls.__name__} has an evaluate_fn, which nobody calls: the task evaluates the model "
            "on the server; name it _evaluate_fn if it is something else, or evaluate in a callback"
        )


def check_weighting(strategy: Strategy, objectives: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raise UserError for a strategy that weights clients by, or computes with, what none of them replies.

    They reply the losses of objectives, and `others`, such as what they tell of parts. Rules may reply
    metrics of any name; those are known once they reply.
    """
    declared, losses = declaration_of(strategy), [*objectives]
    replied = {"num-examples", *losses, *others}
    if declared.personal_rules:
        replied |= {PERSONAL + name for name in losses}
    if declared.received_losses:
        replied |= {RECEIVED + name for name in losses}
    if any(
        rule.close is not LocalRule.close or rule.reply is not LocalRule.reply for rule in rules_of(strategy)
    ):
        return
    uses = {declared.weighted_by: f"weights clients by {declared.weighted_by!r} (weighted_by_key)"}
    uses |= {name: f"computes with {name!r} (one of its options)" for name, *_ in declared.metric_ranges}
    for name, does in uses.items():
        if name not in replied:
            raise UserError(
                f"strategy {type(strategy).__name__} {does}, and none replies it: they reply "
                f"{', '.join(sorted(replied))}"
            )


def check_compression(strategy: Strategy, compression: str) -> None:
    """Raise UserError where compression would undo what clients see to.

    What a client has clipped or noised itself must leave it as it is: error feedback adds to it what earlier
    rounds left out, and rounding may lengthen it.
    """
    if not compression:
        return
    for name in declaration_of(strategy).local_rules:
        rule = load_object(name, "local rule")
        if getattr(rule, "reply", None) is not LocalRule.reply:
            raise UserError(
                f"compression {compression!r} would change what clients of {type(strategy).__name__} have "
                "clipped or noised: leave it out, or let the server clip "
                "(DifferentialPrivacyServerSideFixedClipping)"
            )


def check_engine(strategy: Strategy, name: str, engine: str) -> None:
    """Raise UserError for a personalised strategy whose clients are to train side by side."""
    if declaration_of(strategy).personal_rules and engine == "stacked":
        raise UserError(
            f'engine = "stacked" does not fit strategy {name}, whose clients keep personal models: '
            'set engine = "loop"'
        )


def check_parts(strategy: Strategy, parts: Collection[str], config: ServerConfig, num_clients: int) -> None:
    """Raise UserError for a sum over all clients of which a round brings some, where not all train a part.

    Of a part the round's mean is over those who train it, and how many these are among all clients, and among
    those asked, the strategy does not know.
    """
    adding = [each for each in chain_of(strategy) if declaration_of(each).over_all_clients]
    if parts and adding and cohort_size(config, num_clients) < num_clients:
        raise UserError(
            f"{type(adding[0]).__name__} adds up what all clients have replied in any round, and this task "
            f"has parts that not every client trains ({', '.join(parts)}): let all clients take part "
            "(clients-per-round = 0, fraction-train = 1), or give another strategy"
        )


def check_asynchronous(strategy: Strategy, statistics: Sequence[str]) -> None:
    """Raise UserError for what asynchronous rounds cannot do."""
    for each in chain_of(strategy):
        if not declaration_of(each).asynchronous:
            raise UserError(
                f"strategy {type(each).__name__} does not say that its rounds can be asynchronous "
                "(Declaration.asynchronous): leave out buffer-size, or take a strategy that does, such as "
                "FedAvg, FedProx or FedAdam"
            )
    if declaration_of(strategy).replies_aux:
        raise UserError(
            f"clients of {type(strategy).__name__} reply aux tensors, which belong to the round that they "
            "began in: leave out buffer-size"
        )
    if statistics:
        raise UserError(
            f"asynchronous rounds average no statistics, and the model sends some, such as {statistics[0]}: "
            "set norm = 'group' in task-options, or keep them with the clients by local = ['*running_*']"
        )


def check_statistics(strategy: Strategy, statistics: Sequence[str]) -> None:
    """Raise UserError for statistics under a private strategy: they would leave clients without noise."""
    if statistics and declaration_of(strategy).private:
        raise UserError(
            f"{type(strategy).__name__} clips and noises parameters alone, and the model sends statistics as "
            f"they are, such as {statistics[0]}: set norm = 'group' in task-options, or keep them with the "
            "clients by local = ['*running_*']"
        )


def may_reply_aux(strategy: Strategy) -> bool:
    """Return whether clients may reply aux tensors: a rule's `close` or `reply` adds them."""
    rules = [load_object(name, "local rule") for name in declaration_of(strategy).local_rules]
    adds = [rule.close is not LocalRule.close or rule.reply is not LocalRule.reply for rule in rules]
    return declaration_of(strategy).replies_aux or any(adds)


def check_max_update_norm(strategy: Strategy, statistics: Sequence[str], norm: float) -> None:
    """Raise UserError where clipping updates would leave something else that clients reply unbounded."""
    name = type(strategy).__name__
    if norm and declaration_of(strategy).replies_aux:
        raise UserError(
            f"max-update-norm bounds weights, and clients of {name} reply more beside them: set it to 0, or "
            "take another strategy, such as FedAvg, FedAdam or FedProx"
        )
    if norm and statistics:
        raise UserError(
            f"max-update-norm bounds parameters, and the model sends statistics as they are, such as "
            f"{statistics[0]}: set norm = 'group' in task-options, or keep them with the clients by "
            "local = ['*running_*']"
        )


def tell_what_clients_remember(
    strategy: Strategy, config: TaskConfig, task: Task, model: nn.Module, *, away: bool = False
) -> None:
    """Tell a private strategy that sampling gains nothing, where replies depend on what clients remember.

    Nor does it where clients are `away` at times: a round draws from those that are there alone.
    """
    shared = {*federated_names(model, task).all, *frozen_names(model, task.freeze)}
    own = [name for name in model_state(model) if name not in shared]
    reasons = ["clients are away at times (availability)"] if away else []
    if config.keep_optimizer:
        reasons.append("clients remember their optimizers (keep-optimizer)")
    if own:
        reasons.append(f"clients remember {own[0]}" + f" and {len(own) - 1} more" * (len(own) > 1))
    if config.compression and CODECS[config.compression].feeds_back:
        reasons.append(f"clients remember what compression left out ({config.compression})")
    outer: Strategy | None = strategy
    while reasons and outer:
        if isinstance(outer, CentralDP):
            outer.forgo_sampling(reasons[0])
        outer = getattr(outer, WRAPPED, None)


def check_memory(strategy: Strategy) -> None:
    """Raise UserError for what the strategy remembers and no checkpoint can hold."""
    try:
        capture(strategy)
    except NotSavedError as error:
        raise UserError(f"{error}; or set checkpoint-every = 0") from error


def check_optimizers(strategy: Strategy, optimizers: Iterable[Optimizer]) -> None:
    """Raise UserError for an optimizer that the strategy's theory does not hold for, if it has a say."""
    check = declaration_of(strategy).check_optimizer
    if check is None:
        return
    try:
        for optimizer in optimizers:
            check(optimizer)
    except ValueError as error:
        raise UserError(str(error)) from error
