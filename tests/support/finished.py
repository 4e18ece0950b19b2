"""Runs in this process, to their end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from places import SUPPORT

from models.core.config import Value
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]
"""The fixture `tiny`."""


def finish(config: dict[str, Value], num_nodes: int = 1) -> dict[str, Any]:
    """Return the result, the run's "folder", its "rows" of metrics, and those of the "untrained" model."""
    run_in_process(config, num_nodes)
    folder = Path(str(config["run-dir"]))
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["status"] == "completed"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {**result, "folder": folder, "rows": rows, "untrained": rows[0].get("central", {})}


def finish_alike(tiny: Make, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the result that the run has on one node and on three."""
    one, three = (
        finish(tiny(**changes, run_dir=str(folder / str(num_nodes))), num_nodes) for num_nodes in (1, 3)
    )
    assert one["weights_sha256"] == three["weights_sha256"]
    assert one["final"] == three["final"]
    return one


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result


def run_killed(config: dict[str, Value], num_nodes: int = 2) -> None:
    """Run in a process of its own, which must die of SIGKILL."""
    code = "import json, sys; from simulations.runtime.in_process import run_in_process as run\n"
    code += f"run(json.loads(sys.argv[1]), {num_nodes})"
    command = [sys.executable, "-c", code, json.dumps(config)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # it finds what the test does
    ended = subprocess.run(command, cwd=SUPPORT, env=env, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
