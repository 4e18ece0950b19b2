"""What is told before a run starts, of keys that its way of running does not heed or cannot give."""

from typing import Any

import pytest

from models.core.errors import UserError
from simulations.runtime.heeded import check_device, check_nodes, unheeded
from simulations.scenario import defaults


@pytest.mark.parametrize(
    ("runtime", "key", "value", "said"),
    [
        ("ray", "num-nodes", 3, ["num-nodes = 3 is not heeded on Ray, where all workers are one node"]),
        ("flower", "num-nodes", 3, []),
        ("in-process", "num-nodes", 3, []),
        ("ray", "client-timeout", 5.0, []),
        ("flower", "client-timeout", 5.0, ["client-timeout stops clients between two batches"]),
        ("ray", "staleness-exponent", 0.5, []),
        ("in-process", "staleness-exponent", 1.0, ["staleness-exponent is of asynchronous rounds alone"]),
        ("in-process", "client-timeout", 5.0, ["client-timeout stops clients between two batches"]),
        ("ray", "secure-threshold", 0.9, ["secure-threshold does nothing unless secure-aggregation is"]),
        ("ray", "compression-ratio", 0.5, ["compression-ratio does nothing unless compression is top-k:"]),
        ("ray", "attack-scale", 2.0, ["attack-scale does nothing unless attack is sign-flip or gaussian: "]),
        ("ray", "stack-size", 9, ["stack-size does nothing unless engine is stacked or auto: set it so"]),
        ("ray", "shards-per-client", 3, ["shards-per-client does nothing unless partitioner is shards: set"]),
        ("ray", "alpha", 0.1, []),
    ],
)
def test_keys_that_are_not_heeded(runtime: str, key: str, value: Any, said: list[str]) -> None:
    lines = list(unheeded(runtime, {**defaults(), key: value}))
    assert [line[: len(start)] for line, start in zip(lines, said, strict=True)] == said


@pytest.mark.parametrize(("runtime", "num_nodes"), [("ray", 3), ("in-process", 0), ("in-process", 1)])
def test_secure_aggregation_of_one_node_is_refused_before_the_run(runtime: str, num_nodes: int) -> None:
    config = {**defaults(), "secure-aggregation": True, "num-nodes": num_nodes}
    with pytest.raises(UserError, match=r"^secure-aggregation adds up what at least 2 nodes"):
        check_nodes(runtime, config)
    check_nodes(runtime, {**config, "secure-aggregation": False})
    check_nodes("in-process", {**config, "num-nodes": 2})
    check_nodes("flower", config)


@pytest.mark.parametrize("runtime", ["ray", "flower"])
@pytest.mark.parametrize(
    ("device", "gpus", "said"),
    [
        ("cuda", 0.0, "device is 'cuda', and client-gpus is 0, so that no worker is given a GPU: set "),
        ("cuda:1", 0.5, "device is 'cuda:1', and a worker sees only the GPUs that it is given"),
        ("cuda:2", 2.0, "device is 'cuda:2', and a worker sees only the GPUs that it is given"),
    ],
)
def test_a_gpu_that_no_worker_is_given(runtime: str, device: str, gpus: float, said: str) -> None:
    config = {**defaults(), "device": device, "client-gpus": gpus}
    with pytest.raises(UserError, match=f"^{said}"):
        check_device(runtime, config)
    check_device("in-process", config)


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0.5), ("cuda:1", 2.0), ("auto", 0.0), ("cpu", 0.0)])
def test_a_device_that_workers_have(device: str, gpus: float) -> None:
    check_device("ray", {**defaults(), "device": device, "client-gpus": gpus})
