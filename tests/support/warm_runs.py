"""Runs of one process that share workers: `warm_runs.py FOLDER`, which prints what it saw as JSON."""

import importlib
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

import polyfed

SMALL = {
    "dataset": "digits",
    "num_clients": 6,
    "num_server_rounds": 2,
    "keep_optimizer": True,
    "trackers": "",
}
CODE = """
from models.images.cnn import ImageClassification


class Images(ImageClassification):
    def evaluate(self, *given):
        print("{word}")
        return super().evaluate(*given)
"""


def main(folder: Path) -> None:
    """Run one run after the other."""
    os.chdir(folder)
    seen: dict[str, object] = {}

    def run(name: str, **keys: object) -> None:
        before = pids()
        done = polyfed.run({}, run_dir=name, workers=workers, progress=False, **{**SMALL, **keys})
        log = folder / name / "workers.log"
        printed = log.read_text(encoding="utf-8") if log.exists() else ""
        seen[name] = {"sha256": done.weights_sha256, "kept": len(before & pids()), "printed": printed}

    before = dict(os.environ)
    with polyfed.Workers() as workers:
        run("first")
        seen["environment"] = dict(os.environ) == before
        run("second")
        run("scaffold", strategy="Scaffold", strategy_options={"any_optimizer": True})
        mine = Path("mine.py")
        own = {"task": "mine:Images", "fraction_evaluate": 1.0, "local_test_fraction": 0.2}
        mine.write_text(CODE.format(word="one"), encoding="utf-8")
        run("one", **own)
        run("one-again", **own)
        mine.write_text(CODE.format(word="two"), encoding="utf-8")
        os.utime(mine, ns=(1, 1))  # whatever the clock's resolution
        importlib.reload(sys.modules["mine"])
        run("two", **own)
        until = time.monotonic() + 60
        while len(workers_now := pids()) < 2 and time.monotonic() < until:
            time.sleep(0.1)  # they take a name of their own as they begin
        os.kill(min(workers_now), signal.SIGKILL)
        run("killed")
        run("one-worker", num_workers=1)
    seen["left"] = len(pids())
    print(json.dumps(seen))


def pids() -> set[int]:
    """Return the workers of this process's Ray."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it ends at this moment
            if "RayWorker" in "".join(process.cmdline()[:1]):
                found.add(process.pid)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
