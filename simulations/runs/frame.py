"""Runs and arms as pandas tables, and a table as a file: CSV, JSON or LaTeX."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.core.errors import UserError
from simulations.runs.arms import (
    Arm,
    final_metrics,
    in_order,
    interval,
    paired,
    rows,
    varied_keys,
    verdict,
)
from simulations.runs.compare import NOT_COMPARED, differing_keys, metric_table, summary
from simulations.runs.record import Run

if TYPE_CHECKING:
    from pandas import DataFrame

SOURCES = ("final", "best", "evaluate", "train")
"""What comes before a metric's name in a column, in the order of METRIC_COLUMNS; see docs/metrics.md."""
SUFFIXES = (".csv", ".json", ".tex")
LATEX = {"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--"}


def runs_frame(runs: Sequence[Run]) -> "DataFrame":
    """Return a row a run: its metrics and costs in full precision, and the config keys that differ."""
    from pandas import DataFrame

    return DataFrame([_run_row(run, differing_keys(runs)) for run in runs])


def arms_frame(arms: Sequence[Arm], target: float | None = None) -> "DataFrame":
    """Return a row an arm, the best mean first: means of the final metrics and how far intervals reach."""
    from pandas import DataFrame

    ordered = in_order(arms)
    found = []
    for arm in ordered:
        row: dict[str, object] = {key: arm.config.get(key) for key in varied_keys(ordered)}
        row |= {"seeds": len(arm.values()), "seeds asked": len(arm.runs)}
        for name in final_metrics(ordered):
            over_seeds = interval(list(arm.test_values(name).values()))
            row |= {f"final/{name}": over_seeds.mean, f"final/{name} ±": over_seeds.reach}
            if ordered[0].by_validation:
                compared = interval(list(arm.values(name).values()))
                row |= {f"validation/{name}": compared.mean, f"validation/{name} ±": compared.reach}
        behind = paired(ordered[0], arm)
        row |= {"difference to the best": behind.mean, "difference to the best ±": behind.reach}
        row["against the best"] = verdict(ordered[0], arm)
        if target is not None:
            reached = arm.rounds_to(target)
            row |= {"seeds that reached": len(reached), "rounds": interval(list(reached.values())).mean}
            if seconds := list(arm.simulated_seconds_to(target).values()):
                row["simulated seconds"] = interval(seconds).mean
        found.append(row)
    return DataFrame(found).replace([float("inf"), float("-inf")], float("nan"))  # of a single seed


def write_runs(runs: Sequence[Run], path: Path) -> None:
    """Write a row a run: numbers as CSV or JSON, what `compare` prints as LaTeX.

    Raises UserError for another suffix, and for a file that cannot be written.
    """
    from pandas import DataFrame

    if path.suffix == ".tex":
        _write(DataFrame([{"run": run.name, **summary(run)} for run in runs]), path)
    else:
        _write(runs_frame(runs), path)


def write_arms(arms: Sequence[Arm], path: Path, target: float | None = None, *, all_metrics: bool) -> None:
    """Write a row an arm, as `write_runs` writes one a run."""
    from pandas import DataFrame

    if path.suffix == ".tex":
        headings, *lines = rows(arms, target, all_metrics=all_metrics)
        _write(DataFrame(lines, columns=headings), path)
    else:
        _write(arms_frame(arms, target), path)


def check_output(path: Path) -> None:
    """Raise UserError for a file of a kind that is not written."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"output must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {str(path)!r}")


def _write(frame: "DataFrame", path: Path) -> None:
    check_output(path)
    match path.suffix:
        case ".csv":
            text = frame.to_csv(index=False)
        case ".json":
            text = frame.to_json(orient="records", indent=1, double_precision=15, force_ascii=False) + "\n"
        case _:
            text = frame.to_latex(index=False, escape=True)
            for symbol, command in LATEX.items():
                text = text.replace(symbol, command)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the table to {path} ({error.strerror}): give another file") from error


def _run_row(run: Run, differing: Sequence[str]) -> dict[str, object]:
    config, traffic, result = run.config, run.traffic, run.result
    row: dict[str, object] = {"run": run.name, "status": run.status}
    shown = ["task", "dataset", "strategy", "num-clients", "seed", *differing]
    row |= {key: config.get(key) for key in dict.fromkeys(shown) if key not in NOT_COMPARED}
    row |= {"rounds": run.last_round, "metric": run.metric, "best round": run.best and run.best.server_round}
    if run.tested and run.chosen:
        row |= {f"validation/{name}": value for name, value in run.chosen.metrics.items()}
    for name, values in metric_table(run).items():
        row |= {f"{source}/{name}": value for source, value in zip(SOURCES, values, strict=True)}
    if run.simulated_seconds is not None:
        row["simulated seconds"] = run.simulated_seconds
    row |= {"seconds": run.seconds, "client failures": len(run.failures)}
    row |= {f"bytes/{way}": moved for way, moved in traffic.model_dump(exclude={"left"}).items()}
    row |= {f"bytes/left-{kind}": moved for kind, moved in traffic.left.items()}
    return row | {"weights_sha256": result.weights_sha256 if result else ""}
