"""A process keeps the memory that a step of training frees."""

import sys
from subprocess import run

import pytest

from models.core.memory import keep_freed_memory

STEPS = """
import resource, sys
import torch
from models.core.memory import keep_freed_memory
if sys.argv[1] == "keeps":
    assert keep_freed_memory()
torch.set_num_threads(1)
def step():
    activations = [torch.ones(500_000) for _ in range(20)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Return how many pages the system cleared for a step, of 20 tensors of 2 MB, that was taken before."""
    return int(run([sys.executable, "-c", STEPS, how], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="needs glibc")
def test_a_step_asks_the_system_for_no_memory() -> None:
    assert faults("keeps") < faults("gives back") / 10
