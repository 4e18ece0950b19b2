"""Ray for one run, where it cannot start."""

import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.core.errors import UserError
from simulations.config import ResolvedSimulation
from simulations.runtime import reaper
from simulations.runtime.ray_session import ray_session

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
