"""Whether this machine's kernel has killed a process for lack of memory."""

from pathlib import Path

VMSTAT = Path("/proc/vmstat")


def num_oom_kills(vmstat: Path = VMSTAT) -> int | None:
    """Return how many processes the kernel has killed for lack of memory; None where it does not count."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        return None
    counts = [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
    return counts[0] if counts else None


def lack_of_memory(before: int | None, vmstat: Path = VMSTAT) -> str:
    """Return what the count says of a process that has died since it was `before`, to end a line with."""
    now = num_oom_kills(vmstat)
    if before is None or now is None:
        return ""
    killed = "a process for lack of memory: use fewer workers or smaller batches"
    return f" (the kernel killed {killed})" if now > before else " (not for lack of memory)"
