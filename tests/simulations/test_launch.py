"""How a launched run ends: Ray while the server has its last work to do, and the report while Ray ends."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from shortened import toy

from models.core.config import Value
from models.core.errors import UserError
from server.run_schema import CONFIG, LABELS, METRICS, RESULT
from simulations.runtime import launch as module
from simulations.runtime.in_process import InProcessGrid
from simulations.runtime.launch import Start, launch


def test_ray_ends_from_the_last_round_on_and_is_waited_for_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def note_what_there_is(grid: InProcessGrid) -> None:
        rounds = (tmp_path / METRICS).read_text(encoding="utf-8").count("\n")
        steps.append(f"let go after {rounds} rounds, {_status(tmp_path)}")

    @contextmanager
    def watched(*_: object) -> Iterator[Start]:
        yield None
        steps.append("waited for")

    monkeypatch.setattr(InProcessGrid, "let_go", note_what_there_is)
    monkeypatch.setattr(module, "_workers", watched)
    config: dict[str, Value] = toy("cnn") | {"num-nodes": 2, "run-dir": str(tmp_path)}
    console = Console(file=io.StringIO())
    with launch(config, runtime="in-process", verbose=False, console=console) as result:
        steps.append(f"given {result.status}")
    assert config["num-server-rounds"] == 2
    assert steps == ["let go after 2 rounds, unfinished", "given completed", "waited for"]


def test_a_folder_that_holds_a_run_is_refused_before_its_labels_are_read(tmp_path: Path) -> None:
    (tmp_path / LABELS).write_text("broken", encoding="utf-8")
    (tmp_path / CONFIG).write_text("", encoding="utf-8")
    config: dict[str, Value] = toy("cnn") | {"run-dir": str(tmp_path)}
    started = launch(config, runtime="in-process", verbose=False, console=Console(file=io.StringIO()))
    with pytest.raises(UserError, match="already holds a run: resume it, or give another run-dir"), started:
        pass


def _status(folder: Path) -> str:
    status: str = json.loads((folder / RESULT).read_text(encoding="utf-8"))["status"]
    return status
