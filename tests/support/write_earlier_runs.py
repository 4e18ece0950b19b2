"""Writes tests/support/earlier_runs anew, for a release whose runs the next one must go on with.

python tests/support/write_earlier_runs.py
"""

import json
import shutil
import tempfile
import tomllib
from pathlib import Path

from quadratic import valleys

from models.data.datasets import DATASETS
from models.data.source import Source
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults

FOLDER = Path(__file__).resolve().parent / "earlier_runs"
KEPT = ("config.toml", "metrics.jsonl", "result.json", "partition.json", "token")


def write(strategy: Path, work: Path) -> None:
    """Run two rounds, and apart from them four, and keep what a resume needs of the first."""
    config = {**defaults(), **tomllib.loads((strategy / "config.toml").read_text(encoding="utf-8"))}
    for num_rounds in (2, 4):
        run_dir = work / f"{strategy.name}-{num_rounds}"
        run_in_process({**config, "num-server-rounds": num_rounds, "run-dir": str(run_dir)})
    shutil.rmtree(strategy)
    strategy.mkdir()
    two, four = (work / f"{strategy.name}-{num_rounds}" for num_rounds in (2, 4))
    for name in KEPT:
        if (two / name).exists():
            text = (two / name).read_text(encoding="utf-8")
            if name == "result.json":  # what else is installed here is of no interest
                text = json.dumps({**json.loads(text), "packages": {}}, indent=1)
            (strategy / name).write_text(text.replace(str(two), f"/runs/{strategy.name}"), encoding="utf-8")
    (strategy / "checkpoints").mkdir()
    shutil.copy(two / "checkpoints" / "round-000002.safetensors", strategy / "checkpoints")
    for state in two.glob("clients/*/*/round-2.safetensors"):
        (strategy / state.relative_to(two)).parent.mkdir(parents=True)
        shutil.copy(state, strategy / state.relative_to(two))
    lines = (four / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (strategy / "uninterrupted.jsonl").write_text("".join(lines[3:]), encoding="utf-8")


if __name__ == "__main__":
    DATASETS["valleys"] = Source("parabolas", valleys)  # type: ignore[index]
    with tempfile.TemporaryDirectory() as work:
        for strategy in sorted(FOLDER.iterdir()):
            if (strategy / "config.toml").exists():
                write(strategy, Path(work))
