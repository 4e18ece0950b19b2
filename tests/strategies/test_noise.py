"""Noise of private runs: that no seed takes it off, that a grid is one, and what is said of it."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest
import torch
from finished import result_of
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import load_file
from scripted_grid import ScriptedGrid
from test_accountant import counted, drawn
from test_central_dp import ON_CLIENTS, ON_SERVER, REPEATABLE, strategy_of

from models.core.config import Value
from models.core.seeds import seed_python
from models.state import build_model
from server.plan import make_plan
from simulations.runtime.in_process import run_in_process
from strategies.declaration import Declaration, declaration_of
from strategies.privacy.accountant import epsilon
from strategies.privacy.local_dp import DEVIATION, KIND, NORM, ClipAndNoise
from strategies.privacy.noise import Noise, gaussian_on_a_grid, grid_exponent, raised

Make = Callable[..., dict[str, Value]]
CLIPPED_TO, MULTIPLIER = 0.5, 4.0
NOISY = f"clipping_norm = {CLIPPED_TO}, noise_multiplier = {MULTIPLIER}"


def never() -> bytes:
    raise AssertionError("secret noise asks for no seed")


def weights_of(run_dir: Path, server_round: int) -> dict[str, np.ndarray]:
    held = load_file(run_dir / "checkpoints" / f"round-{server_round:06d}.safetensors")
    prefix = "model/"
    return {name.removeprefix(prefix): t.numpy() for name, t in held.items() if name.startswith(prefix)}


def attacked(config: dict[str, Value]) -> tuple[float, float]:
    """Return the norm of what round 2 changed, before and after the noise of the run's seed is taken off."""
    run_in_process(config)
    before, after = (weights_of(Path(str(config["run-dir"])), server_round) for server_round in (1, 2))
    names = list(build_model(make_plan(config).task, 42).state_dict())  # noise comes in this order
    seed_python(42, "aggregate", 2, "cohort")
    key = np.random.SeedSequence(int.from_bytes(np.random.bytes(16), "little"))
    draw = np.random.Generator(np.random.Philox(key))
    changed, left = 0.0, 0.0
    for name in names:
        change = after[name].astype(np.float64) - before[name]
        noise = MULTIPLIER * CLIPPED_TO / 2 * draw.standard_normal(change.shape)
        changed += float(np.square(change).sum())
        left += float(np.square(change - noise).sum())
    return changed**0.5, left**0.5


@pytest.mark.parametrize("name", [ON_SERVER, ON_CLIENTS])
def test_who_knows_the_seed_cannot_take_the_noise_off(tiny: Make, tmp_path: Path, name: str) -> None:
    def config(kind: str) -> dict[str, Value]:
        return tiny(
            strategy=name,
            strategy_options=f"{NOISY}, noise = '{kind}'",
            num_clients=2,
            clients_per_round=2,
            examples_per_client=16,
            run_dir=str(tmp_path / kind),
        )

    changed, left = attacked(config("repeatable"))
    assert left <= CLIPPED_TO * 1.001 < changed / 50  # the attack works: an update is left
    changed, left = attacked(config("secret"))
    assert left == pytest.approx(2**0.5 * changed, rel=0.05)  # another noise on top, not less


def test_two_runs_of_one_seed_do_not_share_their_noise() -> None:
    same = {"w": np.zeros(1000, np.float32)}
    for kind in ("secret", "repeatable"):
        rule = ClipAndNoise({NORM: 1.0, DEVIATION: 1.0, KIND: kind})
        one, other = (rule.reply(same, same, torch.Generator().manual_seed(1))[0]["w"] for _ in range(2))
        correlation = float(np.corrcoef(one, other)[0, 1])
        assert correlation > 0.999 if kind == "repeatable" else abs(correlation) < 0.2


def cohorts(kind: str) -> list[list[int]]:
    """Return whom a strategy asks in two rounds that are seeded alike."""
    config = {"clients_per_round": 3, "num_clients": 40}
    strategy = strategy_of(ON_SERVER, f"{NOISY}, noise = '{kind}'", **config)
    asked = []
    for _ in range(2):
        random.seed(1)
        np.random.seed(1)
        grid = ScriptedGrid({client: lambda _: None for client in range(40)})
        start = ArrayRecord({"w": Array(np.zeros((), np.float32))})
        messages = strategy.configure_train(1, start, ConfigRecord({"server-round": 1}), grid)
        asked.append(sorted(message.metadata.dst_node_id for message in messages))
    return asked


