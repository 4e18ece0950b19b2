"""What a way of running does not heed, or cannot give: told before the run starts."""

from collections.abc import Iterator

from models.core.config import TaskConfig, Value, read
from models.core.errors import UserError
from server.config import ServerConfig
from simulations.config import SimulationConfig


def unheeded(runtime: str, run_config: dict[str, Value]) -> Iterator[str]:
    """Yield a line for each key that does less under this runtime than it says."""
    num_nodes = read(SimulationConfig, run_config).num_nodes
    server, default = read(ServerConfig, run_config), ServerConfig.defaults()["staleness-exponent"]
    if server.staleness_exponent != default and not server.buffer_size:
        yield "staleness-exponent is of asynchronous rounds alone: set buffer-size, or leave it out"
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
