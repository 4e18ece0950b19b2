"""Runs a config on Ray with so many workers, however many CPUs there are: `on_ray.py CONFIG.json WORKERS`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from models.core.config import read
from server.plan import make_plan
from simulations.config import SimulationConfig, resolve
from simulations.runtime.on_ray import run_on_ray
from simulations.runtime.ray_session import ray_session


def main() -> None:
    """Run to the end."""
    run_config = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    simulation = replace(resolve(read(SimulationConfig, run_config)), num_workers=int(sys.argv[2]))
    plan = make_plan(run_config)
    with ray_session(run_config, simulation) as session:
        run_on_ray(run_config, plan, session.workers.result())


if __name__ == "__main__":
    main()
