"""`polyfed explain RUN`, from the runs to the files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from server.run_schema import EXPLANATIONS, ExplanationSummary
from simulations.explain.explain import ask, check_comparable, chosen_rows, keep, methods_for
from simulations.explain.kept import Kept, load_kept
from simulations.explain.summary import print_summary
from simulations.report.page import write_report


def explain(
    given: Path, beside: Path | None, asked: Sequence[str], num_examples: int, console: Console
) -> list[ExplanationSummary]:
    """Explain a run's model, keep the answers in its folder, write its report anew, and print a summary.

    Raises UserError for what cannot be explained or compared, before anything is written.
    """
    kept = load_kept(given)
    other = load_kept(beside) if beside else None
    if other:
        kept, other = _told_apart(kept, other)
        check_comparable(kept, other)
    methods, rows = methods_for(kept, other, asked), chosen_rows(kept, num_examples)
    names = _names(kept, other)
    _print_head(kept, "", len(rows), console)
    if other:
        _print_head(other, "beside ", 0, console)
    found = [ask(kept, other, method, rows) for method in methods]
    for answers in found:
        keep(answers, kept.run.path, names)
    summaries = [answers.summary for answers in found]
    print_summary(summaries, console)
    console.print(f"figures and numbers: {kept.run.path / EXPLANATIONS}", soft_wrap=True)
    console.print(f"report: {write_report([kept.run.path])}", soft_wrap=True)
    return summaries


def _told_apart(kept: Kept, beside: Kept) -> tuple[Kept, Kept]:
    """Return two models; runs of one name in two folders are called by the end of their path, as "a/fed"."""
    if kept.run.name != beside.run.name or kept.run.path == beside.run.path:
        return kept, beside
    one, other = kept.run.path.parts, beside.run.path.parts
    length = next(length for length in range(1, len(one) + 1) if one[-length:] != other[-length:])
    return _called(kept, Path(*one[-length:])), _called(beside, Path(*other[-length:]))


def _called(kept: Kept, name: Path) -> Kept:
    return replace(kept, run=replace(kept.run, name=str(name)))


def _names(kept: Kept, beside: Kept | None) -> list[str]:
    """Return what figures and tables call the models."""
    if beside is None:
        return [kept.run.name]
    if kept.run.name != beside.run.name:
        return [kept.run.name, beside.run.name]
    return [f"{each.run.name}, {each.which}" for each in (kept, beside)]


def _print_head(kept: Kept, before: str, num_examples: int, console: Console) -> None:
    asked = f"; {num_examples} held-out examples of {kept.config.dataset}" if num_examples else ""
    console.print(Text(f"{before}{kept.run.name}: {kept.task_name}, {kept.which}{asked}"))
    for remark in kept.remarks:
        console.print(Text(f"  {remark}"))
