"""Runs in this process, to their end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.config import Value
from simulations.in_process import run_in_process

Make = Callable[..., dict[str, Value]]
"""The fixture `tiny`."""


def finish(config: dict[str, Value], num_nodes: int = 1) -> dict[str, Any]:
    """Return the result, the run's "folder", its "rows" of metrics, and those of the "untrained" model."""
    run_in_process(config, num_nodes)
    folder = Path(str(config["run-dir"]))
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "completed"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {**result, "folder": folder, "rows": rows, "untrained": rows[0].get("central", {})}


def finish_alike(tiny: Make, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the result that the run has on one node and on three."""
    one, three = (
        finish(tiny(**changes, run_dir=str(folder / str(num_nodes))), num_nodes) for num_nodes in (1, 3)
    )
    assert one["weights_sha256"] == three["weights_sha256"]
    assert one["final"] == three["final"]
    return one