def test_who_knows_the_seed_does_not_know_who_is_asked() -> None:
    """Or sampling would gain nothing against those who have read the config."""
    one, other = cohorts("repeatable")
    assert one == other
    while one == other:  # one in 9,880 pairs of cohorts is of the same clients
        one, other = cohorts("secret")
    assert one != other


# On a grid


@pytest.mark.parametrize(("deviation", "moved", "size"), [(1.0, 2.0, 1), (0.003, 0.5, 300), (7e-5, 1e-3, 9)])
def test_a_grid_costs_no_more_than_is_counted(deviation: float, moved: float, size: int) -> None:
    """Gaussian noise costs moved^2 / (2 deviation^2), zero-concentrated; OpenDP says what its own does."""
    pytest.importorskip("opendp")
    exact = moved**2 / (2 * deviation**2)
    cost = gaussian_on_a_grid(deviation, moved, size).map(moved)
    assert exact * (1 - 1e-9) < cost <= exact * (1 + 1e-15)
    assert deviation < raised(deviation, moved, size) < deviation * (1 + 1e-9)


def test_noise_on_a_grid_leaves_no_bits_below_it() -> None:
    pytest.importorskip("opendp")
    values = {"a": np.full((30, 20), 0.1, np.float32), "b": np.array(-1 / 3)}
    noised = Noise("discrete", never).add(values, deviation=0.5, moved=1.0)
    assert {name: array.shape for name, array in noised.items()} == {"a": (30, 20), "b": ()}
    steps = np.append(noised["a"].ravel(), noised["b"]) / 2.0 ** grid_exponent(0.5)
    assert np.array_equal(steps, np.round(steps))
    assert np.std(noised["a"]) == pytest.approx(0.5, rel=0.15)
    assert np.mean(noised["a"]) == pytest.approx(0.1, abs=4 * 0.5 / 600**0.5)
    secret = Noise("secret", never).add(values, deviation=0.5, moved=1.0)["a"] / 2.0 ** grid_exponent(0.5)
    assert not np.array_equal(secret, np.round(secret))


@pytest.mark.parametrize("name", ["DifferentialPrivacyServerSideAdaptiveClipping", "LocalDP"])
def test_a_run_with_noise_on_a_grid(tiny: Make, tmp_path: Path, name: str) -> None:
    pytest.importorskip("opendp")
    norm = "clipping_norm = 0.5, " if name == "LocalDP" else ""
    options = f"{norm}noise_multiplier = 0.1, noise = 'discrete'"
    run_in_process(tiny(strategy=name, strategy_options=options, num_clients=2, num_server_rounds=1))
    assert any("operating system" in remark for remark in result_of(tmp_path / "run")["remarks"])


# What is claimed

MEMORY = "{name = 'FedDyn', alpha = 0.1}"
EVERY_ROUND = dp.SelfComposedDpEvent(dp.GaussianDpEvent(2.0), 1)


def private(inner: str = "'FedAvg'", options: str = "noise_multiplier = 4.0", **config: Any) -> Any:
    given = f"clipping_norm = 1.0, delta = 1e-4, {options}, strategy = {inner}"
    return strategy_of(ON_SERVER, given, num_clients=1000, clients_per_round=10, **config)


class Elsewhere(FedAvg):
    """Chooses its clients in its own way, for all that anybody knows."""

    declaration = Declaration(weighted_mean=True)


@pytest.mark.parametrize(
    ("inner", "why"),
    [
        (MEMORY, r"clients of FedDyn remember earlier rounds (slope)"),
        ("'test_noise:Elsewhere'", "Elsewhere may choose its clients otherwise than evenly by chance"),
    ],
)
def test_sampling_gains_nothing_where_no_proof_says_so(inner: str, why: str) -> None:
    strategy = private(inner)
    expected = counted(EVERY_ROUND, delta=1e-4)
    assert strategy._epsilon_after(1000) == pytest.approx(expected, rel=1e-12)
    assert declaration_of(strategy).remarks[-1] == f"epsilon counts nothing for sampling: {why}"
    sampled, drawn_from = private(), drawn(10, 1000, 4.0, 1)
    assert sampled._epsilon_after(1000) == pytest.approx(counted(drawn_from, delta=1e-4), rel=1e-12)
    assert sampled._epsilon_after(1000) < expected / 10
    assert not any("sampling" in remark for remark in declaration_of(sampled).remarks)


