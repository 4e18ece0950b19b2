"""How often a model of 100 MB is copied in a round: docs/speed.md names each copy that is left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import SUPPORT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted as Linux counts them"),
]

CLIENTS = 3
"""Of the one node, as in count_copies.py; each takes one step."""


def copies(folder: Path, **settings: str | int) -> dict[str, float]:
    """Return phase -> copies of the model in the second round, in a process of their own."""
    keys = {key.replace("_", "-"): value for key, value in settings.items()}
    command = [sys.executable, SUPPORT / "count_copies.py", folder, json.dumps(keys)]
    counts: dict[str, float] = json.loads(last_line(command))
    return {phase: count for phase, count in counts.items() if count > 0.2}


def last_line(command: list[str | Path]) -> str:
    """Return the last line that a command prints."""
    # By itself the C library changes what it keeps of freed memory as it runs.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-1]


def test_copies_of_a_mean(tmp_path: Path) -> None:
    expected = {
        "worker: training": 2 * CLIENTS,  # each has gradients, and a momentum
        "worker: from the request to the reply": 2,  # the sum of all of them, in float64
        "server: mean": 1,  # the new weights
    }
    assert copies(tmp_path) == pytest.approx(expected, abs=0.2)


def test_copies_where_every_reply_is_wanted(tmp_path: Path) -> None:
    found = copies(tmp_path, strategy="FedMedian", checkpoint_every=0)
    assert found.pop("server: aggregation") > CLIENTS  # Flower's own
    expected = {
        "worker: training": 2 * CLIENTS,
        "worker: from the request to the reply": CLIENTS,  # as the next client gets the model
    }
    assert found == pytest.approx(expected, abs=0.2)


def test_the_servers_memory_does_not_grow_with_the_cohort(tmp_path: Path) -> None:
    """A sum of 6.9 million weights takes 55 MB; 20 more of them would be 1.1 GB."""
    few, many = (
        int(last_line([sys.executable, SUPPORT / "measure_server.py", tmp_path / num_nodes, num_nodes]))
        for num_nodes in ("4", "24")
    )
    assert many - few < 2 * 55
