"""Starts a run as it was asked for, and says how it ended: what `polyfed run` and `polyfed.run` share."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from models.core.errors import UserError
from server.disk import in_words
from server.run_schema import CHECKPOINTS, CONFIG, LAUNCHER, LOCK
from simulations.runtime.failures import NewFailures
from simulations.scenario import PLACE_OF_A_RUN, load_run_config, load_scenario, name_of, new_run_dir

if TYPE_CHECKING:
    from server.run_schema import RunResult
    from simulations.runtime.launch import Runtime
    from simulations.runtime.warm import Workers


@dataclass(frozen=True)
class Start:
    """A run that is about to begin, or to go on."""

    run_config: dict[str, Any]
    folder: Path
    runtime: "Runtime"
    verbose: bool = False
    debug: bool = False
    ray_address: str = ""
    """Of a cluster; "" is a Ray of the run's own."""
    warm: "Workers | None" = None
    """Workers that the run shares with others."""
    own_folder: bool = False
    """Whether the folder was made for this run, and goes with one that could not begin."""

    def to_the_end(self, console: Console) -> "RunResult":
        """Run, write the report, and say how it ended."""
        failures = NewFailures(self.folder)
        try:
            with self.launch(console) as result:
                for line in self._ending(result, failures):
                    console.print(line, soft_wrap=True)
                return result
        except UserError:
            if self.own_folder:
                self._drop_folder()
            raise

    def launch(self, console: Console) -> AbstractContextManager["RunResult"]:
        """Run to the end, and give how it ended."""
        from simulations.runtime.launch import launch

        return launch(
            self.run_config,
            runtime=self.runtime,
            verbose=self.verbose,
            debug=self.debug,
            console=console,
            ray_address=self.ray_address,
            warm=self.warm,
        )

    def going_on(self) -> str:
        """Return the command that goes on with this run; "" where it has done nothing to go on from."""
        with suppress(OSError):
            if any((self.folder / CHECKPOINTS).glob("round-*.safetensors")):
                return self.command()
        return ""

    def command(self) -> str:
        """Return the command that goes on with this run."""
        ways = {"ray": "", "in-process": " --in-process"}
        how = ways.get(self.runtime, f" --runtime {self.runtime}")
        how += f" --ray-address {self.ray_address}" if self.ray_address else ""
        return f"polyfed run --resume {shlex.quote(str(self.folder))}{how}"

    def _drop_folder(self) -> None:
        """Remove the folder of a run that could not begin."""
        with suppress(OSError):  # somebody has removed it, or another run lies beside it
            if {path.name for path in self.folder.iterdir()} <= {LOCK, LAUNCHER}:
                for path in self.folder.iterdir():
                    path.unlink()
                self.folder.rmdir()
                self.folder.parent.rmdir()

    def _ending(self, result: "RunResult", failures: NewFailures) -> list[Text | str]:
        lines: list[Text | str] = []
        if result.status == "failed":
            lines.append(Text.assemble(("failed: ", "bold red"), result.reason))
        else:
            lines += _reached(result)
            lines.append(f"weights: {result.weights_sha256}")
            lines += [f"note: {remark}" for remark in result.remarks]
        if result.disk:
            lines.append(f"disk: {in_words(result.disk)}")
        lines.append(f"run: {self.folder}")
        if (self.folder / CONFIG).exists():  # else it ended before it began, and there is nothing to report
            from simulations.report.page import write_report

            lines.append(f"report: {write_report([self.folder])}")
        if failures.text():
            lines.append(f"tracebacks: {failures.path}")
        if result.status == "failed" and (command := self.going_on()):
            lines.append(f"go on: {command}")
        return lines


def _reached(result: "RunResult") -> list[Text | str]:
    """Return what the last model reached, and the best one where that is another."""
    used = result.used.validation_examples if result.used else 0
    ended, test = f"{result.status} after round {result.server_round}: ", result.tested
    if test is None:
        return [f"{ended}{json.dumps(result.final)}"]
    lines: list[Text | str] = [f"{ended}{json.dumps(test.final)} on {test.num_examples:,} test examples"]
    if test.best and result.best_round != result.server_round:
        chosen = f"best by {used:,} validation examples"
        lines.append(f"round {result.best_round}, {chosen}: {json.dumps(test.best)} on the test examples")
    return lines


def prepare(
    scenario: str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str] = (),
    *,
    run_dir: Path | None = None,
    resume: Path | None = None,
    runtime: "Runtime" = "ray",
    verbose: bool = False,
    debug: bool = False,
    ray_address: str = "",
    warm: "Workers | None" = None,
) -> Start:
    """Return the run that is asked for; a resumed one needs no scenario.

    Without a `ray_address`, a run on Ray is on the cluster that the environment's RAY_ADDRESS names, if any.

    Raises UserError for what does not go together, and for a config that does not fit.
    """
    if ray_address and runtime != "ray":
        raise UserError(f"a Ray cluster needs --runtime ray, got {runtime} with --ray-address {ray_address}")
    if warm and (ray_address or runtime != "ray"):
        raise UserError(
            "workers are for runs on Ray on this machine: leave out runtime and ray_address, or them"
        )
    if runtime == "ray" and not warm:
        ray_address = ray_address or os.environ.get("RAY_ADDRESS", "")
    if run_dir and resume:
        raise UserError("give either --run-dir or --resume: a resumed run stays in its folder")
    if scenario is not None:
        run_config = load_scenario(scenario, overrides)
    elif resume:
        run_config = load_run_config(resume, overrides)
    else:
        raise UserError("Missing argument 'SCENARIO': name one of `polyfed tasks`, or a TOML file")
    if any(run_config[key] for key in PLACE_OF_A_RUN):
        raise UserError(
            "run-dir and resume are no keys of a scenario: use --run-dir FOLDER or --resume FOLDER"
        )
    folder = (resume or run_dir or new_run_dir(name_of(scenario or ""))).absolute()
    run_config |= {"run-dir": str(folder), "resume": resume is not None}
    return Start(
        run_config, folder, runtime, verbose, debug, ray_address, warm, own_folder=not (resume or run_dir)
    )
