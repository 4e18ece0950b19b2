"""How often a model of 100 MB is copied in a round: docs/speed.md names each copy that is left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import SUPPORT

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="page faults are counted as Linux counts them"
)

CLIENTS = 6
"""Of the one node, as in count_copies.py; each takes one step."""


def copies(folder: Path, **settings: str | int) -> dict[str, int]:
    """Return phase -> copies of the model in the second round, in a process of their own."""
    keys = {key.replace("_", "-"): value for key, value in settings.items()}
    command = [sys.executable, SUPPORT / "count_copies.py", folder, json.dumps(keys)]
    # By itself the C library keeps freed memory in ways that change as it runs.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    counts: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    assert all(abs(count - round(count)) < 0.2 for count in counts.values()), counts
    return {phase: round(count) for phase, count in counts.items() if round(count)}


def test_copies_of_a_mean(tmp_path: Path) -> None:
    assert copies(tmp_path) == {
        "worker: training": 2 * CLIENTS,  # each has gradients, and a momentum
        "worker: from the request to the reply": 2,  # the sum of all of them, in float64
        "server: mean": 1,  # the new weights
    }


def test_copies_where_every_reply_is_wanted(tmp_path: Path) -> None:
    found = copies(tmp_path, strategy="FedMedian", checkpoint_every=0)
    assert found.pop("server: aggregation") >= CLIENTS  # Flower's own
    assert found == {
        "worker: training": 2 * CLIENTS,
        "worker: from the request to the reply": CLIENTS,  # the replies, as the next client gets the model
    }


def test_the_servers_memory_does_not_grow_with_the_cohort(tmp_path: Path) -> None:
    """A sum of 6.9 million weights takes 55 MB; 20 more of them would be 1.1 GB."""
    peaks = []
    for num_nodes in (4, 24):
        folder = tmp_path / str(num_nodes)
        command = [sys.executable, SUPPORT / "measure_server.py", folder, str(num_nodes)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        peaks.append(int(subprocess.check_output(command, env=env, text=True, timeout=300).splitlines()[-1]))
    assert peaks[1] - peaks[0] < 55
