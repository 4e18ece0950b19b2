"""One hash for a run in this process, by `polyfed run` and by `flwr run`; test_deploy.py has real nodes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
import torch
from flower_processes import flower_simulation
from safetensors.torch import save_file

from models.core.config import Value
from models.images.networks import ConvNet
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults

# 20 clients, three rounds; momentum is kept, so client state takes part, and a layer
# is frozen that no node can build.
SCENARIO: dict[str, Value] = {
    "dataset": "digits",
    "num-clients": 20,
    "clients-per-round": 12,
    "num-server-rounds": 3,
    "keep-optimizer": True,
    "task-options": "freeze = ['features.0.*']",
}


def hash_of(run_dir: Path) -> str:
    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    assert result["status"] == "completed", result["reason"]
    return str(result["weights_sha256"])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Value]:
    """Return the scenario, which begins with weights that are written here."""
    path = tmp_path_factory.mktemp("earlier") / "weights.safetensors"
    torch.manual_seed(0)
    save_file(ConvNet(1, 8, 8, 4, "none").state_dict(), path)
    return {**SCENARIO, "init-from": str(path)}


@pytest.fixture(scope="module")
def expected(settings: dict[str, Value], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the hash of the run in this process, on a single node."""
    run_dir = tmp_path_factory.mktemp("in-process") / "run"
    run_in_process({**defaults(), **settings, "run-dir": str(run_dir)}, num_nodes=1)
    return hash_of(run_dir)


@pytest.fixture
def scenario(settings: dict[str, Value], tmp_path: Path) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(tomli_w.dumps(settings), encoding="utf-8")
    return path


@pytest.fixture
def placed_scenario(settings: dict[str, Value], tmp_path: Path) -> Path:
    """Return the scenario with its run folder in it: flwr takes a file or key-value pairs, not both."""
    path = tmp_path / "placed-scenario.toml"
    path.write_text(tomli_w.dumps({**settings, "run-dir": str(tmp_path / "run")}), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "num_workers", "num_nodes"),
    [  # test_warm_workers.py has two workers on Ray, test_families.py one under Flower
        ("ray", 1, 1),
        pytest.param("ray", 2, 1, marks=pytest.mark.bar),
        pytest.param("flower", 1, 2, marks=pytest.mark.bar),
        ("flower", 2, 5),
    ],
)
def test_polyfed_run(
    expected: str, scenario: Path, tmp_path: Path, runtime: str, num_workers: int, num_nodes: int
) -> None:
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "simulations.cli", "run", str(scenario), "--run-dir", str(run_dir)]
    command += [
        "--set",
        f"num-workers={num_workers}",
        "--set",
        f"num-nodes={num_nodes}",
        "--runtime",
        runtime,
    ]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, encoding="utf-8"
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert hash_of(run_dir) == expected
    assert expected in ended.stdout


@pytest.mark.slow
def test_plain_flwr_run(expected: str, placed_scenario: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with flower_simulation(tmp_path, num_supernodes=3, num_cpus=2) as run:
        output = run(placed_scenario)
    assert (run_dir / "result.json").exists(), output
    assert hash_of(run_dir) == expected
