"""From the run config to a strategy: how many it samples, which options it takes, what it says if not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error
from flwr.serverapp.strategy import FedAvg
from required_options import REQUIRED
from scripted_grid import ScriptedGrid

from models.core.config import Value
from models.core.errors import UserError
from server.config import ServerConfig
from server.strategy import cohort_size, load_strategy
from simulations.runtime.in_process import run_in_process
from strategies.algorithms.fedprox import FedProx
from strategies.declaration import WEIGHTED_MEANS, Declaration, declaration_of
from strategies.registry import STRATEGIES
from strategies.rule import LocalRule

SAMPLING = STRATEGIES.keys() - {"LocalOnly"}  # it asks one client, whatever the cohort


class Forwarding(FedAvg):
    """Passes on what it does not know, as most third-party strategies do."""

    def __init__(self, mu: float = 0.0, **others: Any) -> None:
        super().__init__(**others)
        self.mu = mu


class Picky(FedAvg):
    """Sets the cohort by itself, and takes no sampling parameters."""

    def __init__(self, size: int = 1) -> None:
        super().__init__(fraction_train=0.5)
        if size < 1:
            raise ValueError(f"size must be >= 1, got {size}")


class SingleUpdates(FedProx):
    """Looks at every update, though its parent needs only their mean."""


class Faulty(FedAvg):
    """Has a mistake in its code, which no option can mend."""

    def __init__(self, **others: Any) -> None:
        super().__init__(**others)
        len(3)  # type: ignore[arg-type]


def asked(strategy: Any, num_clients: int, evaluate: bool = False) -> list[int]:
    """Return the clients that the strategy asks in a round."""
    grid = ScriptedGrid({client: lambda _: Error(0) for client in range(num_clients)})
    configure = strategy.configure_evaluate if evaluate else strategy.configure_train
    messages = list(configure(1, ArrayRecord(), ConfigRecord(), grid))
    return [message.metadata.dst_node_id for message in messages]


@pytest.mark.parametrize("name", sorted(SAMPLING))
def test_a_cohort_of_k_is_exactly_k(name: str) -> None:
    for num_clients in (1, 2, 3, 7, 10, 29, 49, 100):
        for size in {1, 2, num_clients // 3, num_clients - 1, num_clients} - {0}:
            if size > num_clients:
                continue
            config = ServerConfig(
                strategy=name, strategy_options=REQUIRED.get(name, ""), clients_per_round=size
            )
            clients = asked(load_strategy(config, num_clients), num_clients)
            assert len(set(clients)) == len(clients) == size, (num_clients, size)


@pytest.mark.slow
def test_every_cohort_of_every_federation_is_exact() -> None:
    """Flower cuts fraction * n down, and 49 * (k / 49) may fall short of k."""
    for num_clients in range(1, 121):
        for size in range(1, num_clients + 1):
            strategy: Any = load_strategy(ServerConfig(clients_per_round=size), num_clients)
            fraction = int(num_clients * strategy.fraction_train)
            assert max(fraction, strategy.min_train_nodes) == size
            assert strategy.min_available_nodes == size


@pytest.mark.parametrize(
    ("fraction", "num_clients", "size"),
    [(1.0, 7, 7), (0.5, 10, 5), (0.1, 3, 1), (0.01, 10, 1), (0.3, 10, 3), (0.29, 100, 29), (0.58, 100, 58)],
)
def test_a_fraction_is_rounded_but_never_to_nobody(fraction: float, num_clients: int, size: int) -> None:
    config = ServerConfig(fraction_train=fraction, fraction_evaluate=fraction)
    assert cohort_size(config, num_clients) == size
    strategy = load_strategy(config, num_clients)
    assert len(asked(strategy, num_clients)) == size
    assert len(asked(strategy, num_clients, evaluate=True)) == size


def test_nobody_evaluates_unless_asked_to() -> None:
    assert asked(load_strategy(ServerConfig(), 5), 5, evaluate=True) == []


def test_clients_per_round_wins_over_the_fraction() -> None:
    assert cohort_size(ServerConfig(clients_per_round=2, fraction_train=0.5), 10) == 2


def test_a_strategy_that_forwards_its_parameters_samples_as_told() -> None:
    config = ServerConfig(
        strategy="test_strategy_loading:Forwarding", strategy_options="mu = 0.5", clients_per_round=3
    )
    strategy = load_strategy(config, 10)
    assert strategy.mu == 0.5  # type: ignore[attr-defined]
    assert len(asked(strategy, 10)) == 3
    assert asked(strategy, 10, evaluate=True) == []


def test_a_strategy_that_takes_no_sampling_parameters_samples_by_itself() -> None:
    strategy = load_strategy(ServerConfig(strategy="test_strategy_loading:Picky"), 10)
    assert len(asked(strategy, 10)) == 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("FedAvgg", "", "unknown strategy 'FedAvgg': did you mean FedAvg"),
        ("fedavg", "", "unknown strategy 'fedavg': did you mean FedAvg"),
        ("zzz", "", "unknown strategy 'zzz': known are Bulyan, DifferentialPrivacyClientSide"),
        (
            "FedProx",
            "proximal_nu = 1",
            "strategy FedProx needs the option 'proximal_mu': set it",
        ),
        ("FedAvg", "min_train_nodes = 3", "unknown option of strategy FedAvg 'min_train_nodes': "),
        (
            "FedAvg",
            "evaluate_metrics_aggr_fn = 'text'",
            "option 'evaluate_metrics_aggr_fn' of strategy FedAvg is a function, which no text can give",
        ),
        (
            "FedProx",
            "proximal_mu = 1.0, train_metrics_aggr_fn = 'text'",
            "option 'train_metrics_aggr_fn' of strategy FedProx is a function, which no text can give",
        ),
        ("FedProx", "proximal_mu: 1", "strategy-options must be inline TOML such as"),
        (
            "FedTrimmedAvg",
            "beta = 0.7",
            "strategy-options do not fit FedTrimmedAvg: `beta` must be in the range",
        ),
        ("FedAdam", "ata = 1", "unknown option of strategy FedAdam 'ata': did you mean "),
        ("FedAdam", "eta = 'fast'", "eta must be a number, got 'fast'"),
        ("Scaffold", "server_learning_rate = 'fast'", "server_learning_rate must be a number, got 'fast'"),
        ("MultiKrum", "", "strategy MultiKrum needs the option 'num_malicious_nodes': set it"),
        (
            "test_strategy_loading:Picky",
            "size = 0",
            "strategy-options do not fit test_strategy_loading:Picky: size",
        ),
        ("nowhere:X", "", "strategy 'nowhere:X' cannot be imported: No module named 'nowhere'"),
        ("json:loads", "", "strategy 'json:loads' must be a subclass of flwr.serverapp.strategy.Strategy"),
        ("json:JSONDecoder", "", "strategy 'json:JSONDecoder' must be a subclass of "),
    ],
)
def test_a_strategy_that_cannot_be_made(name: str, options: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_strategy(ServerConfig(strategy=name, strategy_options=options), 10)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_option_that_is_passed_on_and_not_taken() -> None:
    config = ServerConfig(strategy="test_strategy_loading:Forwarding", strategy_options="nu = 1")
    with pytest.raises(UserError, match=r"unknown option of strategy .*:Forwarding 'nu': known are .* mu, "):
        load_strategy(config, 10)


def test_a_fault_in_a_strategys_code_shows_itself() -> None:
    with pytest.raises(TypeError, match="has no len"):
        load_strategy(ServerConfig(strategy="test_strategy_loading:Faulty"), 10)


def test_a_fault_in_a_modules_code_shows_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugin.py").write_text("int('x')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="invalid literal") as error:
        load_strategy(ServerConfig(strategy="broken_plugin:Mine"), 10)
    assert not isinstance(error.value, UserError)


def test_the_nearest_name_is_given_as_it_is_written() -> None:
    with pytest.raises(UserError) as error:
        load_strategy(ServerConfig(strategy="KRUM"), 10)
    assert str(error.value) == "unknown strategy 'KRUM': did you mean Krum or MultiKrum?"


def test_more_clients_than_there_are() -> None:
    with pytest.raises(UserError) as error:
        load_strategy(ServerConfig(clients_per_round=11), 10)
    assert str(error.value) == "clients-per-round must be at most num-clients (10), got 11"


def test_only_classes_that_say_so_themselves_get_a_mean() -> None:
    assert {name for name in STRATEGIES if takes_weighted_mean(load_strategy_by(name))} == {
        "DifferentialPrivacyClientSideAdaptiveClipping", "DifferentialPrivacyClientSideFixedClipping",
        "Ditto", "FedAdagrad", "FedAdam", "FedAvg", "FedAvgM", "FedDyn", "FedNova", "FedProx", "FedYogi",
        "LocalDP", "Scaffold"
    }  # fmt: skip
    assert takes_weighted_mean(FedProx(0.1))
    assert not takes_weighted_mean(SingleUpdates(0.1))
    assert not takes_weighted_mean(Forwarding())
    assert FedProx not in WEIGHTED_MEANS


@pytest.mark.parametrize(
    ("client", "allowed"),
    [("-1", "a client's number, from 0 on"), ("true", "a whole number"), ("'all'", "a whole number")],
)
def test_a_client_by_itself_has_a_number(client: str, allowed: str) -> None:
    config = ServerConfig(strategy="LocalOnly", strategy_options=f"client = {client}")
    with pytest.raises(UserError, match=f"client must be {allowed}, got"):
        load_strategy(config, 3)


def test_a_client_by_itself_is_there() -> None:
    config = ServerConfig(strategy="LocalOnly", strategy_options="client = 3")
    with pytest.raises(
        UserError, match=r"^strategy-options do not fit LocalOnly: client must be below num-cl"
    ):
        load_strategy(config, 3)
    strategy = load_strategy(config, 4)
    with pytest.raises(ValueError, match="client 3 is not among the 3 connected clients: set `client`"):
        asked(strategy, 3)


def takes_weighted_mean(strategy: Any) -> bool:
    return declaration_of(strategy).weighted_mean


def load_strategy_by(name: str) -> Any:
    return load_strategy(ServerConfig(strategy=name, strategy_options=REQUIRED.get(name, "")), 3)


class LoudProximal(LocalRule):
    """A local rule that tells what it was given."""

    seen: Sequence[object] = ()

    def __init__(self, config: Any) -> None:
        type(self).seen = [config["proximal-mu"], config["server-round"]]


class WithARule(FedProx):
    """Brings a client half of its own."""

    declaration = Declaration(local_rules=("test_strategy_loading:LoudProximal",))


def test_the_local_rule_travels_with_the_strategys_words(
    tiny: Callable[..., dict[str, Value]], tmp_path: Path
) -> None:
    options = {"strategy": "test_strategy_loading:WithARule", "strategy_options": "proximal_mu = 0.25"}
    run_in_process(tiny(num_clients=2, num_server_rounds=1, **options))
    import test_strategy_loading as imported

    assert imported.LoudProximal.seen == [0.25, 1]