@pytest.mark.parametrize(
    "inner", ["'FedAvg'", "'FedAdam'", "{name = 'FedProx', proximal_mu = 0.1}", "'Ditto'"]
)
def test_sampling_counts_where_clients_forget(inner: str) -> None:
    assert not private(inner).unamplified


def test_the_noise_for_an_epsilon_is_more_where_sampling_gains_nothing() -> None:
    target = "target_epsilon = 8.0"
    forgetful, remembering = (private(inner, target, num_server_rounds=20) for inner in ("'FedAvg'", MEMORY))
    assert remembering.noise_multiplier > 5 * forgetful.noise_multiplier
    forgetful.forgo_sampling("clients remember")
    assert forgetful.noise_multiplier == remembering.noise_multiplier
    assert 7.9 < epsilon(forgetful.noise_multiplier, 10, {1000: 20}, 1e-4, amplified=False) <= 8.0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"keep_optimizer": True}, "clients remember their optimizers (keep-optimizer)"),
        ({"task_options": "local = ['classifier.*']"}, "clients remember classifier.0.weight and 3 more"),
        ({"compression": "top-k"}, "clients remember what compression left out (top-k)"),
        ({"compression": "int8"}, ""),
        ({}, ""),
    ],
)
def test_whatever_clients_remember_is_told(tiny: Make, options: dict[str, Any], why: str) -> None:
    plan = make_plan(tiny(strategy=ON_SERVER, strategy_options=NOISY, clients_per_round=1, **options))
    assert plan.strategy.unamplified == why  # type: ignore[attr-defined]
    remarks = declaration_of(plan.strategy).remarks
    assert remarks[1:] == ((f"epsilon counts nothing for sampling: {why}",) if why else ())


@pytest.mark.parametrize(("name", "key"), [(ON_SERVER, "epsilon"), ("LocalDP", "local-epsilon")])
def test_repeatable_noise_claims_no_epsilon(
    tiny: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, key: str
) -> None:
    for kind, claims in (("secret", True), ("repeatable", False)):
        caplog.clear()
        folder = tmp_path / kind
        options = f"{NOISY}, noise = '{kind}'"
        run_in_process(tiny(strategy=name, strategy_options=options, num_clients=2, run_dir=str(folder)))
        rows = [
            json.loads(line)
            for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[1:]
        ]
        assert [key in row["train"] for row in rows] == [claims] * len(rows)
        said = "drawn from the operating system: the run does not repeat" if claims else "no epsilon holds"
        (remark,) = result_of(folder)["remarks"]
        assert said in remark
        assert any(remark in record.getMessage() for record in caplog.records)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key", "sampled"), [(ON_SERVER, "epsilon", 1), ("LocalDP", "local-epsilon", 2)]
)
def test_rounds_that_are_done_again_are_released_twice(
    tiny: Make, tmp_path: Path, name: str, key: str, sampled: int
) -> None:
    config = tiny(
        strategy=name,
        strategy_options=f"clipping_norm = 1e-4, noise_multiplier = {MULTIPLIER}, delta = 1e-3",
        num_clients=2,
        clients_per_round=sampled,
        checkpoint_every=2,
        run_dir=str(tmp_path / "run"),
    )
    run_in_process({**config, "num-server-rounds": 3})
    run_in_process({**config, "num-server-rounds": 3, "resume": True})  # round 3 for the second time
    run_in_process({**config, "num-server-rounds": 4, "resume": True})  # and for the third
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["server_round"]]
    assert [row["server_round"] for row in rows] == [1, 2, 3, 4]
    for row, released in zip(rows, (1, 2, 5, 6), strict=True):
        cohort, population = (1, 2) if name == ON_SERVER else (1, 1)
        spent = epsilon(MULTIPLIER, cohort, {population: released}, 1e-3)
        assert row["train"][key] == pytest.approx(spent, rel=1e-9)


def test_without_noise_there_is_nothing_to_say() -> None:
    strategy = strategy_of(ON_SERVER, "clipping_norm = 1.0, noise_multiplier = 0.0")
    assert declaration_of(strategy).remarks == ()
    assert REPEATABLE not in declaration_of(strategy).remarks
