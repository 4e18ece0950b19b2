"""Imports what runs need, once, and forks a process for each run: `python fork_server.py` is warm for all.

A fork copies the thread that forks and no other, so nothing here starts one, and no code of a user's is
imported here: it is each run's own.
"""

import atexit
import gc
import io
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

PRELOADED = (
    "simulations.cli",
    "simulations.start",
    "simulations.runtime.launch",
    "simulations.runtime.in_process",
    "simulations.report.page",
    # What these import where they first need it.
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "sklearn.datasets",
    "sklearn.metrics",
    "torch._dynamo",
    "torch.utils.tensorboard",
)
OF_TASK = {
    "clip": ("sklearn.linear_model",),
    "contrastive": ("sklearn.linear_model", "sklearn.manifold"),
    "detect": ("faster_coco_eval", "torchvision.models.detection"),
    "dialogue": ("sacrebleu.metrics",),
    "dqn": ("gymnasium.vector", "gymnasium.wrappers"),
    "gan": ("torchvision.utils",),
    "masked-lm": ("transformers.models.bert", "tokenizers"),
    "masked-pixels": ("torchvision.utils",),
    "ner": ("transformers.models.bert", "tokenizers"),
    "seq2seq": ("sacrebleu.metrics",),
    "text-classify": ("transformers.models.bert", "tokenizers"),
    "vae": ("torchvision.utils",),
}
"""Task -> what it imports beside that, where it first needs it."""

FAILURE = 1
"""Exit code of a run that nobody has an answer to."""


class Order(NamedTuple):
    """A run to fork for."""

    number: int
    """By which its end is told."""
    words: Sequence[str]
    """Of the `polyfed` command."""
    log: str
    """The file that takes what it prints."""


def main(descriptor: int, modules: Sequence[str], said: Path) -> None:
    """Import, then fork for each order that comes over the socket; in a forked process, do what it orders.

    `said` is the file that takes what this process prints.
    """
    driver = Connection(descriptor)
    prepare(modules)
    _become(_serve(driver), said)
    _end(_code_of_command())


def prepare(modules: Sequence[str]) -> None:
    """Import what runs need, these modules too."""
    # pandas imports pyarrow where that is installed, whose memory allocator would start a thread.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    for name in (*PRELOADED, *modules):
        with suppress(Exception):  # a run that needs it says what is wrong with it
            import_module(name)
    with suppress(Exception):
        _draw()
    gc.collect()
    gc.freeze()  # a collection in a forked process leaves alone what all of them share


def _draw() -> None:
    """Draw what nobody looks at, for the fonts to be found and the page's template to be compiled."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from simulations.report.page import template

    template()
    figure = Figure(layout="constrained")
    figure.subplots().set_title("0123456789")
    figure.savefig(io.BytesIO(), format="svg")
    FigureCanvasAgg(figure).draw()


def _serve(driver: Connection) -> Order:
    """Fork for each order, until nobody is left to give one; return the order, in the forked process alone.

    The other side is told each order's number with the exit code of its process, or minus the signal.
    """
    numbers: dict[int, int] = {}  # process -> its order's
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, _ignore)  # a signal without a Python function wakes nobody
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([driver.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            for pid in list(numbers):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    driver.send((numbers.pop(pid), os.waitstatus_to_exitcode(status)))
        if driver.fileno() in ready:
            try:
                order = Order(*driver.recv())
            except (EOFError, OSError):  # nobody is left to run for, and a reaper ends what runs
                os._exit(0)
            sys.stdout.flush()
            sys.stderr.flush()
            try:
                pid = os.fork()
            except OSError as error:
                Path(order.log).write_text(f"failed: no process could be forked: {error}\n", encoding="utf-8")
                driver.send((order.number, FAILURE))
                continue
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(woken)
                os.close(wake)
                driver.close()
                return order
            numbers[pid] = order.number


def _ignore(_: int, __: FrameType | None) -> None:
    """Do nothing."""


def _become(order: Order, said: Path) -> None:
    """Make this process one of its own: session, output, arguments, and random numbers that nobody seeds."""
    os.setsid()
    with Path(order.log).open("wb") as log:
        log.write(said.read_bytes())  # warnings of the imports
        log.flush()
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    sys.argv = ["polyfed", *order.words]
    import numpy as np

    np.random.seed()  # Python's own are seeded anew by a fork, and torch begins with the same ones everywhere


def _code_of_command() -> int:
    """Do what the arguments say; return the exit code."""
    from simulations.cli import main as command_line

    try:
        command_line()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FAILURE
    except BaseException:
        traceback.print_exc()
        return FAILURE
    return 0


def _end(code: int) -> NoReturn:
    """End this process as Python would: its threads, its exit functions, its files that are still open.

    But for taking apart, object by object, what lies in memory that it shares: half a second of it.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for each in gc.get_objects():
        if issubclass(type(each), io.IOBase) and not each.closed and each.writable():
            with suppress(Exception):
                each.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[3:], Path(sys.argv[2]))
