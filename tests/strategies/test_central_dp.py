"""Central DP: what is clipped, what the strategy gets to see, what is refused, and that it repeats."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest
import torch
from finished import result_of
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from scripted_grid import ScriptedGrid
from test_accountant import counted

from models.core.config import Value
from models.core.errors import UserError
from server.config import ServerConfig
from server.strategy import load_strategy
from simulations.runtime.in_process import run_in_process
from strategies.declaration import Declaration, declaration_of
from strategies.memory import restore
from strategies.privacy.clipping import clip

Make = Callable[..., dict[str, Value]]
ON_SERVER, ON_CLIENTS = (f"DifferentialPrivacy{side}SideFixedClipping" for side in ("Server", "Client"))
ADAPTIVE_ON_SERVER, ADAPTIVE_ON_CLIENTS = (
    f"DifferentialPrivacy{side}SideAdaptiveClipping" for side in ("Server", "Client")
)
FIXED, REPEATABLE = "clipping_norm = 1.0, noise_multiplier = 1.0", "noise = 'repeatable'"
ALL = [ON_SERVER, ON_CLIENTS, ADAPTIVE_ON_SERVER, ADAPTIVE_ON_CLIENTS]


def test_clipping_by_hand() -> None:
    received = {"a": np.array([1.0, 1.0], np.float32), "b": np.array([0.0], np.float32)}
    arrays = {"a": np.array([4.0, 1.0], np.float32), "b": np.array([4.0], np.float32)}
    clipped, shortened = clip(arrays, received, 2.5)  # an update (3, 0, 4), of length 5: by half
    assert shortened
    assert clipped["a"].tolist() == [2.5, 1.0]
    assert clipped["b"].tolist() == [2.0]
    assert clipped["a"].dtype == np.float32


@pytest.mark.parametrize("norm", [5.0, 6.0])
def test_a_short_update_keeps_every_bit(norm: float) -> None:
    arrays = {"a": np.array([3.0, 4.0], np.float32)}
    kept, shortened = clip(arrays, {"a": np.zeros(2, np.float32)}, norm)
    assert kept is arrays
    assert not shortened


def test_no_update_at_all_is_short() -> None:
    same = {"a": np.ones(2, np.float32)}
    assert clip(same, same, 1.0) == (same, False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_none(value: float) -> None:
    received = {"a": np.ones(2, np.float32)}
    clipped, shortened = clip({"a": np.array([value, 5.0], np.float32)}, received, 1.0)
    assert shortened
    assert clipped["a"].tolist() == [1.0, 1.0]


def strategy_of(name: str, options: str, num_clients: int = 4, **config: Any) -> Any:
    return load_strategy(ServerConfig(strategy=name, strategy_options=options, **config), num_clients)


def one_round(
    strategy: Any, values: Sequence[float | None], examples: Sequence[int] = (1, 1, 1, 1)
) -> tuple[float, dict[str, Any]]:
    """Return the weight after a round from 0, in which clients came to these values, None of them failed."""
    grid = ScriptedGrid({client: lambda _: None for client in range(len(values))})
    start = ArrayRecord({"w": Array(np.zeros((), np.float32))})
    messages = strategy.configure_train(1, start, ConfigRecord({"server-round": 1}), grid)
    replies = []
    for message in messages:
        client = message.metadata.dst_node_id
        value = values[client]
        if value is None:
            replies.append(Message(Error(0), reply_to=message))
            continue
        arrays = ArrayRecord({"w": Array(np.array(value, np.float32))})
        metrics = MetricRecord({"num-examples": examples[client], "loss": float(client)})
        replies.append(Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message))
    new, told = strategy.aggregate_train(1, replies)
    return float(new["w"].numpy()), dict(told)


def test_clipped_updates_count_alike_whatever_their_examples() -> None:
    strategy = strategy_of(ON_SERVER, "clipping_norm = 1.0, noise_multiplier = 0.0")
    weight, told = one_round(strategy, [0.5, -0.5, 3.0, 0.0], examples=[1, 1, 1000, 1])
    assert weight == 0.25  # (0.5 - 0.5 + 1 + 0) / 4
    assert told == {"loss": 1.5, "clipped": 0.25, "clipping-norm": 1.0}


def test_a_client_that_fails_has_not_moved() -> None:
    strategy = strategy_of(ON_SERVER, "clipping_norm = 1.0, noise_multiplier = 0.0")
    assert one_round(strategy, [1.0, None, None, 1.0])[0] == 0.5


def test_the_noise_is_that_of_the_mean() -> None:
    strategy = strategy_of(ON_SERVER, f"clipping_norm = 0.5, noise_multiplier = 3.0, {REPEATABLE}")
    np.random.seed(0)
    drawn = [one_round(strategy, [0.25] * 4)[0] - 0.25 for _ in range(400)]
    assert np.std(drawn) == pytest.approx(3.0 * 0.5 / 4, rel=0.1)
    assert abs(np.mean(drawn)) < 3 * 3.0 * 0.5 / 4 / 20
    np.random.seed(0)
    assert one_round(strategy, [0.25] * 4)[0] - 0.25 == drawn[0]


@pytest.mark.rounding
def test_the_strategy_sees_what_is_private_and_nothing_else() -> None:
    """Noise after FedAdam's step would not cover it: it divides by what the updates themselves were."""
    inner = "strategy = {name = 'FedAdam', eta = 0.25, tau = 1e-9}"
    options = f"clipping_norm = 1.0, noise_multiplier = 2.0, {REPEATABLE}, {inner}"
    strategy = strategy_of(ON_SERVER, options)
    np.random.seed(1)
    weight, _ = one_round(strategy, [0.0] * 4)
    np.random.seed(1)
    key = np.random.SeedSequence(int.from_bytes(np.random.bytes(16), "little"))
    sign = np.sign(np.random.Generator(np.random.Philox(key)).standard_normal())
    # Adam's first step goes as far for pure noise as for any update; Flower corrects its bias a round ahead.
    step = 0.25 * np.sqrt(1 - 0.99**2) / (1 - 0.9**2)
    assert weight == pytest.approx(step * sign, rel=1e-6)


