"""What result.json says of what computed it."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from places import ROOT

from models.core.config import Value
from server import provenance
from server.provenance import git_commit, lock_sha256, machine, source, versions
from server.run_schema import SCHEMA, RunResult
from simulations.report.page import write_report
from simulations.runtime.in_process import run_in_process


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n", encoding="utf-8")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_the_commit_is_named_and_whether_the_code_was_changed(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert git_commit(checkout) == commit
    (checkout / "run").mkdir()  # what git does not know is no change
    (checkout / "run" / "result.json").write_text("{}", encoding="utf-8")
    git_commit.cache_clear()
    assert git_commit(checkout) == commit
    (checkout / "code.py").write_text("a = 2\n", encoding="utf-8")
    git_commit.cache_clear()
    assert git_commit(checkout) == f"{commit}-dirty"


def test_a_repository_further_up_is_not_polyfeds(checkout: Path) -> None:
    (checkout / "site-packages").mkdir()
    assert git_commit(checkout / "site-packages") is None


def test_a_git_that_hangs_or_is_missing_costs_no_run(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = tmp_path_factory.mktemp("commands")
    monkeypatch.setenv("PATH", str(commands))
    assert git_commit(checkout) is None
    (commands / "git").write_text(f"#!{os.path.realpath('/bin/sh')}\nexec /bin/sleep 60\n", encoding="utf-8")
    (commands / "git").chmod(0o755)
    monkeypatch.setattr(provenance, "GIT_TIMEOUT", 0.2)
    git_commit.cache_clear()
    started = time.monotonic()
    assert git_commit(checkout) is None
    assert time.monotonic() - started < 10


def test_the_lock_file_is_found_beside_the_code_and_inside_a_wheel(tmp_path: Path) -> None:
    assert lock_sha256(tmp_path) is None
    (tmp_path / "requirements.lock").write_bytes(b"numpy==2.0\n")
    assert lock_sha256(tmp_path) == hashlib.sha256(b"numpy==2.0\n").hexdigest()
    (tmp_path / "simulations").mkdir()
    (tmp_path / "simulations" / "requirements.lock").write_bytes(b"numpy==2.1\n")
    assert lock_sha256(tmp_path) == hashlib.sha256(b"numpy==2.1\n").hexdigest()


def test_versions_are_of_what_polyfed_declares() -> None:
    found = versions()
    assert list(found)[:5] == ["python", "polyfed", "flwr", "torch", "ray"]
    for package in ("torch", "numpy", "scikit-learn", "safetensors", "pydantic", "peft"):
        assert found[package] == version(package)
    assert not {"pytest", "mkdocs"} & found.keys(), "what only developers need decides no result"


def test_a_copy_says_what_it_was_made_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert source() == ROOT
    monkeypatch.setenv(provenance.SOURCE, str(tmp_path))
    assert source() == tmp_path


def test_a_run_writes_all_of_it_and_the_report_shows_it(tiny: Callable[..., dict[str, Value]]) -> None:
    config = tiny(num_clients=2, num_server_rounds=1, threads=2)
    run_in_process(config)
    folder = Path(str(config["run-dir"]))
    written = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    result = RunResult.model_validate(written)
    assert written["schema_number"] == SCHEMA
    assert result.versions == versions()
    assert result.git_commit == git_commit(ROOT)
    assert result.machine == machine(2, "cpu")
    assert result.machine.instruction_set == torch.backends.cpu.get_cpu_capability()
    assert written["lock_sha256"] == lock_sha256(ROOT)
    assert written["disk"]["checkpoints"] > 4 * written["num_parameters"]
    page = write_report([folder]).read_text(encoding="utf-8")
    assert f"numpy {version('numpy')}" in page
    assert f"{result.machine.instruction_set} · 2 threads a model" in page
    assert result.machine.cpu in page
    assert f"commit {result.git_commit or 'unknown'}" in page
