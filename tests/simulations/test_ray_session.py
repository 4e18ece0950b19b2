"""Ray for one run, or for several, where it cannot start."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.core.errors import UserError
from simulations.config import ResolvedSimulation
from simulations.runtime import reaper, warm
from simulations.runtime.ray_session import Session, kept_session, ray_session

ONE = ResolvedSimulation(num_workers=1, num_nodes=1, client_gpus=0.0)


def test_ray_that_the_process_uses_itself_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in has no method that would start or end anything."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    with pytest.raises(UserError, match="this process uses Ray already"), ray_session({}, ONE):
        pass


def test_ray_that_cannot_be_imported_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with ray_session({"threads": 1, "run-dir": str(tmp_path)}, ONE) as session:
        assert isinstance(session.workers.exception(timeout=20), ModuleNotFoundError)


def test_a_second_thread_is_told_that_another_one_runs_on_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # so that nothing starts
    config = {"threads": 1, "run-dir": str(tmp_path)}
    before, told = dict(os.environ), list[str]()

    def second() -> None:
        with pytest.raises(UserError) as raised, ray_session(config, ONE):
            pass
        told.append(str(raised.value))

    with ray_session(config, ONE):
        assert os.environ[reaper.MARK]
        os.environ["SET_MEANWHILE"] = "by another thread"
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert os.environ.pop("SET_MEANWHILE") == "by another thread"
    assert dict(os.environ) == before
    assert [line.partition(",")[0] for line in told] == ["this process runs on Ray already"]
    with ray_session(config, ONE):
        pass


def test_between_runs_the_environment_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    before = dict(os.environ)
    with kept_session({"threads": 1, "run-dir": str(tmp_path)}, ONE) as session:
        assert dict(os.environ) == before
        for _ in range(2):
            with session.at_work():
                assert os.environ[reaper.MARK] == str(session.folder)
            assert dict(os.environ) == before
    assert session.ended


def test_a_run_that_fails_before_ray_has_started_ends_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    class SlowRay:
        """Begins to be imported, and is not asked for anything afterwards."""

        def find_spec(self, name: str, *_: object) -> None:
            if name == "ray":
                asked.set()
                time.sleep(0.2)

    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(sys, "meta_path", [SlowRay(), *sys.meta_path])
    kept = kept_session({"threads": 1, "run-dir": str(tmp_path)}, ONE)
    with kept as session:
        with session.at_work():
            assert asked.wait(20)
        assert isinstance(session.workers.exception(), CancelledError)


def test_workers_start_anew_where_another_folder_holds_the_users_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []
    running: Future[object] = Future()
    running.set_result(None)

    @contextmanager
    def noted(*_: object) -> Iterator[SimpleNamespace]:
        started.append(Path.cwd())
        yield SimpleNamespace(workers=running, ended=False, at_work=nullcontext, keep_output=lambda: None)

    monkeypatch.setattr(warm, "kept_session", noted)
    with warm.Workers() as workers:
        for folder, sessions in (("a", 1), ("a", 1), ("b", 2)):
            (tmp_path / folder).mkdir(exist_ok=True)
            monkeypatch.chdir(tmp_path / folder)
            with workers.for_run({"threads": 1, "run-dir": str(tmp_path)}, ONE):
                assert len(started) == sessions
    assert started == [tmp_path / "a", tmp_path / "b"]


def test_ray_that_did_not_start_is_tried_again_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Session] = []

    @contextmanager
    def noted(*given: Any) -> Iterator[Session]:
        with kept_session(*given) as session:
            started.append(session)
            yield session

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(warm, "kept_session", noted)
    with warm.Workers() as workers:
        for sessions in (1, 2):
            with workers.for_run({"threads": 1, "run-dir": str(tmp_path)}, ONE):
                assert isinstance(started[-1].workers.exception(20), ModuleNotFoundError)
            assert len(started) == sessions


def test_workers_serve_one_thread_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    config = {"threads": 1, "run-dir": str(tmp_path)}
    with warm.Workers() as workers:
        with workers.for_run(config, ONE):
            before = dict(os.environ)
            with (
                pytest.raises(UserError, match="these workers run another run"),
                workers.for_run(config, ONE),
            ):
                pass
            assert dict(os.environ) == before
        with workers.for_run(config, ONE):
            pass
