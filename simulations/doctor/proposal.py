"""How many workers a scenario should get, by what one of its clients was seen to cost."""

import math
from dataclasses import dataclass

from simulations.doctor.finding import Finding, in_bytes
from simulations.doctor.one_client import Cost

SPARE = 0.9
"""Part of the memory that is planned with."""
CONTEXT = 600 << 20
"""Bytes on a GPU that each process takes for itself: CUDA's context, and the kernels that it loads."""


@dataclass(frozen=True)
class Proposal:
    """What to set."""

    num_workers: int
    client_gpus: float
    limited_by: str
    """What allows no more workers."""
    seconds: float
    """Of a round's training, about: clients that train one after another on the busiest worker."""


def propose(
    cost: Cost,
    *,
    cohort: int,
    num_cpus: int,
    memory: int,
    threads: int = 1,
    gpu_memory: int = 0,
    num_gpus: int = 0,
) -> Proposal | None:
    """Return how many workers fit; None where not even one does.

    `memory` is what is free, in bytes, and `gpu_memory` what the smallest GPU has. The server holds about as
    much as a worker does.
    """
    most = {
        "CPUs": max(1, num_cpus // threads),
        "memory": int(SPARE * memory / max(1, cost.memory)) - 1,
        "clients a round": max(1, cohort),
    }
    on_gpu = bool(num_gpus and cost.gpu_memory)
    if on_gpu:
        each = int(SPARE * gpu_memory / (cost.gpu_memory + CONTEXT))
        most["memory of the GPUs"] = each * num_gpus
    limited_by = min(most, key=lambda name: most[name])
    workers = most[limited_by]
    if workers < 1:
        return None
    share = 0.0
    if on_gpu:
        a_gpu = math.ceil(workers / num_gpus)
        share = 1.0 if a_gpu == 1 else math.floor(1000 / a_gpu) / 1000  # rounded down, so that they all fit
    return Proposal(workers, share, limited_by, math.ceil(cohort / workers) * cost.seconds)


def proposal_findings(cost: Cost, found: Proposal | None) -> list[Finding]:
    """Say what one client costs, and what follows."""
    on_gpu = f", {in_bytes(cost.gpu_memory)} on {cost.device}" if cost.gpu_memory else f" on {cost.device}"
    rows = [
        Finding(
            "one client",
            f"client {cost.client}, {cost.num_examples} examples: {cost.seconds:.2f} s a round, "
            f"{in_bytes(cost.memory)}{on_gpu}",
        )
    ]
    if found is None:
        remedy = "end other programs, or take a smaller model, batch-size or dataset"
        return [*rows, Finding("workers", "not even one fits into the memory", "wrong", remedy)]
    said = f"-c num-workers={found.num_workers}"
    if found.client_gpus:
        said += f" -c client-gpus={found.client_gpus:g}"
    text = f"{said} ({found.limited_by} allow no more; training takes about {found.seconds:.1f} s a round)"
    return [*rows, Finding("proposal", text.replace("memory allow no", "memory allows no"))]
