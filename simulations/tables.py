"""Runs as pandas DataFrames, for `polyfed.run`, `polyfed.load` and `polyfed.sweep`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from models.core.config import RunConfig
from simulations.runs.record import Run
from simulations.scenario import PLACE_OF_A_RUN


@dataclass(frozen=True)
class RunTables:
    """One run."""

    run: Run

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.run.path

    @property
    def status(self) -> str:
        """How it ended: "completed", "stopped", "failed", or "unfinished"."""
        return self.run.status

    @property
    def config(self) -> RunConfig:
        """Every run-config key with its value."""
        return self.run.config

    @property
    def final(self) -> pd.Series:
        """The metrics of the last model on test examples."""
        return pd.Series(dict(self.run.final), name="final", dtype=float)

    @property
    def weights_sha256(self) -> str:
        """The hash of the final weights; "" where the run has none."""
        return self.run.result.weights_sha256 if self.run.result else ""

    @property
    def rounds(self) -> pd.DataFrame:
        """A row a round, with columns such as "central/accuracy" and "train/loss".

        "clients" says how many trained, "failures" how many did not.
        """
        rows = [
            {
                "round": line.server_round,
                **line.scalars(),
                "clients": len(line.clients),
                "failures": len(line.failures),
            }
            for line in self.run.rounds
        ]
        return pd.DataFrame(rows, columns=None if rows else ["round"]).set_index("round")

    @property
    def clients(self) -> pd.DataFrame:
        """A row for each round and client that evaluated on its own examples, with a column a metric."""
        frames = [
            pd.DataFrame(line.by_client).assign(round=line.server_round)
            for line in self.run.rounds
            if line.by_client
        ]
        if not frames:
            return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=["round", "client"]))
        return pd.concat(frames).set_index(["round", "client"])


@dataclass(frozen=True)
class SweepTables:
    """Several runs of one scenario."""

    each: tuple[RunTables, ...]
    folder: Path
    failures: tuple[str, ...] = ()
    """A line for each run that has not come to a good end."""

    @property
    def runs(self) -> pd.DataFrame:
        """A row a run: the keys that differ, its seed, how it ended, and the metrics of its last model.

        These are on the test examples; those to choose by, on the validation examples, are "validation/NAME".
        """
        configs = [one.config for one in self.each]
        varied = ["seed", *(key for key in _varied(configs) if key != "seed")]
        rows = [
            {
                **{key: one.config.get(key) for key in varied},
                "status": one.status,
                "rounds": one.run.last_round,
                **(one.run.final if one.run.tested or not one.run.num_validation else {}),
                **{f"validation/{name}": value for name, value in _to_choose_by(one.run).items()},
                "seconds": one.run.seconds,
                "folder": str(one.folder),
            }
            for one in self.each
        ]
        return pd.DataFrame(rows)

    @property
    def rounds(self) -> pd.DataFrame:
        """The rounds of all runs, indexed by the run's row in `runs` and the round."""
        frames = {number: one.rounds for number, one in enumerate(self.each)}
        return pd.concat(frames, names=["run", "round"]) if frames else pd.DataFrame()


def _to_choose_by(run: Run) -> Mapping[str, float]:
    return run.compared if run.num_validation else {}


def _varied(configs: list[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for config in configs for key in config if key not in PLACE_OF_A_RUN)
    return [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
