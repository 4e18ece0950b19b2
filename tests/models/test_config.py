"""Reading the run config, and that the pyproject says the same as the code."""

import tomllib
from pathlib import Path

import pytest
from places import ROOT

from models.core.config import TaskConfig, check_keys, parse_options, read
from models.core.errors import UserError
from server.config import ServerConfig
from simulations.scenario import CONFIGS, defaults, load_scenario

SCENARIOS = sorted((ROOT / "simulations" / "configs").glob("*.toml"))


def test_pyproject_declares_every_key_with_the_default_of_the_code() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert declared == defaults()
    assert [type(value) for value in declared.values()] == [type(defaults()[key]) for key in declared]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num-clients", "x", "num-clients must be a whole number, got 'x'"),
        ("num-clients", True, "num-clients must be a whole number, got True"),
        ("num-clients", 0, "num-clients must be >= 1, got 0"),
        ("alpha", 0, "alpha must be > 0, got 0.0"),
        ("local-test-fraction", 1.0, "local-test-fraction must be in [0, 1), got 1.0"),
        ("partitioner", "dirichlett", "unknown partitioner 'dirichlett': did you mean dirichlet?"),
        ("precision", "fp8", "unknown precision 'fp8': known are bfloat16, float32"),
    ],
)
def test_task_config_refuses(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(TaskConfig, {key: value})  # type: ignore[dict-item]
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fraction-train", 0.0, "fraction-train must be in (0, 1], got 0.0"),
        ("run-dir", "runs/a", "run-dir must be an absolute folder, got 'runs/a'"),
        ("resume", True, "run-dir must be given when resume is true, got ''"),
    ],
)
def test_server_config_refuses(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(ServerConfig, {key: value})  # type: ignore[dict-item]
    assert str(error.value) == message


def test_a_whole_number_passes_for_a_float_and_is_one() -> None:
    alpha = read(TaskConfig, {"alpha": 1}).alpha
    assert alpha == 1.0
    assert isinstance(alpha, float)


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown run-config key 'num-client': did you mean num-clients"):
        check_keys({"num-client": 3}, *CONFIGS)


def test_options_are_inline_toml() -> None:
    assert parse_options("o", "") == {}
    assert parse_options("o", "a = 1, b = 'x', c = [1, 2]") == {"a": 1, "b": "x", "c": [1, 2]}
    with pytest.raises(UserError, match="o must be inline TOML"):
        parse_options("o", "a: 1")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_is_a_valid_config(path: Path) -> None:
    assert load_scenario(path)["task"]


def test_overrides_win_over_the_scenario(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('num-clients = 3\ndataset = "digits"\ndata-dir = "here"\n')
    config = load_scenario(path, ["num-clients=7", "task-options=norm = 'group'"])
    assert (config["num-clients"], config["dataset"]) == (7, "digits")
    assert config["task-options"] == "norm = 'group'"
    assert Path(str(config["data-dir"])).is_absolute()
