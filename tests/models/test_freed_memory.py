"""Freed memory that stays with the process."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from models.core.memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**23)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_a_large_array_takes_the_place_of_the_last_one() -> None:
    def faults(how: str) -> int:
        env = {"NUMPY_MADVISE_HUGEPAGE": "0", "PYTHONPATH": "."}
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.check_output(command, env=env, text=True, encoding="utf-8", timeout=60))

    assert faults("given back") > 1000
    assert faults("kept") < 100
