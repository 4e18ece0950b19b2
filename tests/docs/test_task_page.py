"""docs/tasks.md, followed step by step: its package is written, installed, listed, run and tested."""

import json
import re
import sys
from pathlib import Path

import pytest
from command_line import polyfed
from plugin_pages import ROOT, finish, install

PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w.]+)` [^\n]*:\n\n```\w+\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
"""Name -> content of each file that the page shows."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page's folder, beside which pip has installed it into "site", without a network."""
    folder = tmp_path_factory.mktemp("page") / "package"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    install(folder)
    return folder


@pytest.fixture
def site(package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this process find the installed package, and nothing of it afterwards."""
    site = package.parent / "site"
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "polyfed_table", raising=False)
    return site


def test_the_page_shows_all_files() -> None:
    assert list(FILES) == ["pyproject.toml", "polyfed_table.py", "diabetes.toml", "test_polyfed_table.py"]


def test_it_imports_from_the_public_face_alone() -> None:
    for name, content in FILES.items():
        if name.endswith(".py"):
            imported = re.findall(
                r"^(?:from|import) ((?:models|simulations|clients|server)\S*)", content, re.M
            )
            assert imported == ["models"], name


def test_it_is_listed_and_runs(package: Path, site: Path, tmp_path: Path) -> None:
    listed = polyfed("tasks")
    assert listed.err == ""
    assert "table: diabetes (polyfed-table 0.1.0)" in listed.out
    scenario, run = package / "diabetes.toml", tmp_path / "run"
    ended = polyfed("run", scenario, "--in-process", "--run-dir", run)
    assert (ended.code, ended.err) == (0, ""), ended.out
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert result["best"]["rmse"] < 62
    assert result["final"].keys() == {"rmse", "mae"}
    explained = polyfed("explain", run)
    assert (explained.code, explained.err) == (0, "")
    found = json.loads((run / "explanations" / "integrated-gradients.json").read_text(encoding="utf-8"))
    # Body mass, blood pressure and the logarithm of triglycerides, as in every analysis of these patients.
    assert {"x2", "x8"} <= set(sorted(found["shares"], key=found["shares"].get)[-4:])
    assert max(abs(row["gap"]) for row in found["examples"]) < 0.5


@pytest.mark.slow
def test_its_own_tests_pass_and_flower_gives_the_same_hash(package: Path, site: Path, tmp_path: Path) -> None:
    finish(package, site, "pytest", "-q")
    finish(package, site, "simulations.cli", "run", "diabetes.toml", "--run-dir", tmp_path / "flower")
    polyfed("run", package / "diabetes.toml", "--in-process", "--run-dir", tmp_path / "here")
    results = [
        json.loads((tmp_path / way / "result.json").read_text(encoding="utf-8")) for way in ("flower", "here")
    ]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
