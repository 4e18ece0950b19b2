"""CPUs and memory that processes here may use, which may be less than the machine has."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from joblib import cpu_count  # heeds what a scheduler or a container allows this process

from simulations.doctor.finding import Finding, in_bytes

CGROUPS, OWN_CGROUPS, SHM = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/dev/shm")
LIMIT_FILES = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
"""File that holds a limit -> the one that holds what is in use, of either version of cgroups."""
NO_LIMIT = 1 << 60
"""From here on, what a limit says is that there is none."""
LEAST_MEMORY = 1 << 30
"""Bytes below which a server and a worker, each with torch in it, do not get far."""
LEAST_SHM = 1 << 29
"""Bytes below which weights do not fit where Ray wants them; a container has 64 MiB unless told otherwise."""


@dataclass(frozen=True)
class Memory:
    """What processes here may use, in bytes."""

    total: int
    """Of the machine."""
    available: int
    """Free now, within the limit."""
    limit: int | None
    """That of the container or the job; None where there is none."""


def memory() -> Memory:
    """Return what there is now."""
    machine = psutil.virtual_memory()
    limits = list(_limits(CGROUPS, OWN_CGROUPS))
    return Memory(
        machine.total,
        min([machine.available, *(max(0, limit - used) for limit, used in limits)]),
        min((limit for limit, _ in limits), default=None),
    )


def cpus(allowed: int | None = None, present: int | None = None) -> Finding:
    """Say how many CPUs may be used; those of this process unless given."""
    allowed = cpu_count() if allowed is None else allowed
    present = (os.cpu_count() or allowed) if present is None else present
    if allowed < present:
        return Finding(
            "CPUs",
            f"{allowed} of {present} may be used",
            "note",
            "ask the scheduler or the container for more, if this should be more",
        )
    return Finding("CPUs", f"{present}")


def memory_finding(found: Memory) -> Finding:
    """Say how much memory there is, and whether it is too little for any run."""
    text = f"{in_bytes(found.available)} free of {in_bytes(found.total)}"
    if found.limit is not None:
        text += f", limited to {in_bytes(found.limit)} by a cgroup"
    if found.available < LEAST_MEMORY:
        return Finding("memory", text, "wrong", "end other programs, or raise the limit: a run needs 1 GiB")
    return Finding("memory", text)


def shared_memory(size: int | None, free: int) -> Finding:
    """Say how large /dev/shm is, which workers read weights from; `size` is None where there is none."""
    if size is None:
        return Finding("/dev/shm", "none on this system")
    text = f"{in_bytes(free)} free of {in_bytes(size)}"
    if free >= LEAST_SHM:
        return Finding("/dev/shm", text)
    larger = (
        "give the container more (docker run --shm-size=2g)" if size < LEAST_SHM else "remove what fills it"
    )
    return Finding("/dev/shm", text, "note", f"{larger}: Ray uses the slower temporary folder else")


def machine_findings(found: Memory) -> list[Finding]:
    """Look at CPUs and memory."""
    usage = shutil.disk_usage(SHM) if sys.platform == "linux" and SHM.is_dir() else None
    shm = shared_memory(usage.total if usage else None, usage.free if usage else 0)
    return [cpus(), memory_finding(found), shm]


def _limits(root: Path, own: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, bytes in use) of the cgroups that this process is in, and of those around them."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        # A container may see its own group at the top, under the path that the host knows it by.
        group = (top / path.lstrip("/")).resolve()
        for folder in dict.fromkeys((group, *group.parents, top)):
            if folder == top or top in folder.parents:
                yield from _limit_in(folder)


def _limit_in(folder: Path) -> Iterator[tuple[int, int]]:
    for name, current in LIMIT_FILES.items():
        try:
            limit = int((folder / name).read_text(encoding="ascii"))
            used = int((folder / current).read_text(encoding="ascii"))
        except (OSError, ValueError):  # not there, or "max"
            continue
        if limit < NO_LIMIT:
            yield limit, used
