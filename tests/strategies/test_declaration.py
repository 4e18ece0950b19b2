"""What a strategy declares: what subclasses take over, and what is not left to be read by nobody."""

from typing import Any

import pytest
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, Krum

from models.core.errors import UserError
from server.config import ServerConfig
from server.strategy import load_strategy
from strategies.algorithms.ditto import Ditto
from strategies.algorithms.scaffold import Scaffold
from strategies.conformance import checks
from strategies.declaration import Declaration, declaration_of
from strategies.near_misses import check_near_misses

RULE = "strategies.algorithms.fedprox:Proximal"


class Declared(FedAvg):
    declaration = Declaration(local_rules=(RULE,), weighted_mean=True, weighted_by="rows", not_kept=("log",))


class Heir(Declared):
    """Takes the declaration over, and might look at single replies."""


class Again(Declared):
    declaration = Declared.declaration


def test_flowers_classes_are_known_and_others_start_from_nothing() -> None:
    assert declaration_of(FedAdam()).weighted_mean
    for strategy in (FedMedian(), Krum(), type("Other", (FedAvg,), {})()):
        assert not declaration_of(strategy).weighted_mean
    assert declaration_of(FedAvg(weighted_by_key="rows")).weighted_by == "rows"
    assert declaration_of(FedAvg()).local_rules == ()


def test_a_subclass_takes_over_all_but_that_the_mean_is_enough() -> None:
    own, heir, again = (declaration_of(cls()) for cls in (Declared, Heir, Again))
    assert (own.local_rules, own.weighted_mean, own.weighted_by) == ((RULE,), True, "rows")
    assert (heir.local_rules, heir.weighted_mean, heir.weighted_by) == ((RULE,), False, "rows")
    assert again == own
    assert not declaration_of(type("Heir", (Scaffold,), {})(num_clients=3)).weighted_mean


def test_a_declaration_may_depend_on_options() -> None:
    assert declaration_of(Scaffold(num_clients=3)).check_optimizer is not None
    assert declaration_of(Scaffold(num_clients=3, any_optimizer=True)).check_optimizer is None


def test_a_strategy_around_another_adds_rules_and_keeps_its_own_attributes() -> None:
    around = declaration_of(Declared()).around("module:Class")
    assert (around.local_rules, around.not_kept) == ((RULE, "module:Class"), ())
    assert declaration_of(Ditto()).around().personal_rules == (RULE,)


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"local_rules": "a:B"}, TypeError, r"local_rules must be a tuple of names, such as .*got 'a:B'"),
        ({"not_kept": ["log"]}, TypeError, "not_kept must be a tuple of names"),
        ({"local_rules": ("a:B+c:D",)}, ValueError, 'a rule must be named as "module:Class", got'),
        ({"personal_rules": ("Proximal",)}, ValueError, "a rule must be named as"),
        ({"localrules": ()}, TypeError, "localrules"),
    ],
)
def test_what_cannot_be_declared(fields: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Declaration(**fields)


def test_a_declaration_that_is_none_is_refused() -> None:
    class Method(FedAvg):
        def declaration(self) -> Declaration:
            return Declaration()

    with pytest.raises(TypeError, match="or a property that returns one, got <bound method"):
        declaration_of(Method())


def test_a_fault_in_a_declaration_is_raised_and_not_taken_for_none() -> None:
    class Misspelled(FedAvg):
        rule = "a:B"

        @property
        def declaration(self) -> Declaration:
            return Declaration(local_rules=(self.rul,))  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="has no attribute 'rul'"):
        declaration_of(Misspelled())


NEAR_MISSES = {
    "local_rule": ("a:B", "Declaration(local_rules=('a:B',))"),
    "localrule": ("a:B+c:D", "Declaration(local_rules=('a:B', 'c:D'))"),
    "local_rules": (("a:B",), "Declaration(local_rules=('a:B',))"),
    "LocalRule": (object, "Declaration(local_rules=('module:Class',))"),
    "personal_rule": ("a:B", "Declaration(personal_rules=('a:B',))"),
    "declaraton": (Declaration(), "declaration = Declaration(...)"),
    "weighted_mean": (True, "Declaration(weighted_mean=True)"),
    "weighted_by": ("rows", "Declaration(weighted_by='rows')"),
    "weighted_by_key": ("rows", "Declaration(weighted_by='rows')"),
    "replies_beside": (True, "Declaration(replies_aux=True)"),
    "check_optimiser": (print, "Declaration(check_optimizer=FUNCTION)"),
    "notkept": ("log", "Declaration(not_kept=('log',))"),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_a_near_miss_is_an_error_that_says_what_to_write(name: str) -> None:
    value, instead = NEAR_MISSES[name]
    plugin = type("Plugin", (FedAvg,), {name: value})
    for refused in (plugin, type("Heir", (plugin,), {})):
        with pytest.raises(ValueError, match=f"{refused.__name__}.{name} is read by nobody: write ") as error:
            check_near_misses(refused)
        assert instead in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="is read by nobody"):
        checks(plugin)


@pytest.mark.parametrize(
    "name", ["declaration", "_local_rule", "local_rate", "weighted_mean_metrics", "rounds", "kept"]
)
def test_what_is_something_else_is_left_alone(name: str) -> None:
    check_near_misses(type("Plugin", (FedAvg,), {name: Declaration()}))


class OldStyle(FedAvg):
    local_rule = "test_declaration:Halving"


class SetsItself(FedAvg):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.localrule = "a:B"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "OldStyle",
            "strategy test_declaration:OldStyle: OldStyle.local_rule is read by nobody: write declaration = "
            "Declaration(local_rules=('test_declaration:Halving',)) in the class, or name it _local_rule "
            "if it is something else",
        ),
        (
            "SetsItself",
            "strategy test_declaration:SetsItself: SetsItself.localrule is read by nobody: ",
        ),
    ],
)
def test_a_run_of_an_older_plugin_is_refused_before_it_starts(name: str, message: str) -> None:
    for inner in (False, True):
        plugin = f"test_declaration:{name}"
        options = f"clipping_norm = 1.0, noise_multiplier = 1.0, strategy = '{plugin}'"
        config = (
            ServerConfig(strategy="LocalDP", strategy_options=options)
            if inner
            else ServerConfig(strategy=plugin)
        )
        with pytest.raises(UserError) as error:
            load_strategy(config, 3)
        assert str(error.value).startswith(message)


def test_the_strategies_here_define_nothing_that_is_nearly_a_declaration() -> None:
    from strategies.registry import STRATEGIES

    for cls in STRATEGIES.values():
        check_near_misses(cls)


class Misreads(FedAvg):
    @property
    def declaration(self) -> Declaration:
        return Declaration(local_rules=(self.rul,))  # type: ignore[attr-defined]


def test_a_declaration_that_cannot_be_read_is_not_taken_for_none() -> None:
    with pytest.raises(AttributeError, match="rul"):
        declaration_of(Misreads())


class NoSuchRule(FedAvg):
    declaration = Declaration(local_rules=("strategies.algorithms.fedprox:Proximall",))


class NoPersonalRule(FedAvg):
    declaration = Declaration(personal_rules=("os:path",))


@pytest.mark.parametrize(
    ("name", "message"),
    [("NoSuchRule", "has no attribute 'Proximall'"), ("NoPersonalRule", "must be a subclass of")],
)
def test_a_rule_that_is_not_there_is_refused_before_the_run(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"local rule .* {message}"):
        load_strategy(ServerConfig(strategy=f"{__name__}:{name}"), num_clients=2)
