"""Every strategy, or every task, on Ray and in this process: `ray_matrix.py FOLDER tasks|strategies`.

It prints the hashes as JSON. On Ray runs have workers that have worked for others before; some are resumed.
"""

import json
import sys
from pathlib import Path

from required_options import REQUIRED
from shortened import toy

import polyfed
from models.registry import TASKS
from server.callbacks.figures import Figures
from strategies.registry import STRATEGIES

SMALL = {"examples-per-client": 4, "checkpoint-every": 1, "trackers": "", "draw-every": 0}
COHORT = {"num-clients": 8, "clients-per-round": 7}
RESUMED = ("Ditto", "FedAdam", "FedDyn", "Scaffold", "dqn")
"""Of which server, clients or both remember something."""


def main(folder: Path, which: str) -> None:
    """Run the cells, without figures: they would take half of the time."""
    Figures.draw = lambda *_: None  # type: ignore[method-assign]
    cells = {name: {"strategy": name, "strategy-options": REQUIRED.get(name, "")} for name in STRATEGIES}
    tasks = {name: toy(name) for name in TASKS}
    cells = {name: {**tasks["cnn"], **SMALL, **COHORT, **keys} for name, keys in cells.items()}
    if which == "tasks":
        cells = {name: {**scenario, **SMALL} for name, scenario in tasks.items()}
    hashes: dict[str, list[str]] = {}
    with polyfed.Workers() as workers:
        for name, keys in cells.items():
            scenario = {key: value for key, value in keys.items() if key not in ("run-dir", "resume")}
            far, near = folder / f"{name}-ray", folder / f"{name}-here"
            halfway = 1 if name in RESUMED else 2
            there = polyfed.run(
                scenario, run_dir=far, workers=workers, progress=False, num_server_rounds=halfway
            )
            if name in RESUMED:
                there = polyfed.run(resume=far, workers=workers, progress=False, num_server_rounds=2)
            here = polyfed.run(scenario, run_dir=near, in_process=True, progress=False, num_server_rounds=2)
            hashes[name] = [there.weights_sha256, here.weights_sha256]
    print(json.dumps(hashes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
