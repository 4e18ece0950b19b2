"""The `polyfed` command."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.text import Text

from models.core.errors import UserError
from models.core.tracebacks import traceback_of
from simulations.deploy.cli import deploy
from simulations.terminal import let_any_text_be_printed, make_console

if TYPE_CHECKING:
    from simulations.runtime.launch import Runtime
    from simulations.start import Start

MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130
"""Exit codes: what was asked for cannot work; the run failed; Ctrl-C."""

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)
SCENARIO = "A scenario's name (see `polyfed tasks`), or a TOML file of run-config keys."


@dataclass
class Asked:
    """What the command line asks of `main` itself."""

    debug: bool = False
    """Whether exceptions go through to whoever called."""
    verbose: bool = False
    """Whether a mistake shows the exception by which it was found."""
    start: "Start | None" = None
    """The run that is under way."""
    after_interruption: str = ""
    """What a Ctrl-C is answered with, beside the word."""


def _set_option(command: F) -> F:
    help_ = "key=value over the scenario; may be repeated."
    return click.option("--set", "-c", "override", multiple=True, metavar="KEY=VALUE", help=help_)(command)


def _print_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from server.provenance import versions

        found = versions()
        others = ", ".join(f"{name} {found[name]}" for name in ("flwr", "ray", "torch") if name in found)
        click.echo(f"polyfed {found['polyfed']} (Python {found['python']}, {others})")
        context.exit()


@click.group(no_args_is_help=True)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of polyfed and of what it computes with.",
)
def cli() -> None:
    """Federated learning for every model family: one loop, one hash, exact resume."""


@cli.command()
@click.argument("scenario", required=False, help=f"{SCENARIO} Not needed with --resume.")
@_set_option
@click.option("--run-dir", type=FILE, help="Folder of the run; ./runs/SCENARIO-TIME unless given.")
@click.option("--resume", type=FILE, help="Folder of a run to go on with.")
@click.option("--runtime", type=click.Choice(["ray", "flower", "in-process"]), default="ray",
              show_default=True, help="Who does the clients' work.")  # fmt: skip
@click.option("--in-process", is_flag=True, help="Everything in this process: --runtime in-process.")
@click.option("--ray-address", metavar="HOST:PORT", default="",
              help="A Ray cluster to run on; RAY_ADDRESS unless given.")  # fmt: skip
@click.option("--debug", is_flag=True, help="With --in-process: let a debugger have the first exception.")
@click.option("--verbose", "-v", is_flag=True, help="Show all of the log, Flower's too, and tracebacks.")
@click.pass_obj
def run(
    asked: Asked,
    scenario: str | None,
    override: tuple[str, ...],
    run_dir: Path | None,
    resume: Path | None,
    runtime: "Runtime",
    in_process: bool,
    ray_address: str,
    debug: bool,
    verbose: bool,
) -> None:
    """Run a scenario, write its report, and say where it is.

    Warnings are shown as they come. The log is in RUN/run.log, the traceback of every failure in
    RUN/errors.log.
    """
    from simulations.runtime.failures import NewFailures
    from simulations.start import prepare

    runtime = "in-process" if in_process else runtime
    if debug and runtime != "in-process":
        raise UserError("--debug needs --in-process: no exception comes here from another process")
    asked.debug, asked.verbose = debug, verbose
    asked.start = prepare(
        scenario,
        override,
        run_dir=run_dir,
        resume=resume,
        runtime=runtime,
        verbose=verbose,
        debug=debug,
        ray_address=ray_address,
    )
    failures = NewFailures(asked.start.folder)
    result = asked.start.to_the_end(make_console())
    if verbose:
        sys.stderr.write(failures.text())
    if result.status == "failed":
        raise click.exceptions.Exit(FAILURE)


@cli.command("tasks")
@click.argument("name", required=False, help='Show the options of this task ("module:Class" too).')
def list_tasks(name: str | None) -> None:
    """List every task with its data, metrics and scenarios, or the options of one.

    An arrow says which way a task's main metric goes.
    """
    from simulations.catalogue.details import print_task
    from simulations.catalogue.tasks import print_catalogue

    if name is None:
        print_catalogue(make_console(), make_console(errors=True))
    else:
        print_task(name, make_console())


@cli.command("strategies")
@click.argument("name", required=False, help='Show the options of this strategy ("module:Class" too).')
def list_strategies(name: str | None) -> None:
    """List every strategy with its options and paper, or what the options of one mean."""
    from simulations.catalogue.details import print_strategy
    from simulations.catalogue.strategies import print_strategies

    if name is None:
        print_strategies(make_console(), make_console(errors=True))
    else:
        print_strategy(name, make_console())


@cli.group(no_args_is_help=True)
def new() -> None:
    """Write a package to start from."""


@new.command("strategy")
@click.argument("name", help="Its name, that of a class: FedThing.")
@click.option("--folder", type=FILE, help="A new folder for the package; ./polyfed-NAME unless given.")
def write_strategy(name: str, folder: Path | None) -> None:
    """Write an installable package with a strategy, its entry point and a test of its conformance."""
    from simulations.catalogue.new_strategy import new_strategy

    folder = new_strategy(name, folder)
    for file in sorted(folder.iterdir()):
        make_console().print(str(file), soft_wrap=True)


@cli.command()
def schema() -> None:
    """Print the JSON schema of a scenario file, for editors that complete and check TOML."""
    from simulations.schema import scenario_schema

    make_console().print_json(data=scenario_schema())


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=FILE, help="Run folders.")
@click.option("--target", type=float, help="Show the rounds until the metric reaches this.")
@click.option("--all-metrics", is_flag=True, help="Show every metric, not only the task's own.")
@click.option("--each-run", is_flag=True, help="Show every run by itself, also of several seeds.")
@click.option(
    "--output",
    "-o",
    multiple=True,
    type=FILE,
    help="Also write the table to a .csv, .json or .tex; may be repeated.",
)
def compare(
    runs: tuple[Path, ...], target: float | None, all_metrics: bool, each_run: bool, output: tuple[Path, ...]
) -> None:
    """Print runs side by side, and why those of one config differ; of several seeds, means and intervals."""
    from simulations.runs.arms import arms_of, have_seeds, tabulate
    from simulations.runs.compare import print_comparison, print_endings, print_origins
    from simulations.runs.frame import check_output, write_arms, write_runs
    from simulations.runs.reader import read_runs

    console = make_console()
    for path in output:
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
@click.argument("scenario", help=SCENARIO)
@_set_option
@click.option("--grid", multiple=True, help="key=[values], as in 'alpha=[0.1, 1.0]'; all combinations.")
@click.option(
    "--arm",
    multiple=True,
    help="Keys that change together: \"{strategy = 'FedAdam', learning-rate = 0.1}\".",
)
@click.option("--arms", type=FILE, help="TOML file of arms, one [[arm]] table each.")
@click.option("--uniform", multiple=True, help="key=[low, high], to draw between.")
@click.option(
    "--log-uniform", multiple=True, help="key=[low, high], to draw evenly over orders of magnitude."
)
@click.option("--random", "draws", type=click.IntRange(min=0), default=0, show_default=True,
              help="How many random combinations; 0 = all.")  # fmt: skip
@click.option("--seeds", default="1,2,3", show_default=True, help="Seeds of every combination, as in 1,2,3.")
@click.option("--folder", type=FILE, help="Where runs lie; ./runs/sweep-SCENARIO.")
@click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True,
              help="Runs side by side; 0 = one a CPU.")  # fmt: skip
@click.option("--target", type=float, help="Show the rounds until the metric reaches this.")
@click.pass_obj
def sweep(
    asked: Asked,
    scenario: str,
    override: tuple[str, ...],
    grid: tuple[str, ...],
    arm: tuple[str, ...],
    arms: Path | None,
    uniform: tuple[str, ...],
    log_uniform: tuple[str, ...],
    draws: int,
    seeds: str,
    folder: Path | None,
    workers: int,
    target: float | None,
) -> None:
    """Run a scenario over values and seeds, side by side; the same command goes on where it was cut."""
    from server.run_schema import REPORT
    from simulations.experiments.parallel import failures, run_sweep
    from simulations.experiments.sweep import parse_seeds, parse_space, plan_sweep, read_arms
    from simulations.experiments.trial import Trial
    from simulations.report.page import write_report
    from simulations.runs.arms import arms_of, markdown, tabulate
    from simulations.scenario import find_scenario, name_of

    console = make_console()
    space = parse_space(arm, grid, uniform, log_uniform, more_arms=read_arms(arms) if arms else ())
    numbers = parse_seeds(seeds)
    where = (folder or Path("runs") / f"sweep-{name_of(scenario)}").absolute()
    combinations = space.combinations(draws, numbers[0])
    trials = plan_sweep(find_scenario(scenario), combinations, numbers, where, override)
    asked.after_interruption = "; the same command goes on where it was cut"
    run_sweep(trials, workers, console)
    runs = [run for run in map(Trial.run, trials) if run]
    for line in failures(trials):
        console.print(line, soft_wrap=True)
    if runs:
        console.print(tabulate(arms_of(runs), target))
        (where / "table.md").write_text(markdown(arms_of(runs), target), encoding="utf-8")
        page = write_report([run.path for run in runs], where / REPORT)
        console.print(f"report: {page}", soft_wrap=True)
    if len(runs) < len(trials):
        raise click.exceptions.Exit(FAILURE)


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=FILE, help="Run folders.")
@click.option("--output", "-o", type=FILE, help="The page to write.")
def report(runs: tuple[Path, ...], output: Path | None) -> None:
    """Write one self-contained HTML page about one or several runs."""
    from simulations.report.page import write_report

    make_console().print(str(write_report(runs, output)), soft_wrap=True)


@cli.command()
@click.argument("run", type=FILE, help="Run folder of a task that writes texts, or RUN:best or RUN:last.")
def chat(run: Path) -> None:
    """Talk with a run's model: it answers each line. An empty line begins a new dialogue.

    A run of dialogue goes on with what was said; one of seq2seq translates each line. Lines may come from a
    pipe: each is answered by one line.
    """
    from simulations.chat import load_speaker, talk

    talk(load_speaker(run), sys.stdin, make_console())


@cli.command("explain")
@click.argument("run", type=FILE, help="Run folder, or RUN:best or RUN:last for one of its models.")
@click.option("--beside", type=FILE, help="Another run on the same data, asked about the same answers.")
@click.option("--method", multiple=True, help="May be repeated; all that the task offers unless given.")
@click.option("--examples", type=click.IntRange(min=1), default=32, show_default=True,
              help="Held-out examples that are explained.")  # fmt: skip
def explain_run(run: Path, beside: Path | None, method: tuple[str, ...], examples: int) -> None:
    """Show what a run's model looks at, and whether another's looks at the same.

    Figures and numbers are kept in RUN/explanations, and shown by its report.
    """
    from simulations.explain.command import explain

    explain(run, beside, method, examples, make_console())


@cli.command("clean")
@click.argument("runs", nargs=-1, type=FILE, help="Run folders.")
@click.option("--cache", "datasets", is_flag=True, help="Remove the parsed datasets that this machine keeps.")
def clean_runs(runs: tuple[Path, ...], datasets: bool) -> None:
    """Remove the checkpoints and client states of finished runs; they can be given no more rounds then."""
    from models.data import cache
    from server.disk import in_words
    from simulations.runs.clean import clean

    if not (runs or datasets):
        raise UserError("name run folders to clean, or give --cache")
    freed = clean(runs) if runs else 0
    freed += cache.clear() if datasets else 0
    make_console().print(f"freed: {in_words({'other': freed})}", soft_wrap=True)


@cli.command("partition")
@click.argument("scenario", help=SCENARIO)
@click.option("--output", "-o", type=FILE, required=True, help="The picture to write: .png, .svg or .pdf.")
@_set_option
def draw_partition(scenario: str, output: Path, override: tuple[str, ...]) -> None:
    """Draw who holds what, without training."""
    from models.core.config import TaskConfig, read
    from models.data.datasets import load_dataset
    from models.data.partition import count_labels, counted_classes, make_partition
    from models.data.picture import partition_figure
    from models.registry import find_task
    from simulations.scenario import load_scenario

    config = read(TaskConfig, load_scenario(scenario, override))
    dataset = load_dataset(config)
    find_task(config.task, dataset)  # a picture of what no run could begin with would mislead
    counts = count_labels(dataset, make_partition(dataset, config), range(min(config.num_clients, 100)))
    figure = partition_figure(counts, counted_classes(dataset), config.num_clients)
    try:
        figure.savefig(output)
    except (OSError, ValueError) as error:  # a ValueError for a format that matplotlib does not know
        raise UserError(f"cannot write the picture to {output} ({error}): give another file") from error
    make_console().print(str(output), soft_wrap=True)


@cli.command()
@click.argument("scenario", required=False, help=f"{SCENARIO} One of its clients is trained and measured.")
@_set_option
def doctor(scenario: str | None, override: tuple[str, ...]) -> None:
    """Say what this machine has, what would make runs fail, and how many workers a scenario should get.

    Exit code 1 where something is wrong.
    """
    from simulations.doctor.examine import examine

    if override and not scenario:
        raise UserError("-c needs a SCENARIO, which it overrides")
    if not examine(scenario, override, make_console()):
        raise click.exceptions.Exit(FAILURE)


cli.add_command(deploy)


def main() -> None:
    """Run the command line; a mistake of its user is one line and exit code 2."""
    logging.captureWarnings(True)
    let_any_text_be_printed()
    asked = Asked()
    try:
        code = cli(prog_name="polyfed", standalone_mode=False, obj=asked)
    except UserError as error:
        if asked.debug:
            raise
        if asked.verbose and error.__cause__:
            sys.stderr.write(traceback_of(error))
        _fail(str(error), MISTAKE)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        sys.exit(MISTAKE)
    except click.ClickException as error:
        _fail(error.format_message(), MISTAKE)
    except (click.Abort, KeyboardInterrupt):
        command = asked.start.going_on() if asked.start else ""
        _fail(f"interrupted{f'; go on: {command}' if command else asked.after_interruption}", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(reason: str, code: int) -> None:
    make_console(errors=True).print(Text.assemble(("polyfed:", "bold red"), f" {reason}"), soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
