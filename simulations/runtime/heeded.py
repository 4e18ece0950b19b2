"""What a way of running does not heed, or cannot give: told before the run starts."""

from collections.abc import Iterator, Mapping

from models.core.config import TaskConfig, Value, read
from models.core.errors import UserError
from server.config import ServerConfig
from server.secure_options import check_secure_nodes
from simulations.config import SimulationConfig

HEEDED_WITH: Mapping[str, tuple[str, tuple[Value, ...]]] = {
    "alpha": ("partitioner", ("dirichlet", "quantity")),
    "attack-fraction": ("attack", ("label-flip", "sign-flip", "gaussian")),
    "attack-scale": ("attack", ("sign-flip", "gaussian")),
    "compression-ratio": ("compression", ("top-k",)),
    "secure-threshold": ("secure-aggregation", (True,)),
    "shards-per-client": ("partitioner", ("shards",)),
    "stack-size": ("engine", ("stacked", "auto")),
}
"""Key -> another one, and the values of that with which it does anything."""


def unheeded(runtime: str, run_config: dict[str, Value]) -> Iterator[str]:
    """Yield a line for each key that does nothing beside the others, or less here than it says."""
    num_nodes = read(SimulationConfig, run_config).num_nodes
    server, default = read(ServerConfig, run_config), ServerConfig.defaults()["staleness-exponent"]
    if server.staleness_exponent != default and not server.buffer_size:
        yield "staleness-exponent is of asynchronous rounds alone: set buffer-size, or leave it out"
    usual = TaskConfig.defaults() | ServerConfig.defaults()
    for key, (other, values) in HEEDED_WITH.items():
        if run_config[key] != usual[key] and run_config[other] not in values:
            wanted = " or ".join(str(value).lower() for value in values)
            yield f"{key} does nothing unless {other} is {wanted}: set it so, or leave {key} out"
    if runtime == "ray" and num_nodes:
        yield (
            f"num-nodes = {num_nodes} is not heeded on Ray, where all workers are one node: it is for "
            "--runtime flower and --in-process"
        )
    if runtime != "ray" and server.client_timeout:
        yield (
            "client-timeout stops clients between two batches and interrupts Python; what hangs in native "
            "code it ends on Ray alone, which is the default"
        )


def check_nodes(runtime: str, run_config: dict[str, Value]) -> None:
    """Raise UserError for secure aggregation where there is one node, whose sum would be its own."""
    server, num_nodes = read(ServerConfig, run_config), read(SimulationConfig, run_config).num_nodes
    if server.secure_aggregation and runtime != "flower":  # which has as many as the machine can carry
        check_secure_nodes(1 if runtime == "ray" else num_nodes or 1)


def check_device(runtime: str, run_config: dict[str, Value]) -> None:
    """Raise UserError for a GPU that Ray would give to no worker."""
    device, gpus = read(TaskConfig, run_config).device, read(SimulationConfig, run_config).client_gpus
    if runtime == "in-process" or not device.startswith("cuda"):
        return
    if gpus == 0:
        raise UserError(
            f"device is {device!r}, and client-gpus is 0, so that no worker is given a GPU: set client-gpus "
            "(0.25 puts four workers on one GPU), or run with --in-process"
        )
    number = int(device.partition(":")[2] or 0)
    if number >= max(int(gpus), 1):
        raise UserError(
            f"device is {device!r}, and a worker sees only the GPUs that it is given, numbered from 0: set "
            "device to 'cuda' or 'auto'"
        )
