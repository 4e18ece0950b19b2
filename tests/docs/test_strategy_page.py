"""docs/strategies.md, followed step by step, and `polyfed new strategy`, with which it begins."""

import json
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w
from command_line import polyfed
from flower_processes import flower_simulation
from plugin_pages import ROOT, finish, install

from strategies.algorithms.fedprox import FedProx
from strategies.conformance import checks

PAGE = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
STRATEGY, TEST, WITH_RULE = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the page's first command writes, installed."""
    parent = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(parent)
        ended = polyfed("new", "strategy", "Halfway")
    assert (ended.code, ended.err) == (0, "")
    install(parent / "polyfed-halfway")
    return parent / "polyfed-halfway"


@pytest.fixture
def site(package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this process find the installed package, and nothing of it afterwards."""
    site = package.parent / "site"
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "polyfed_halfway", raising=False)
    return site


def test_the_command_writes_what_the_page_shows(package: Path) -> None:
    assert {file.name for file in package.iterdir() if file.is_file()} == {
        "README.md", "polyfed_halfway.py", "pyproject.toml", "test_polyfed_halfway.py", "try.toml"
    }  # fmt: skip
    assert (package / "polyfed_halfway.py").read_text(encoding="utf-8") == STRATEGY
    assert (package / "test_polyfed_halfway.py").read_text(encoding="utf-8") == TEST
    assert len(STRATEGY.splitlines()) <= 30


def test_the_page_names_every_check() -> None:
    named = re.findall(r"^\| `([a-z-]+)` \|", PAGE, flags=re.MULTILINE)
    assert named == [str(check) for check in checks(FedProx, proximal_mu=0.1)]


def test_it_is_listed_and_runs(
    package: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    listed = polyfed("strategies")
    assert listed.err == ""
    assert re.search(r"Halfway +polyfed-halfway\s+0\.1\.0 +step = 0\.5", listed.out)
    command = ("run", package / "try.toml", "--in-process", "--run-dir", tmp_path / "run")
    ended = polyfed(*command, "-c", "strategy-options=step = 0.25", "-c", "examples-per-client=64")
    assert (ended.code, ended.err) == (0, ""), ended.out
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["server_round"]) == ("completed", 3)
    for given, reason in {
        "step = 2": "strategy-options do not fit Halfway: step must be in (0, 1], got 2",
        "stride = 1": "unknown option of strategy Halfway 'stride': did you mean step",
    }.items():
        refused = polyfed(*command[:3], "-c", f"strategy-options={given}")
        assert refused.code == 2
        assert refused.err.startswith(f"polyfed: {reason}")


@pytest.mark.rounding
def test_its_steps_are_as_long_as_it_says(site: Path) -> None:
    from strategies.conformance.federation import Candidate, Federation

    whole, half = (Federation(Candidate(halfway(), {"step": step})) for step in (1.0, 0.5))
    start = whole.weights["scale"]
    full, part = (federation.play()["scale"] - start for federation in (whole, half))  # type: ignore[index]
    assert float(part) == pytest.approx(float(full) / 2)


def test_its_client_half_conforms_and_runs(
    package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "polyfed_halfway.py").write_text(WITH_RULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "polyfed_halfway", raising=False)
    for check in checks(halfway(), limit=0.5):
        check()
    learned = {}
    for limit in (1.0, 1e-6):  # the second one holds every gradient at nearly nothing
        run = tmp_path / f"run-{limit}"
        choice = ("-c", "examples-per-client=64", "-c", f"strategy-options=limit = {limit}")
        choice += ("-c", "strategy=polyfed_halfway:Halfway")
        ended = polyfed("run", package / "try.toml", "--in-process", "--run-dir", run, *choice)
        assert (ended.code, ended.err) == (0, ""), ended.out
        before, *_, after = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        learned[limit] = json.loads(before)["central"]["loss"] - json.loads(after)["central"]["loss"]
    # In three rounds the loss need not fall yet: by 0.0006 with this seed, by -0.0003 with another.
    assert abs(learned[1e-6]) < abs(learned[1.0]) / 10
    assert abs(learned[1.0]) > 1e-4


def test_a_name_that_cannot_be_or_is_taken(tmp_path: Path) -> None:
    for name, reason in {
        "fed-thing": "a strategy must be named like a class, such as FedThing, got 'fed-thing'",
        "FedAvg": "strategy 'FedAvg' is there already (built in): give another name",
    }.items():
        ended = polyfed("new", "strategy", name, "--folder", tmp_path / "new")
        assert (ended.code, ended.err) == (2, f"polyfed: {reason}\n")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    ended = polyfed("new", "strategy", "FedThing", "--folder", tmp_path)
    assert ended.code == 2
    assert ended.err.startswith(f"polyfed: cannot make the folder {tmp_path} (")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_its_own_test_passes_and_every_way_of_running_gives_one_hash(
    package: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(package, site, "pytest", "-q")
    options = "strategy-options=step = 0.25"
    finish(package, site, "simulations.cli", "run", "try.toml", "-c", options, "--run-dir", tmp_path / "own")
    polyfed("run", package / "try.toml", "--in-process", "-c", options, "--run-dir", tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{ROOT}")
    given = tomllib.loads((package / "try.toml").read_text(encoding="utf-8")) | {
        "strategy-options": "step = 0.25"
    }
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(tomli_w.dumps(given | {"run-dir": str(tmp_path / "plain")}), encoding="utf-8")
    with flower_simulation(tmp_path / "superlink", num_supernodes=2, num_cpus=2) as flwr_run:
        output = flwr_run(scenario)
    ways = {
        name: json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8"))
        for name in ("own", "here", "plain")
    }
    assert [result["status"] for result in ways.values()] == ["completed"] * 3, output
    assert len({result["weights_sha256"] for result in ways.values()}) == 1, ways


def halfway() -> type:
    """Return the strategy that can be imported at the moment."""
    from polyfed_halfway import Halfway

    return Halfway  # type: ignore[no-any-return]
