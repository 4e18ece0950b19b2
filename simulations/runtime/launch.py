"""One run config, run here or under Flower, with a progress bar and one truth about how it ended."""

import json
import logging
from pathlib import Path
from typing import Any

from rich.console import Console

from models.core.config import Value, read
from models.core.errors import UserError
from server.plan import make_plan
from server.run_folder import RESULT, claim
from simulations.config import SimulationConfig, resolve
from simulations.runtime.progress import RoundProgress


def launch(
    run_config: dict[str, Value], *, in_process: bool, verbose: bool, console: Console
) -> dict[str, Any]:
    """Run to the end and return what RUN/result.json says.

    Raises UserError for what can be told beforehand: a config that cannot work, a run folder that is in
    use, too few CPUs or GPUs.
    """
    logging.getLogger("flwr").setLevel(logging.INFO if verbose else logging.CRITICAL)
    simulation = resolve(read(SimulationConfig, run_config))
    plan = make_plan(run_config)
    folder = Path(str(run_config["run-dir"]))
    claim(folder, run_config, resume=bool(run_config["resume"])).release()
    (folder / RESULT).unlink(missing_ok=True)  # of the run that is resumed: this one may end before it writes
    if plan.transfer and not run_config["resume"]:
        for line in plan.transfer.lines():
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    with RoundProgress(folder, int(run_config["num-server-rounds"]), console):
        if in_process:
            reason = _in_process(run_config, int(run_config["num-nodes"]) or 1)
        else:
            from simulations.runtime.flower import run_on_flower

            reason = run_on_flower(run_config, simulation, verbose=verbose).error
    return _result(folder, reason)


def _in_process(run_config: dict[str, Value], num_nodes: int) -> str:
    from simulations.runtime.in_process import run_in_process

    try:
        run_in_process(run_config, num_nodes)
    except UserError:
        raise
    except Exception as error:  # the ServerApp has written the reason to the run folder
        return f"{type(error).__name__}: {error}"
    return ""


def _result(folder: Path, reason: str) -> dict[str, Any]:
    """Return what the ServerApp wrote; where it wrote nothing, the run failed for `reason`."""
    path = folder / RESULT
    if not path.exists():
        path.write_text(json.dumps({"status": "failed", "reason": reason or "the ServerApp wrote no result"}))
    result: dict[str, Any] = json.loads(path.read_text())
    return result
