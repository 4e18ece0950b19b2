"""Runs on the nodes of a SuperLink, whose part other code plays here."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from command_line import Ended, polyfed

from models.core.config import Value
from simulations.deploy import asked, runs
from simulations.deploy.folder import Folder, Running
from simulations.runtime.control import RefusedError
from simulations.runtime.in_process import run_in_process


@dataclass
class Played:
    """A SuperLink's Control API; `fault` is what comes instead of a run."""

    fault: type[BaseException] | None = None
    stopped: list[int] = field(default_factory=list)
    packages: set[str] = field(default_factory=set)

    def start_run(self, app: Path, run_config: Mapping[str, Value]) -> int:
        self.packages = {path.name for path in app.iterdir()}
        if self.fault is RefusedError:
            raise RefusedError
        if self.fault is None:
            run_in_process(dict(run_config))
        return 7

    def log(self, run_id: int) -> Iterator[str]:
        yield "a line of Flower\n"
        if self.fault:
            raise self.fault("cut")

    def status(self, run_id: int) -> tuple[str, str]:
        return "completed", ""

    def stop_run(self, run_id: int) -> None:
        self.stopped.append(run_id)

    def close(self) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    folder = Folder.made(tmp_path / "server")
    folder.remember(Running("flower-superlink", 1, str(folder.path), "127.0.0.1:8000"))
    monkeypatch.setattr(asked, "running", lambda _: SimpleNamespace(address="127.0.0.1:8000"))
    monkeypatch.setattr(asked, "is_up", lambda *_: True)
    monkeypatch.setattr(asked, "client", lambda *_: None)
    return folder


def started(server: Folder, played: Played, monkeypatch: pytest.MonkeyPatch) -> Ended:
    monkeypatch.setattr(runs, "Control", lambda _: played)
    run = server.path.parent / "run"
    keys = ("-c", "num-clients=2", "-c", "num-server-rounds=1")
    return polyfed("deploy", "run", server.path, "cnn-digits", *keys, "--run-dir", run)


def test_a_run_ends_as_polyfed_run_does(server: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    played, run = Played(), server.path.parent / "run"
    ended = started(server, played, monkeypatch)
    assert ended.code == 0, ended.err
    assert played.packages == {"server", "clients", "strategies", "models", "pyproject.toml"}
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert f"weights: {result['weights_sha256']}" in ended.out
    assert "run 7 on the SuperLink at 127.0.0.1:8000" in ended.out
    assert (run / "flower.log").read_text(encoding="utf-8") == "a line of Flower\n"
    assert not played.stopped
    assert [path for path in (run, *run.iterdir()) if path.stat().st_mode & 0o077] == []


def test_ctrl_c_ends_it_on_the_superlink(server: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(KeyboardInterrupt)
    monkeypatch.setattr(runs, "follow", lambda chunks, *_: list(chunks))  # in this thread, as a Ctrl-C is
    ended = started(server, played, monkeypatch)
    assert (ended.code, played.stopped) == (130, [7])
    assert "polyfed: interrupted" in ended.err


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (RefusedError, "failed: the SuperLink refused the run: see {}/output.log"),
        (httpx.ReadError, "failed: the SuperLink on 127.0.0.1:8000 does not answer any more (cut): see"),
    ],
)
def test_a_superlink_that_refuses_or_goes(
    fault: type[Exception], said: str, server: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = started(server, Played(fault), monkeypatch)
    assert ended.code == 1
    assert said.format(server.path) in ended.out


def test_what_goes_on_with_it(server: Folder) -> None:
    folder = server.path.parent / "a run"
    start = runs.OnNodes(run_config={}, folder=folder, runtime="flower", server=server)
    assert start.command() == f"polyfed deploy run {server.path} --resume '{folder}'"


def test_nothing_is_made_where_no_superlink_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Folder.made(tmp_path / "server")
    folder.remember(Running("flower-superlink", 2**22, str(folder.path), "127.0.0.1:8000"))
    ended = polyfed("deploy", "run", folder.path, "cnn-digits")
    assert (ended.code, ended.out) == (2, "")
    assert f"no SuperLink runs in {folder.path}: start it with polyfed deploy server" in ended.err
    assert not (tmp_path / "runs").exists()
