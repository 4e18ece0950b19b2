"""What one client of a scenario costs: it is trained in a fresh process, which is measured.

`python -m simulations.doctor.one_client FILE` reads a run config in JSON and prints a Cost as the last line,
or what is wrong with the config.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.core.config import TaskConfig, Value, read
from models.core.errors import UserError
from models.core.local_work import for_client
from models.core.tracebacks import line_of
from server.errors import RunFailedError

LOOKED_AT = 100
"""Clients among which the one with the most examples is measured."""
LONG = 5.0
"""Seconds from which a training is not repeated to be timed warm."""
COST, MISTAKE = "cost: ", "mistake: "
"""How the line begins that the process ends with."""


@dataclass(frozen=True)
class Cost:
    """What training one client takes."""

    client: int
    num_examples: int
    seconds: float
    """Of a round's training, once warm."""
    memory: int
    """Largest memory of the process, in bytes, with its libraries and the whole dataset."""
    gpu_memory: int
    """Largest memory on the GPU that torch has taken, in bytes; 0 on a CPU."""
    device: str


def measure(run_config: Mapping[str, Value]) -> Cost:
    """Train one client in a fresh process.

    Raises UserError for a config that cannot work, and RunFailedError where the process fails.
    """
    with tempfile.TemporaryDirectory(prefix="polyfed-doctor-") as folder:
        path = Path(folder, "config.json")
        path.write_text(json.dumps(dict(run_config)), encoding="utf-8")
        # -P: modules of the current folder do not come before polyfed's.
        code = "import sys; from simulations.doctor.one_client import main; main(sys.argv[1])"
        ended = subprocess.run(
            [sys.executable, "-P", "-c", code, str(path)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    last = next(iter(ended.stdout.splitlines()[-1:]), "")
    if ended.returncode == 0 and last.startswith(COST):
        return Cost(**json.loads(last.removeprefix(COST)))
    if last.startswith(MISTAKE):
        raise UserError(last.removeprefix(MISTAKE))
    if ended.returncode < 0:
        raise RunFailedError(f"the process that trained a client was killed (signal {-ended.returncode})")
    raise RunFailedError(
        f"one client could not be trained: {ended.stderr.strip()[-2000:] or ended.returncode}"
    )


def main(path: str) -> None:
    """Measure in this process, and print."""
    run_config = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        cost = _measured(run_config)
    except UserError as error:
        print(f"{MISTAKE}{error}")
        sys.exit(2)
    except Exception as error:
        print(line_of(error), file=sys.stderr)
        sys.exit(1)
    print(COST + json.dumps(asdict(cost)))


def _measured(run_config: dict[str, Any]) -> Cost:
    """Train the client twice, or once where that takes long, as a node would."""
    import torch

    import clients.answers  # noqa: F401  (what a worker imports)
    from clients.loop import train_epochs
    from clients.transfer import at_hand
    from clients.worker import load_worker
    from models.core.device import pinned
    from models.core.seeds import generator_for
    from models.optimizers import make_optimizers

    config = read(TaskConfig, run_config)
    worker = load_worker(config, "")
    client = _largest(worker.partition, config.num_clients)
    examples = at_hand(worker.task, worker.examples(client)[0], worker.device)
    config, local_epochs = for_client(config, {})
    seconds = 0.0
    with pinned(config.threads):
        for _ in range(2):
            started = time.perf_counter()
            worker.put(worker.initial)
            train_epochs(
                worker.task,
                worker.model,
                examples,
                make_optimizers(worker.task, worker.model.named_parameters(), config),
                generator=generator_for(config.seed, "train", 1, client),
                local_epochs=local_epochs,
                batch_size=config.batch_size,
                device=worker.device,
                autocast=config.precision == "bfloat16",
            )
            for tensor in worker.state.values():  # as a reply has them
                tensor.cpu().clone()
            seconds = time.perf_counter() - started
            if seconds > LONG:
                break
    on_gpu = worker.device.type == "cuda"
    return Cost(
        client=client,
        num_examples=worker.task.num_examples(examples),
        seconds=seconds,
        memory=peak_memory(),
        gpu_memory=torch.cuda.max_memory_reserved(worker.device) if on_gpu else 0,
        device=str(worker.device),
    )


def peak_memory() -> int:
    """Return the largest memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _largest(partition: Any, num_clients: int) -> int:
    """Return the client with the most examples among the first."""
    return max(range(min(num_clients, LOOKED_AT)), key=lambda client: len(partition[client]))
