"""Runs the app through Flower's own runtime, to the end, and says how it ended."""

import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx

from models.core.config import Value
from server.run_schema import FLOWER_LOG
from simulations.config import ResolvedSimulation
from simulations.runtime.control import Control, RefusedError
from simulations.runtime.oom import lack_of_memory, num_oom_kills
from simulations.runtime.staging import stage
from simulations.runtime.superlink import COLOURS, own_superlink

TICK = 0.2
"""Seconds between two calls of on_tick."""
TAIL = 1000
"""Chunks of the log that are kept to look for the error in."""
EXCEPTION = "Simulation failed with exception: "
"""How Flower's details of a run begin where an exception ended it."""
NO_HEARTBEAT = "No heartbeat received from the task"
"""Flower's details of a run whose process was killed; it notices after a minute."""
STOPPED = "it was stopped through Flower, as by `flwr stop`"
"""What is said of a run that ended otherwise than it should, and of which Flower gives no details."""
TRACEBACK = r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(\S.*)$"
"""A traceback at the start of a line, and in it the line that names the exception."""
WRAPPERS = ("Simulation Runtime crashed.", "An error was encountered. Ending simulation.")
"""Messages of the exceptions that Flower raises around the one that says what went wrong."""


@dataclass(frozen=True)
class FlowerOutcome:
    """How a run ended in the eyes of Flower, to which a run whose every client failed is completed."""

    status: str
    """ "completed", "failed" or "stopped"."""
    run_id: int | None
    """Flower's number of the run; None where it never began."""
    error: str
    """One line that says what went wrong; "" for a completed run."""
    last_words: str = ""
    """The end of Flower's log, where it did not complete the run."""
    may_go_better: bool = False
    """Whether it failed in a way that need not come again."""


def run_on_flower(
    run_config: Mapping[str, Value],
    simulation: ResolvedSimulation,
    *,
    on_tick: Callable[[], None] | None = None,
    verbose: bool = False,
    app: Path | None = None,
) -> FlowerOutcome:
    """Run the Flower app in the folder `app`, or polyfed's own, on a SuperLink of its own.

    `run_config` overrides the app's defaults. Its "run-dir" is an absolute folder, which gets
    flower.log; its "threads" are the CPU threads of a worker. `on_tick` is called about five times a
    second while the run is under way; `verbose` copies the log to standard error.

    Everything listens on the loopback alone, and shares no port, FLWR_HOME or Ray cluster with another
    run, which is why RAY_ADDRESS is not heeded. No process and no temporary folder outlives the call,
    whether it returns, raises (KeyboardInterrupt included) or is killed with its process.
    """
    log_file = Path(str(run_config["run-dir"])) / FLOWER_LOG
    log_file.parent.mkdir(parents=True, exist_ok=True)
    run_id, killed_before = None, num_oom_kills()
    with own_superlink(int(run_config["threads"])) as superlink:
        app = app or stage(superlink.folder)
        try:
            with closing(Control.at(superlink.wait_until_ready())) as control:
                run_id = control.start_run(app, run_config, simulation)
                tail = follow(control.log(run_id), log_file, on_tick, verbose)
                status, details = control.status(run_id)
        except RefusedError:
            said = f"Flower refused the run: {superlink.last_words()}"
            return FlowerOutcome("failed", None, said, superlink.log())
        except (httpx.TransportError, ChildProcessError):
            error = f"the SuperLink {superlink.ending()}{lack_of_memory(killed_before)}"
            return FlowerOutcome("failed", run_id, error, superlink.log(), may_go_better=True)
    if status == "completed":
        return FlowerOutcome(status, run_id, "")
    error = error_line(tail, details, lack_of_memory(killed_before)) or STOPPED
    return FlowerOutcome(status, run_id, error, tail, may_go_better=status == "failed")


def follow(chunks: Iterable[str], log_file: Path, on_tick: Callable[[], None] | None, verbose: bool) -> str:
    """Write the log as it comes, until the run ends, and return its last chunks."""
    tail: deque[str] = deque(maxlen=TAIL)
    failures: list[Exception] = []

    def copy() -> None:
        try:
            with log_file.open("a", encoding="utf-8") as file:
                for chunk in chunks:
                    plain = COLOURS.sub("", chunk)
                    tail.append(plain)
                    file.write(plain)
                    file.flush()
                    if verbose:
                        sys.stderr.write(plain)
        except Exception as error:
            failures.append(error)

    # In a thread, so that an on_tick and a Ctrl-C need not wait for the next chunk.
    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(TICK)
        if on_tick is not None:
            on_tick()
    if failures:
        raise failures[0]
    return "".join(tail)


def error_line(log: str, details: str, lack_of_memory: str = "") -> str:
    """Return the exception that ended the run, or Flower's `details` where it was none.

    Flower prints that exception last, but for those that it raises around it. `lack_of_memory` is what is
    known of why a process died that said nothing.
    """
    found = details.removeprefix(EXCEPTION)
    if details.startswith(EXCEPTION):
        raised = re.findall(TRACEBACK, log, flags=re.MULTILINE)
        found = next((line for line in reversed(raised) if not line.endswith(WRAPPERS)), found)
    elif details == NO_HEARTBEAT:
        found = f"the process of the ServerApp was killed, or died without a word{lack_of_memory}"
    return " ".join(found.split())
