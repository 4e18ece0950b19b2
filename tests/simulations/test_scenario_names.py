"""Scenarios by name, by path, and those that runs have written."""

import tomllib
from pathlib import Path

import pytest
from command_line import polyfed
from places import CONFIGS, ROOT

from models.core.errors import UserError
from simulations.scenario import find_scenario, load_scenario, name_of


def test_every_shipped_scenario_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in CONFIGS.glob("*.toml"):
        assert find_scenario(path.stem) == path
        assert name_of(path.stem) == name_of(path) == path.stem


def test_a_file_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").write_text("seed = 3\n", encoding="utf-8")
    assert load_scenario("mnist")["seed"] == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mnst", r"^unknown scenario 'mnst': did you mean mnist\?$"),
        ("mnist.toml", r"^scenario mnist\.toml is not there: give the path of a TOML file, or one of clip, "),
        ("a/mnist", r"^scenario a/mnist is not there: "),
    ],
)
def test_a_scenario_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        find_scenario(given)


@pytest.mark.slow
def test_the_config_of_a_run_runs_again_and_the_run_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ("-c", "num-clients=3", "-c", "num-server-rounds=1")
    first = tmp_path / "runs" / "cnn-digits-20261126-043146"
    assert polyfed("run", "cnn-digits", "--in-process", *few, "--run-dir", first).code == 0
    assert name_of(first / "config.toml") == "cnn-digits"
    again = polyfed("run", first / "config.toml", "--in-process")
    assert (again.code, again.err) == (0, "")
    second = next(folder for folder in (tmp_path / "runs").iterdir() if folder != first)
    first_config, second_config = (
        tomllib.loads((folder / "config.toml").read_text(encoding="utf-8")) for folder in (first, second)
    )
    assert {key for key in first_config if first_config[key] != second_config[key]} == {"run-dir"}
    ended = polyfed("run", "--resume", first, "--in-process", "-c", "num-server-rounds=2")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0].startswith("round 2/2  accuracy ")  # rounds 0 and 1 are no news
    refused = polyfed("run", first)
    assert refused.code == 2
    assert f"go on with it by --resume {first}" in refused.err


def test_a_run_needs_a_scenario_or_a_run_to_go_on_with() -> None:
    assert polyfed("run").err.startswith("polyfed: Missing argument 'SCENARIO'")


def test_what_is_built_carries_the_scenarios_and_the_package_polyfed_once() -> None:
    from hatchling.builders.wheel import WheelBuilder

    built = [file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()]
    assert len(built) == len(set(built))
    carried = {f"simulations/configs/{path.name}" for path in CONFIGS.glob("*.toml")}
    assert carried | {"polyfed/__init__.py", "polyfed/py.typed", "models/core/own_packages.py"} <= set(built)
    assert not [path for path in built if "face/" in path]
