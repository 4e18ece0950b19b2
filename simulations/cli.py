"""The `polyfed` command."""

import json
import logging
import sys
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from rich.console import Console
from rich.markup import escape

from models.core.errors import UserError
from models.core.tracebacks import traceback_of

if TYPE_CHECKING:
    from server.run_schema import RunResult

MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130
"""Exit codes: what was asked for cannot work; the run failed; Ctrl-C."""


@dataclass
class Asked:
    """What the command line asks of `main` itself."""

    debug: bool = False
    """Whether exceptions go through to whoever called."""
    verbose: bool = False
    """Whether a mistake shows the exception by which it was found."""


cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Federated learning for every model family: one loop, one hash, exact resume.",
)
console = Console()
Runs = Annotated[list[Path], typer.Argument(help="Run folders.")]
Target = Annotated[float | None, typer.Option(help="Show the rounds until the metric reaches this.")]


@cli.command()
def run(
    context: typer.Context,
    scenario: Annotated[
        Path, typer.Argument(help="TOML file of run-config keys, as in simulations/configs.")
    ],
    override: Annotated[
        list[str] | None, typer.Option("--set", "-c", help="key=value over the scenario; may be repeated.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run; ./runs/SCENARIO-TIME unless given.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a run to go on with.")] = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Everything in this process, for debugging.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="With --in-process: let a debugger have the first exception."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show all of the log, Flower's too, and tracebacks.")
    ] = False,
) -> None:
    """Run a scenario, write its report, and say where it is.

    Warnings are shown as they come. The log is in RUN/run.log, the traceback of every failure in
    RUN/errors.log.
    """
    from server.run_schema import CONFIG
    from simulations.runtime.failures import NewFailures
    from simulations.runtime.launch import launch
    from simulations.scenario import load_scenario, new_run_dir

    if debug and not in_process:
        raise UserError("--debug needs --in-process: no exception comes here from another process")
    asked = context.ensure_object(Asked)
    asked.debug, asked.verbose = debug, verbose
    if run_dir and resume:
        raise UserError("give either --run-dir or --resume: a resumed run stays in its folder")
    run_config = load_scenario(scenario, override or ())
    if run_config["run-dir"] or run_config["resume"]:
        raise UserError(
            "run-dir and resume are no keys of a scenario: use --run-dir FOLDER or --resume FOLDER"
        )
    folder = (resume or run_dir or new_run_dir(scenario)).absolute()
    run_config |= {"run-dir": str(folder), "resume": resume is not None}
    failures = NewFailures(folder)
    try:
        result = launch(run_config, in_process=in_process, verbose=verbose, debug=debug, console=console)
    except UserError:
        if not (resume or run_dir):
            with suppress(OSError):  # they are not empty
                folder.rmdir()
                folder.parent.rmdir()
        raise
    _say_how_it_ended(folder, result, failures.path if failures.text() else None)
    if verbose:
        sys.stderr.write(failures.text())
    if (folder / CONFIG).exists():  # else it ended before it began, and there is nothing to report
        from simulations.report.page import write_report

        console.print(f"report: {write_report([folder])}", soft_wrap=True, markup=False, highlight=False)
    if result.status == "failed":
        raise typer.Exit(FAILURE)


@cli.command("tasks")
def list_tasks() -> None:
    """List every task with its data, metrics and scenarios; an arrow says which way its main metric goes."""
    from simulations.catalogue.tasks import print_catalogue

    print_catalogue(console, Console(stderr=True))


@cli.command("strategies")
def list_strategies() -> None:
    """List every strategy with its options and paper."""
    from simulations.catalogue.strategies import print_strategies

    print_strategies(console, Console(stderr=True))


new = typer.Typer(no_args_is_help=True, help="Write a package to start from.")
cli.add_typer(new, name="new")


