"""Ray for one run, where it cannot start."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.core.errors import UserError
from simulations.config import ResolvedSimulation
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
    with ray_session({"threads": 1, "run-dir": str(tmp_path)}, ONE) as started:
        assert isinstance(started.exception(timeout=20), ModuleNotFoundError)
