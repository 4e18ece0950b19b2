"""One `polyfed run` as a process of its own, as a user starts it, and what it took."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import tomli_w

from models.core.config import Value
from server.errors import RunFailedError
from simulations.bench.clock import ClockedFedAvg, clocked, read_starts

RUNTIMES: Mapping[str, tuple[str, ...]] = {
    "ray": (),
    "flower": ("--runtime", "flower"),
    "in-process": ("--in-process",),
}
"""How it is run -> the options that ask for it; the first is what `polyfed run` does by itself."""
DEFAULT = next(iter(RUNTIMES))
TICK = 0.25
"""Seconds between two looks at the memory of all processes, and at the peak of the command's own."""
BRIEF = 0.01
"""Seconds between two looks at whether it has ended, where nobody asks for memory."""


@dataclass(frozen=True)
class Took:
    """What one `polyfed run` took."""

    starts: tuple[float, ...]
    """When rounds started, in seconds from the command."""
    whole: float
    """Seconds from the command to its end, with its report written."""
    memory: float = 0.0
    """Largest memory of all its processes together, in MB; 0 where nobody looked."""
    driver: float = 0.0
    """Largest memory of the command's own process, in MB; under Flower the ServerApp has another."""


def polyfed_run(
    scenario: Path | Mapping[str, Value],
    folder: Path,
    settings: Mapping[str, Value],
    *,
    runtime: str = DEFAULT,
    strategy: type[ClockedFedAvg] = ClockedFedAvg,
    options: str = "",
    watch: bool = False,
    peak: bool = False,
) -> Took:
    """Run a scenario, a file or its keys, under FedAvg with a clock; the run lies in `folder / "run"`.

    `watch` says whether to look at the memory of all processes, which takes a little of the processor, and
    `peak` whether to look at that of its own alone, which costs nothing. Raises RunFailedError, with what the
    command said, where it fails.
    """
    clock, log = folder / "clock", folder / "log"
    if isinstance(scenario, Mapping):
        (folder / "scenario.toml").write_text(tomli_w.dumps(scenario), encoding="utf-8")
        scenario = folder / "scenario.toml"
    given = {**settings, **clocked(clock, strategy, options)}
    command = [sys.executable, "-c", "from simulations.entry import main; main()", "run", str(scenario)]
    command += [word for key, value in given.items() for word in ("-c", f"{key}={_text(value)}")]
    command += ["--run-dir", str(folder / "run"), *RUNTIMES[runtime]]
    memory, driver, began = 0.0, 0.0, time.time()
    with log.open("w", encoding="utf-8") as file, psutil.Popen(command, stdout=file, stderr=file) as process:
        try:
            while process.poll() is None:
                if watch:
                    memory = max(memory, memory_of(process))
                if watch or peak:
                    driver = max(driver, peak_of(process))
                time.sleep(TICK if watch else BRIEF)
        except BaseException:
            process.terminate()
            raise
        whole = time.time() - began
    if process.returncode:
        raise RunFailedError(f"polyfed run failed: {log.read_text(encoding='utf-8')}")
    return Took(tuple(start - began for start in read_starts(clock)), whole, memory, driver)


def memory_of(process: psutil.Process) -> float:
    """Return the MB of a process and all its descendants; what n of them share counts 1/n in each."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for member in family:
        try:
            info = member.memory_full_info()
        except psutil.Error:  # it has just ended
            continue
        total += getattr(info, "pss", info.uss)  # only Linux knows the share
    return total / 1e6


def peak_of(process: psutil.Process) -> float:
    """Return the most MB that a process has held so far; without Linux's word for it, what it holds now."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        return float(peaks[0]) * 1024 / 1e6 if peaks else 0.0  # one that has ended holds nothing
    except OSError:
        pass
    try:
        return float(process.memory_info().rss) / 1e6
    except psutil.Error:
        return 0.0


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