@new.command("strategy")
def write_strategy(
    name: Annotated[str, typer.Argument(help="Its name, that of a class: FedThing.")],
    folder: Annotated[
        Path | None, typer.Option(help="A new folder for the package; ./polyfed-NAME unless given.")
    ] = None,
) -> None:
    """Write an installable package with a strategy, its entry point and a test of its conformance."""
    from simulations.catalogue.new_strategy import new_strategy

    folder = new_strategy(name, folder)
    for file in sorted(folder.iterdir()):
        console.print(str(file), soft_wrap=True, markup=False, highlight=False)


@cli.command()
def schema() -> None:
    """Print the JSON schema of a scenario file, for editors that complete and check TOML."""
    from simulations.schema import scenario_schema

    console.print_json(data=scenario_schema())


@cli.command()
def compare(
    runs: Runs,
    target: Target = None,
    all_metrics: Annotated[
        bool, typer.Option("--all-metrics", help="Show every metric, not only the task's own.")
    ] = False,
    each_run: Annotated[
        bool, typer.Option("--each-run", help="Show every run by itself, also of several seeds.")
    ] = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output", "-o", help="Also write the table to a .csv, .json or .tex; may be repeated."
        ),
    ] = None,
) -> None:
    """Print runs side by side, and why those of one config differ; of several seeds, means and intervals."""
    from simulations.runs.arms import arms_of, have_seeds, tabulate
    from simulations.runs.compare import print_comparison, print_endings, print_origins
    from simulations.runs.frame import check_output, write_arms, write_runs
    from simulations.runs.reader import read_runs

    for path in output or ():
        check_output(path)
    read = read_runs(runs)
    if have_seeds(read) and not each_run:
        console.print(tabulate(arms_of(read), target, all_metrics=all_metrics))
        print_endings(read, console)
        print_origins(read, console)
        for path in output or ():
            write_arms(arms_of(read), path, target, all_metrics=all_metrics)
    else:
        print_comparison(read, console, all_metrics=all_metrics)
        for path in output or ():
            write_runs(read, path)


@cli.command()
def sweep(
    scenario: Annotated[Path, typer.Argument(help="TOML file of run-config keys.")],
    grid: Annotated[
        list[str] | None, typer.Option(help="key=[values], as in 'alpha=[0.1, 1.0]'; all combinations.")
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="Keys that change together: \"{strategy = 'FedAdam', learning-rate = 0.1}\"."),
    ] = None,
    arms: Annotated[Path | None, typer.Option(help="TOML file of arms, one [[arm]] table each.")] = None,
    uniform: Annotated[list[str] | None, typer.Option(help="key=[low, high], to draw between.")] = None,
    log_uniform: Annotated[
        list[str] | None, typer.Option(help="key=[low, high], to draw evenly over orders of magnitude.")
    ] = None,
    draws: Annotated[int, typer.Option("--random", min=0, help="How many random combinations; 0 = all.")] = 0,
    seeds: Annotated[str, typer.Option(help="Seeds of every combination, as in 1,2,3.")] = "1,2,3",
    folder: Annotated[Path | None, typer.Option(help="Where runs lie; ./runs/sweep-SCENARIO.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Runs side by side; 0 = one a CPU.")] = 0,
    target: Target = None,
) -> None:
    """Run a scenario over values and seeds, side by side; the same command goes on where it was cut."""
    from joblib import cpu_count

    from server.run_schema import REPORT
    from simulations.experiments.parallel import failures, run_trials
    from simulations.experiments.sweep import parse_seeds, parse_space, plan_sweep, read_arms
    from simulations.experiments.trial import Trial
    from simulations.report.page import write_report
    from simulations.runs.arms import arms_of, markdown, tabulate

    texts = arm or (), grid or (), uniform or (), log_uniform or ()
    space = parse_space(*texts, more_arms=read_arms(arms) if arms else ())
    numbers, where = parse_seeds(seeds), (folder or Path("runs") / f"sweep-{scenario.stem}").absolute()
    trials = plan_sweep(scenario, space.combinations(draws, numbers[0]), numbers, where)
    run_trials([trial for trial in trials if trial.run() is None], workers or cpu_count(), console)
    runs = [run for run in map(Trial.run, trials) if run]
    for line in failures(trials):
        console.print(line, soft_wrap=True, markup=False)
    if runs:
        console.print(tabulate(arms_of(runs), target))
        (where / "table.md").write_text(markdown(arms_of(runs), target), encoding="utf-8")
        page = write_report([run.path for run in runs], where / REPORT)
        console.print(f"report: {page}", soft_wrap=True, markup=False, highlight=False)
    if len(runs) < len(trials):
        raise typer.Exit(FAILURE)


