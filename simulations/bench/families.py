"""Every model family in one table: untrained, local only, federated and centralized.

`python -m simulations.bench.families`. The rows are the scenarios NAME.toml that have a
NAME-centralized.toml beside them. Runs lie in a folder by family and config: a finished one is not run
again, an interrupted one goes on, and a scenario that has changed is another run. A change of the code
asks for another folder.
"""

from pathlib import Path
from typing import Annotated

import typer
from joblib import cpu_count  # heeds what a scheduler or a container allows this process
from rich.console import Console
from rich.markup import escape

from models.core.errors import UserError, unknown
from simulations.bench.family_table import markdown, row_of, tabulate
from simulations.bench.trials import Family, find_pairs, plan_family
from simulations.experiments.parallel import failures, run_trials

SCENARIOS = Path(__file__).parents[1] / "configs"
TABLE = "table.md"
MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130
"""Exit codes, as of `polyfed`."""


def main(
    only: Annotated[list[str] | None, typer.Option(help="One task's row; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of every run, not the scenarios'.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the runs and the table lie.")] = Path("runs/families"),
    scenarios: Annotated[
        Path, typer.Option(help="Folder of scenarios NAME.toml with NAME-centralized.toml.")
    ] = SCENARIOS,
    alone: Annotated[int, typer.Option(min=1, help="Most clients that train by themselves, a task.")] = 3,
    workers: Annotated[int, typer.Option(min=0, help="Runs side by side; 0 = one a CPU.")] = 0,
) -> None:
    """Run what has not been run, print the table, and write it as Markdown."""
    console = Console()
    try:
        _make(folder)
        families = plan(scenarios, only or [], folder.absolute(), alone, seed)
        fill(families, workers or cpu_count(), console)
        complete = show(families, folder / TABLE, console)
    except UserError as error:
        console.print(f"[bold red]families:[/bold red] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(MISTAKE) from error
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
    if not complete:
        raise typer.Exit(FAILURE)


def plan(scenarios: Path, only: list[str], folder: Path, alone: int, seed: int | None) -> list[Family]:
    """Return the families of the table.

    Raises UserError for a task in `only` that has no pair of scenarios, and for a broken scenario.
    """
    pairs = find_pairs(scenarios)
    for name in only:
        if name not in pairs:
            raise unknown("task", name, pairs)
    return [
        plan_family(path, folder, alone, seed) for name, path in pairs.items() if not only or name in only
    ]


def fill(families: list[Family], workers: int, console: Console) -> None:
    """Run all that has not come to a good end, what takes longest first."""
    trials = [family.federated for family in families]
    trials += [family.centralized for family in families]
    trials += [trial for family in families for trial in family.alone]
    open_ones = [trial for trial in trials if trial.run() is None]
    if open_ones:
        run_trials(open_ones, workers, console)


def show(families: list[Family], output: Path, console: Console) -> bool:
    """Print and write the table, and say what went wrong in it; return whether all runs ended well."""
    rows, seeds = [row_of(family) for family in families], [family.seed for family in families]
    console.print(tabulate(rows, seeds))
    output.write_text(markdown(rows, seeds), encoding="utf-8")
    console.print(f"table: {output}", soft_wrap=True, highlight=False)
    trials = [trial for family in families for trial in family.trials]
    for line in failures(trials):
        console.print(line, soft_wrap=True, markup=False)
    complete = True
    for trial in trials:
        run = trial.run()
        if run is None:
            complete = False
        elif run.failures:
            console.print(f"{trial.name}: {len(run.failures)} times a client failed", markup=False)
    return complete


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {folder} cannot be made ({error.strerror}): give another one") from error


if __name__ == "__main__":
    typer.run(main)
