"""With max-update-norm no client moves a weighted mean far, whoever adds up; the server sees to it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from finished import result_of
from safetensors.torch import load_file

from clients.worker import load_worker
from models.core.config import TaskConfig, Value, read
from models.core.errors import UserError
from server.sum_checks import check_norm
from simulations.runtime.in_process import run_in_process
from strategies.privacy.clipping import bounded
from strategies.wire.exact_sum import ExactSum

Make = Callable[..., dict[str, Value]]
SENT = {"b": np.zeros(1, np.float32), "a": np.zeros(1, np.float32)}


def test_an_update_is_clipped_by_hand() -> None:
    long = {"b": np.float32([6.0]), "a": np.float32([8.0])}
    assert {name: each.tolist() for name, each in bounded(long, SENT, 5.0).items()} == {
        "b": [3.0],
        "a": [4.0],
    }
    assert bounded(long, SENT, 10.0) is long


def total(*moves: float, weight: float = 2.0) -> ExactSum:
    found = ExactSum()
    for move in moves:
        found.add({"b": np.float32([move]), "a": np.float32([0.0])}, weight)
    return found


def test_a_sum_moves_no_further_than_its_clients_may() -> None:
    check_norm(total(3.0, 3.0), [(SENT, 4.0)], 3.0)
    check_norm(total(0.0, 3.0), [(SENT, 4.0)], 1.5)
    with pytest.raises(
        ValueError, match=r"weight 4 has moved by 12.002, and with max-update-norm 3 it can by 12$"
    ):
        check_norm(total(3.001, 3.0), [(SENT, 4.0)], 3.0)
    start = {"b": np.float32([1000.0]), "a": np.float32([0.0])}
    check_norm(total(1003.0, 1003.0), [(start, 4.0)], 3.0)
    with pytest.raises(ValueError, match="has moved by 4000"):
        check_norm(total(0.0, 0.0), [(start, 4.0)], 3.0)
    check_norm(total(1003.0, -3.0), [(start, 2.0), (SENT, 2.0)], 3.0)


def ends(config: dict[str, Value], num_nodes: int) -> tuple[str, float]:
    """Return the hash of a run of one round, and how far it has moved the weights."""
    run_in_process(config, num_nodes)
    folder = Path(str(config["run-dir"]))
    before, after = (
        load_worker(read(TaskConfig, config), "").initial,
        load_file(folder / "models" / "last.safetensors"),
    )
    moved = sum(float((after[name].double() - before[name].double()).square().sum()) for name in after)
    return str(result_of(folder)["weights_sha256"]), moved**0.5


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "top-k", "compression_ratio": 0.5}, {"engine": "stacked"}, {"strategy": "FedDyn"}],
    ids=["FedAvg", "top-k", "stacked", "FedDyn"],
)
def test_a_huge_update_moves_the_mean_by_its_norm_at_most(
    tiny: Make, tmp_path: Path, options: dict[str, Value]
) -> None:
    """And it is the same model where one node adds up all six, and where six nodes send one each."""
    attack: dict[str, Value] = {"attack": "gaussian", "attack_fraction": 0.2, "attack_scale": 1e6}
    shared = {"num_clients": 6, "num_server_rounds": 1, "evaluate_every": 0, "max_update_norm": 0.5}
    given = {**shared, **attack, **options}
    together, moved = ends(tiny(**given, run_dir=str(tmp_path / "together")), 1)
    if options.get("engine") != "stacked":  # in which who trains together rounds differently
        assert ends(tiny(**given, run_dir=str(tmp_path / "apart")), 6)[0] == together
    # FedDyn steps once more as far as the clients' mean has moved.
    assert 0.1 < moved <= (1.0 if options.get("strategy") == "FedDyn" else 0.5) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"strategy": "Scaffold", "optimizer": "sgd"}, "clients of Scaffold reply more beside them"),
        ({"task_options": "norm = 'batch'"}, "the model sends statistics as they are"),
    ],
)
def test_what_would_stay_unbounded_is_refused(tiny: Make, options: dict[str, Value], why: str) -> None:
    with pytest.raises(UserError, match=why):
        run_in_process(tiny(max_update_norm=1.0, **options))


def test_a_client_with_more_examples_than_allowed_fails_by_name(tiny: Make, tmp_path: Path) -> None:
    """Though its node adds up: what others have trained counts."""
    run_in_process(
        tiny(num_server_rounds=1, alpha=0.3, max_examples=400, evaluate_every=0, validation_fraction=0.0)
    )
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "client 1 failed: ValueError: it has 621 examples, more than max-examples (400)" in log
    assert log.count(" failed: ") == 1
