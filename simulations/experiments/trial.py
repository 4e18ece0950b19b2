"""One of several runs that are planned together, in a folder that is named by what it computes."""

import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from models.core.config import RunConfig
from server.run_folder import FREE_ON_RESUME
from server.run_schema import CHECKPOINTS, CONFIG
from simulations.runs.reader import read_run
from simulations.runs.record import Run

IDENTITY_BESIDE = {"num-server-rounds", "patience"}
"""Keys that a resumed run may change, but that decide how a run ends."""


@dataclass(frozen=True)
class Trial:
    """One run."""

    name: str
    """What people call it, such as "vae federated"."""
    scenario: Path
    overrides: tuple[str, ...]
    """Texts key=value over the scenario."""
    num_rounds: int
    folder: Path

    @property
    def begun(self) -> bool:
        """Whether its folder holds a run, be it whole or not."""
        return (self.folder / CONFIG).is_file()

    @property
    def resumable(self) -> bool:
        """Whether it can go on where it was cut."""
        return self.begun and any((self.folder / CHECKPOINTS).glob("round-*.safetensors"))

    def set_aside(self) -> None:
        """Move what was begun out of the way, under a name of its own, for the trial to start over."""
        places = (self.folder.with_name(f"{self.folder.name}.cut-{number}") for number in itertools.count(1))
        self.folder.rename(next(place for place in places if not place.exists()))

    def run(self) -> Run | None:
        """Return the run; None where it has not come to a good end."""
        run = read_run(self.folder) if self.begun else None
        return run if run and run.status in ("completed", "stopped") else None


def fingerprint(config: RunConfig) -> str:
    """Return a name for what a run computes, by which another config gets another folder."""
    keys = config.keys() - FREE_ON_RESUME | IDENTITY_BESIDE
    identity = json.dumps({key: config[key] for key in sorted(keys)})
    return hashlib.sha256(identity.encode()).hexdigest()[:8]