def test_the_norm_moves_towards_the_quantile() -> None:
    options = (
        "initial_clipping_norm = 1.0, target_clipped_quantile = 0.5, clip_norm_lr = 0.2, noise_multiplier = 0"
    )
    strategy = strategy_of(ADAPTIVE_ON_SERVER, options)
    assert one_round(strategy, [3.0, 3.0, 3.0, 0.5])[1]["clipping-norm"] == 1.0
    assert strategy.clipping_norm == pytest.approx(np.exp(0.2 * 0.25))  # 3/4 clipped: it grows
    strategy = strategy_of(ADAPTIVE_ON_SERVER, options)
    one_round(strategy, [0.5, 0.5, 0.5, 0.5])
    assert strategy.clipping_norm == pytest.approx(np.exp(-0.2 * 0.5))
    strategy = strategy_of(ADAPTIVE_ON_SERVER, options)
    one_round(strategy, [3.0, None, None, None])  # one clipped, three unknown: 1/2 + 1/8
    assert strategy.clipping_norm == pytest.approx(np.exp(0.2 * 0.125))


def test_a_norm_that_adapts_costs_what_both_its_releases_cost() -> None:
    strategy = strategy_of(
        ADAPTIVE_ON_SERVER, "noise_multiplier = 2.0, clipped_count_stddev = 1.25, delta = 1e-3"
    )
    _, told = one_round(strategy, [0.0] * 4)
    # The count moves by one when a client is replaced, the sum of updates by two norms.
    count, updates = dp.GaussianDpEvent(1.25), dp.GaussianDpEvent(strategy.update_noise / 2)
    assert told["epsilon"] == pytest.approx(counted(count, updates, delta=1e-3), rel=1e-9)
    assert strategy.update_noise > 2.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (ON_SERVER, "clipping_norm = 1.0", "give noise_multiplier or target_epsilon, one of the two"),
        (ON_SERVER, "clipping_norm = 1.0, noise_multiplier = 1.0, target_epsilon = 1.0", "give noise_mult"),
        (ON_SERVER, "noise_multiplier = 1.0", "needs the option 'clipping_norm': set it"),
        (ON_SERVER, "clipping_norm = 0.0, noise_multiplier = 1.0", "clipping norm must be > 0 and finite"),
        (ON_SERVER, "clipping_norm = 1.0, noise_multiplier = -1.0", "noise_multiplier must be > 0 and fin"),
        (ON_SERVER, "clipping_norm = 1.0, noise_multiplier = '1'", "noise_multiplier must be a number, got"),
        (ON_SERVER, "clipping_norm = 1.0, target_epsilon = 0.0", "target_epsilon must be > 0 and finite"),
        (ON_SERVER, "clipping_norm = 1.0, noise_multiplier = 1.0, delta = 1.0", "delta must be > 0 and < 1"),
        (ON_SERVER, "clipping_norm = 1.0, sigma = 1.0", "unknown option of strategy Differential.*'sigma'"),
        (ON_SERVER, f"{FIXED}, noise = 'none'", "noise must be one of secret, discrete, repeatable, got 'no"),
        (ON_SERVER, "num_sampled_clients = 3", "unknown option of strategy .*'num_sampled_clients'"),
        (ON_SERVER, "strategy = 3", "the option strategy must be a name, or a table such as"),
        (ON_SERVER, "strategy = {eta = 0.1}", "the option strategy must be a name, or a table such as"),
        (ON_SERVER, "strategy = 'FedAdm'", "unknown strategy 'FedAdm': did you mean FedAdam"),
        (ON_SERVER, "strategy = {name = 'FedAdam', ata = 1}", "unknown option of strategy FedAdam 'ata'"),
        (ADAPTIVE_ON_SERVER, "noise_multiplier = 1.0", "clipped_count_stddev must be > .* got 0.2"),
        (ADAPTIVE_ON_SERVER, "noise_multiplier = 0.1, target_clipped_quantile = 2.0", "must be in .0, 1."),
        (ADAPTIVE_ON_SERVER, "noise_multiplier = 0.1, clip_norm_lr = 0.0", "clip_norm_lr must be > 0, got 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_made(name: str, options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        strategy_of(name, options)


@pytest.mark.parametrize(
    "inner",
    ["{name = 'Krum', num_malicious_nodes = 0}", "FedMedian", "{name = 'LocalOnly', client = 0}", ON_CLIENTS],
)
def test_a_strategy_of_more_than_the_mean_is_refused(inner: str) -> None:
    private = "clipping_norm = 1.0, noise_multiplier = 1.0"
    named = f"'{inner}'" if inner[0] != "{" else inner
    if inner == ON_CLIENTS:
        named = f"{{name = '{inner}', {private}}}"
    with pytest.raises(UserError, match="needs more than the mean of the updates, which alone is private"):
        strategy_of(ON_SERVER, f"{private}, strategy = {named}")


@pytest.mark.parametrize("inner", ["Scaffold", "FedNova"])
def test_a_strategy_whose_clients_reply_more_than_weights_is_refused(inner: str) -> None:
    with pytest.raises(UserError, match=f"clients of {inner} reply more than weights"):
        strategy_of(ON_CLIENTS, f"clipping_norm = 1.0, noise_multiplier = 1.0, strategy = '{inner}'")


class Gathers(FedAvg):
    """Sees to the mean alone, but asks one client."""

    declaration = Declaration(weighted_mean=True)

    def configure_train(self, *args: Any) -> list[Message]:
        return list(super().configure_train(*args))[:1]


def test_a_cohort_that_the_noise_is_not_made_for_is_refused() -> None:
    inner = "clipping_norm = 1.0, noise_multiplier = 1.0, strategy = 'test_central_dp:Gathers'"
    with pytest.raises(ValueError, match="made for 4 clients a round, and Gathers asked 1"):
        one_round(strategy_of(ON_SERVER, inner), [0.0] * 4)


def test_a_round_beyond_the_target_is_not_begun() -> None:
    strategy = strategy_of(ON_SERVER, "clipping_norm = 1.0, target_epsilon = 3.0", num_server_rounds=2)
    costs = [one_round(strategy, [0.0] * 4)[1]["epsilon"] for _ in range(2)]
    assert costs[0] < 2.9 < costs[1] <= 3.0
    with pytest.raises(ValueError, match="beyond target_epsilon"):
        one_round(strategy, [0.0] * 4)


def test_a_client_that_does_not_clip_is_found_out() -> None:
    strategy = strategy_of(ON_CLIENTS, "clipping_norm = 1.0, noise_multiplier = 1.0")
    with pytest.raises(ValueError, match="a client replied without clipping"):
        one_round(strategy, [0.0] * 4)


def test_the_wrapped_strategy_keeps_its_client_half_and_its_say() -> None:
    options = "clipping_norm = 1.0, noise_multiplier = 1.0, strategy = {name = 'FedProx', proximal_mu = 0.1}"
    on_server = declaration_of(strategy_of(ON_SERVER, options))
    assert on_server.local_rules == ("strategies.algorithms.fedprox:Proximal",)
    on_clients = strategy_of(ON_CLIENTS, options)
    assert declaration_of(on_clients).local_rules == (
        "strategies.algorithms.fedprox:Proximal",
        "strategies.privacy.clipping:Clipping",
    )
    assert on_clients.strategy.proximal_mu == 0.1


FEDAVG = {
    "fraction_train": 1.0, "fraction_evaluate": 0.0, "min_train_nodes": 4, "min_evaluate_nodes": 0,
    "min_available_nodes": 4, "weighted_by_key": "num-examples", "arrayrecord_key": "arrays",
    "configrecord_key": "config"
}  # fmt: skip
"""What polyfed 0.1.0 saved of FedAvg."""


def test_a_checkpoint_of_the_first_version_goes_on_with_its_norm_and_what_it_has_spent() -> None:
    tree = {
        "strategy": {
            "delta": 0.001,
            "strategy": {"strategy": FEDAVG},
            "clipping_norm": 0.11357370979528565,
            "noise_multiplier": 2.0,
            "target_epsilon": None,
            "num_sampled_clients": 4,
            "rounds": {"by-number": [["4", 1]]},
            "target_clipped_quantile": 0.5,
            "clip_norm_lr": 0.2,
            "clipped_count_stddev": 1.25,
            "_weights": {"dict": {"w": {"array": "/_weights/w"}}},
            "_population": 4,
        }
    }
    options = "noise_multiplier = 2.0, clipped_count_stddev = 1.25, delta = 1e-3"
    strategy = strategy_of(ADAPTIVE_ON_SERVER, options)
    restore(strategy, tree, {"/_weights/w": torch.tensor(0.0)})
    assert strategy.clipping_norm == 0.11357370979528565
    _, told = one_round(strategy, [0.1, 0.2, 0.0, 0.5])
    # As the version that wrote it went on.
    assert told["epsilon"] == pytest.approx(5.420018242131793, rel=1e-12)


def hash_of(config: dict[str, Value], num_nodes: int = 1) -> str:
    run_in_process(config, num_nodes)
    return str(result_of(Path(str(config["run-dir"])))["weights_sha256"])


INNERS = ["'FedAvg'", "{name = 'FedProx', proximal_mu = 0.5}", "{name = 'FedDyn', alpha = 0.1}"]


@pytest.mark.slow
@pytest.mark.parametrize("inner", INNERS[1:])
def test_one_hash_wherever_clipping_is_done_and_on_however_many_nodes(
    tiny: Make, tmp_path: Path, inner: str
) -> None:
    options = f"clipping_norm = 0.3, noise_multiplier = 0.01, {REPEATABLE}, strategy = {inner}"
    hashes = {
        hash_of(
            tiny(
                strategy=name,
                strategy_options=options,
                num_clients=8,
                clients_per_round=7,
                examples_per_client=32,
                batch_size=8,
                run_dir=str(tmp_path / f"{name}-{num_nodes}"),
            ),
            num_nodes,
        )
        for name, num_nodes in ((ON_SERVER, 1), (ON_CLIENTS, 1), (ON_CLIENTS, 3))
        # A client of FedDyn keeps what the server reads, and cannot know what the server clips.
        if name == ON_CLIENTS or "FedDyn" not in inner
    }
    assert len(hashes) == 1


@pytest.mark.slow
def test_rules_of_wrapped_strategies_are_obeyed(tiny: Make, tmp_path: Path) -> None:
    options = "clipping_norm = 100.0, noise_multiplier = 0.0, strategy = "
    hashes = {
        hash_of(
            tiny(
                strategy=ON_CLIENTS,
                strategy_options=options + inner,
                examples_per_client=32,
                batch_size=8,
                run_dir=str(tmp_path / str(number)),
            )
        )
        for number, inner in enumerate(INNERS)
    }
    assert len(hashes) == 3


@pytest.mark.rounding
@pytest.mark.usefixtures("float64")
def test_stacked_clients_clip_too(tiny: Make, tmp_path: Path) -> None:
    rows = []
    for engine in ("loop", "stacked"):
        run_in_process(
            tiny(
                strategy=ON_CLIENTS,
                strategy_options="clipping_norm = 0.3, noise_multiplier = 0.0",
                engine=engine,
                examples_per_client=32,
                batch_size=8,
                run_dir=str(tmp_path / engine),
            )
        )
        rows.append(
            json.loads((tmp_path / engine / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])[
                "train"
            ]
        )
    assert rows[0] == pytest.approx(rows[1], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", [ON_CLIENTS, ADAPTIVE_ON_SERVER])
def test_a_resumed_run_goes_on_with_its_norm_its_noise_and_what_it_has_spent(
    tiny: Make, tmp_path: Path, name: str
) -> None:
    norm = "clipping_norm = 0.3" if name == ON_CLIENTS else "clipped_count_stddev = 1.0"
    options = f"{norm}, noise_multiplier = 0.05, {REPEATABLE}, strategy = 'FedAdam'"
    config = tiny(strategy=name, strategy_options=options, examples_per_client=32, batch_size=8)
    hash_of(config)
    more = {**config, "num-server-rounds": 4}
    resumed, whole = tmp_path / "run", tmp_path / "whole"
    assert hash_of({**more, "resume": True}) == hash_of({**more, "run-dir": str(whole)})
    rows, expected = (
        [
            json.loads(line)["train"]
            for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[1:]
        ]
        for folder in (resumed, whole)
    )
    assert rows == expected
    assert not any("epsilon" in row for row in rows)


@pytest.mark.slow
@pytest.mark.bar
def test_digits_are_learned_at_epsilon_8(tiny: Make, tmp_path: Path) -> None:
    """1,437 clients of one digit each, 300 a round; 0.81 to 0.83, as noise has it."""
    inner = "{name = 'FedAvgM', server_learning_rate = 1.0, server_momentum = 0.9}"
    config = tiny(
        num_clients=1437,
        validation_fraction=0.0,  # a client for each training example
        partitioner="iid",
        clients_per_round=300,
        num_server_rounds=50,
        evaluate_every=0,
        checkpoint_every=0,
        optimizer="sgd",
        learning_rate=0.1,
        strategy=ON_CLIENTS,
        strategy_options=f"target_epsilon = 8.0, clipping_norm = 0.2, strategy = {inner}",
    )
    run_in_process(config)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert 7.9 < last["train"]["epsilon"] <= 8.0
    assert last["central"]["accuracy"] > 0.75
