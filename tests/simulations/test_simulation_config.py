import os

import pytest

from models.core.errors import UserError
from simulations.config import SimulationConfig, resolve


@pytest.mark.parametrize(
    ("asked", "num_cpus", "num_gpus", "expected"),
    [
        ({}, 4, 0, (4, 4)),
        ({"num_workers": 3}, 4, 0, (3, 3)),
        ({"num_workers": 3, "num_nodes": 10}, 4, 0, (3, 10)),
        ({"client_gpus": 0.25}, 16, 1, (4, 4)),
        ({"client_gpus": 0.25}, 3, 1, (3, 3)),
        ({"client_gpus": 0.4}, 16, 4, (8, 8)),  # two a GPU: a worker does not straddle
        ({"client_gpus": 0.1}, 16, 1, (10, 10)),
        ({"client_gpus": 2.0}, 16, 5, (2, 2)),
    ],
)
def test_resolve_fills_in_what_the_machine_can_carry(asked, num_cpus, num_gpus, expected):
    resolved = resolve(SimulationConfig(**asked), num_cpus, num_gpus)
    assert (resolved.num_workers, resolved.num_nodes) == expected


@pytest.mark.parametrize(
    ("asked", "num_gpus", "message"),
    [
        ({"num_workers": 8}, 0, "num-workers must be at most 2, the CPUs of this machine, got 8; "),
        ({"client_gpus": 0.5}, 0, "client-gpus must be at most 0, the GPUs of this machine, got 0.5; "),
        ({"client_gpus": 1.0, "num_workers": 2}, 1, "num-workers must be at most 1, as client-gpus is 1 "),
    ],
)
def test_resolve_refuses_what_the_machine_cannot_carry(asked, num_gpus, message):
    with pytest.raises(UserError, match=f"^{message}"):
        resolve(SimulationConfig(**asked), num_cpus=2, num_gpus=num_gpus)


@pytest.mark.parametrize(("key", "value"), [("num_workers", -1), ("num_nodes", -1), ("client_gpus", 1.5)])
def test_config_refuses_values_that_no_machine_has(key, value):
    with pytest.raises(UserError, match=key.replace("_", "-")):
        SimulationConfig(**{key: value})


def test_resolve_counts_this_machine():
    assert 1 <= resolve(SimulationConfig()).num_workers <= (os.cpu_count() or 1)
