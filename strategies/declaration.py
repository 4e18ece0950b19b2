"""What a strategy needs beyond Flower's methods, declared in one place.

A strategy states it as the attribute `declaration`, in its class body or, where it depends on options, as a
property. One that states nothing is run as Flower would run it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

if TYPE_CHECKING:
    from torch.optim import Optimizer

WEIGHTED_MEANS = frozenset(
    {flower.FedAdagrad, flower.FedAdam, flower.FedAvg, flower.FedAvgM, flower.FedProx, flower.FedYogi}
)
"""Flower's classes that read nothing of the replies but their weighted mean; not their subclasses."""
ASYNCHRONOUS = WEIGHTED_MEANS | {flower.FedMedian, flower.FedTrimmedAvg}
"""Flower's classes that combine a round's replies by themselves, whichever clients they are of."""
NOT_KEPT: dict[type, tuple[str, ...]] = {
    flower.FedAvg: ("train_metrics_aggr_fn", "evaluate_metrics_aggr_fn"),
    flower.Bulyan: ("selection_rule",),
}
"""Functions that Flower's constructors set; their subclasses have them too."""


@dataclass(frozen=True)
class Declaration:
    """What polyfed must know of a strategy; each field left out means that Flower's methods say it all."""

    local_rules: tuple[str, ...] = ()
    """Client halves, subclasses of `LocalRule`, as "module:Class"; they act one after another."""
    personal_rules: tuple[str, ...] = ()
    """Client halves under which every client trains a model of its own, beside the shared one."""
    weighted_mean: bool = False
    """Whether the weighted mean of the replies is enough, so that nodes may send it instead of each reply.

    It holds for the class whose body states it: a subclass may look at single replies, and says so anew.
    """
    weighted_by: str = ""
    """Metric that the mean is weighted by; "" takes `weighted_by_key`, as subclasses of FedAvg have it."""
    asynchronous: bool = False
    """Whether it can combine updates that began with older models than the newest, as FedBuff does: they come
    applied to the newest, and scaled down. It holds for the class whose body states it."""
    replies_aux: bool = False
    """Whether clients reply aux tensors beside the weights."""
    received_losses: bool = False
    """Whether clients also tell their losses at the weights that they receive, as metrics "received-NAME"."""
    metric_ranges: tuple[tuple[str, float, float], ...] = ()
    """Metrics that every client must tell, with the least and the most that each may be: one that tells
    something else has failed. For numbers that the strategy computes with."""
    over_all_clients: bool = False
    """Whether it keeps, from round to round, a sum or mean of what all clients have last replied."""
    withstands: int | None = None
    """How many attackers among a round's clients it is made for; None is that it says nothing of them."""
    check_optimizer: "Callable[[Optimizer], None] | None" = None
    """Raises ValueError for an optimizer that the strategy's theory does not hold for."""
    private: bool = False
    """Whether it promises privacy for all that leaves a client, so that no statistics may go beside it."""
    remarks: tuple[str, ...] = ()
    """What a reader of the result must know, such as that its noise does not repeat: a line each."""
    not_kept: tuple[str, ...] = ()
    """Attributes that checkpoints leave out: a resumed run has them as the constructor sets them."""

    def __post_init__(self) -> None:
        """Raise TypeError for names that are no tuple, and ValueError for rules that are not written so."""
        for field in ("local_rules", "personal_rules", "remarks", "not_kept"):
            names = vars(self)[field]
            if not (isinstance(names, tuple) and all(isinstance(name, str) for name in names)):
                raise TypeError(f'{field} must be a tuple of names, such as ("name",), got {names!r}')
        for rule in (*self.local_rules, *self.personal_rules):
            if rule.count(":") != 1 or "+" in rule:
                raise ValueError(f'a rule must be named as "module:Class", got {rule!r}')

    def around(self, *local_rules: str) -> "Declaration":
        """Return that of a strategy around this one, which adds local rules after those of this one."""
        return replace(self, local_rules=self.local_rules + local_rules, not_kept=())


def weight_keys(strategy: Strategy) -> set[str]:
    """Return the metrics by which a strategy, and those that it is made around, weight what clients reply."""
    keys, found = set[str](), [strategy]
    for each in found:
        keys.add(declaration_of(each).weighted_by)
        if isinstance(each, FedAvg):
            keys.add(each.weighted_by_key)
        # By identity: a strategy may compare equal to another, and may know whoever is around it.
        inner = [value for value in vars(each).values() if isinstance(value, Strategy)]
        found += [value for value in inner if not any(value is known for known in found)]
    return keys


def declaration_of(strategy: Strategy) -> Declaration:
    """Return what a strategy declares, with `weighted_by` filled in; of one that states nothing, the default.

    Raises TypeError for a `declaration` that is none, and what a property raises that should return one.
    """
    cls = type(strategy)
    # Not getattr with a default, to which a property that raises AttributeError would state nothing.
    states = "declaration" in vars(strategy) or any("declaration" in vars(base) for base in cls.__mro__)
    default = Declaration(weighted_mean=cls in WEIGHTED_MEANS, asynchronous=cls in ASYNCHRONOUS)
    stated = strategy.declaration if states else default  # type: ignore[attr-defined]
    if not isinstance(stated, Declaration):
        raise TypeError(
            f"{cls.__name__}.declaration must be a strategies.Declaration, or a property that returns one, "
            f"got {stated!r}"
        )
    by = stated.weighted_by or (strategy.weighted_by_key if isinstance(strategy, FedAvg) else "num-examples")
    by_itself = (cls in WEIGHTED_MEANS or "declaration" in vars(cls)) and not _aggregates_losses(strategy)
    asynchronous = stated.asynchronous and (cls in ASYNCHRONOUS or "declaration" in vars(cls))
    not_kept = {*stated.not_kept, *(name for base in cls.__mro__ for name in NOT_KEPT.get(base, ()))}
    return replace(
        stated,
        weighted_mean=stated.weighted_mean and by_itself,
        asynchronous=asynchronous,
        weighted_by=by,
        not_kept=tuple(sorted(not_kept)),
    )


def chain_of(strategy: Strategy) -> Iterator[Strategy]:
    """Yield a strategy, the one within it, and so on."""
    yield strategy
    if isinstance(within := vars(strategy).get("strategy"), Strategy):
        yield from chain_of(within)


def aggregates_evaluation(strategy: Strategy) -> bool:
    """Whether a strategy, or the one within it, makes something of its own of what clients evaluated."""
    *_, strategy = chain_of(strategy)
    if type(strategy).aggregate_evaluate is not FedAvg.aggregate_evaluate:
        return True
    return getattr(strategy, "evaluate_metrics_aggr_fn", None) is not aggregate_metricrecords


def _aggregates_losses(strategy: Strategy) -> bool:
    """Whether a strategy wants to see every client's losses, which no mean of them can stand for."""
    own = vars(strategy).get("train_metrics_aggr_fn", aggregate_metricrecords)
    return isinstance(strategy, FedAvg) and own is not aggregate_metricrecords
