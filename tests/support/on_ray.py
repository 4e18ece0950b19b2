"""Runs one config after the other on Ray, by workers that it keeps, however many CPUs there are.

Each line that it reads is `[CONFIG, WORKERS]` in JSON. It answers with a line: what went wrong, as JSON text.
"""

import json
import os
import sys
import traceback
from dataclasses import replace
from typing import Any

from models.core.config import read
from server.plan import make_plan
from simulations.config import SimulationConfig, resolve
from simulations.runtime.on_ray import run_on_ray
from simulations.runtime.warm import Workers


def main() -> None:
    """Run what it is asked for until there are no more lines."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer
    with Workers() as workers:
        for line in sys.stdin:
            error = ""
            try:
                run(workers, *json.loads(line))
            except Exception:
                error = traceback.format_exc()
            print(json.dumps(error), file=answers, flush=True)


def run(workers: Workers, run_config: dict[str, Any], num_workers: int) -> None:
    """Run to the end."""
    simulation = replace(resolve(read(SimulationConfig, run_config)), num_workers=num_workers)
    plan = make_plan(run_config)
    with workers.for_run(run_config, simulation) as start:
        run_on_ray(run_config, plan, start(plan))


if __name__ == "__main__":
    main()