@cli.command()
def report(
    runs: Runs,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The page to write.")] = None,
) -> None:
    """Write one self-contained HTML page about one or several runs."""
    from simulations.report.page import write_report

    console.print(str(write_report(runs, output)), soft_wrap=True, markup=False, highlight=False)


@cli.command("clean")
def clean_runs(runs: Runs) -> None:
    """Remove the checkpoints and client states of finished runs; they can be given no more rounds then."""
    from server.disk import in_words
    from simulations.runs.clean import clean

    console.print(f"freed: {in_words({'other': clean(runs)})}", soft_wrap=True, highlight=False)


@cli.command("partition")
def draw_partition(
    scenario: Annotated[Path, typer.Argument(help="TOML file of run-config keys.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write: .png, .svg or .pdf.")],
    override: Annotated[
        list[str] | None, typer.Option("--set", "-c", help="key=value over the scenario.")
    ] = None,
) -> None:
    """Draw who holds what, without training."""
    from models.core.config import TaskConfig, read
    from models.data.datasets import load_dataset
    from models.data.partition import count_labels, make_partition
    from models.data.picture import partition_figure
    from simulations.scenario import load_scenario

    config = read(TaskConfig, load_scenario(scenario, override or ()))
    dataset = load_dataset(config)
    counts = count_labels(dataset, make_partition(dataset, config), range(min(config.num_clients, 100)))
    figure = partition_figure(counts, dataset.classes, config.num_clients)
    try:
        figure.savefig(output)
    except (OSError, ValueError) as error:  # a ValueError for a format that matplotlib does not know
        raise UserError(f"cannot write the picture to {output} ({error}): give another file") from error
    console.print(str(output), soft_wrap=True, markup=False, highlight=False)


def main() -> None:
    """Run the command line; a mistake of its user is one line and exit code 2."""
    logging.captureWarnings(True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal of another encoding shows "?" for what it lacks
            stream.reconfigure(errors="replace")
    asked = Asked()
    try:
        code = cli(standalone_mode=False, obj=asked)
    except UserError as error:
        if asked.debug:
            raise
        if asked.verbose and error.__cause__:
            sys.stderr.write(traceback_of(error))
        _fail(str(error), MISTAKE)
    except click.exceptions.NoArgsIsHelpError:  # it has printed the help
        sys.exit(MISTAKE)
    except click.ClickException as error:
        _fail(error.format_message(), MISTAKE)
    if code == INTERRUPTED:  # typer's own code for a Ctrl-C
        _fail("interrupted", INTERRUPTED)
    sys.exit(code)


def _fail(reason: str, code: int) -> None:
    Console(stderr=True).print(
        f"[bold red]polyfed:[/bold red] {escape(reason)}", soft_wrap=True, highlight=False
    )
    sys.exit(code)


def _say_how_it_ended(folder: Path, result: "RunResult", tracebacks: Path | None) -> None:
    from server.disk import in_words

    if result.status == "failed":
        console.print(
            f"[bold red]failed:[/bold red] {escape(result.reason)}", soft_wrap=True, highlight=False
        )
    else:
        console.print(
            f"{result.status} after round {result.server_round}: {json.dumps(result.final)}",
            soft_wrap=True,
            markup=False,
        )
        console.print(f"weights: {result.weights_sha256}", soft_wrap=True, highlight=False)
        for remark in result.remarks:
            console.print(f"note: {remark}", soft_wrap=True, markup=False, highlight=False)
    if tracebacks:
        console.print(f"tracebacks: {tracebacks}", soft_wrap=True, markup=False, highlight=False)
    if result.disk:
        console.print(f"disk: {in_words(result.disk)}", soft_wrap=True, highlight=False)
    console.print(f"run: {folder}", soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    main()
