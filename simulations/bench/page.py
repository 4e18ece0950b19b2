"""Writes what the benchmarks measured into the docs: `python -m simulations.bench.page`.

It reads the JSON files in runs/bench, and replaces what lies between the marks of each in docs/results.md. A
benchmark that was not run leaves its part of the page as it is.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from models.core.errors import UserError
from simulations.bench import rounds, scaling, startup
from simulations.bench.measurements import FOLDER
from simulations.bench.plots import draw_rounds, draw_scaling, save_figure
from simulations.bench.round_table import markdown, read_runs

DOCS = Path(__file__).parents[2] / "docs"


def replace_between(page: str, name: str, text: str) -> str:
    """Return the page with `text` between `<!-- name -->` and `<!-- /name -->`.

    Raises UserError where these marks are not there once each, in this order.
    """
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = page.partition(first)
    _, closed, after = rest.partition(last)
    if not found or not closed or page.count(first) + page.count(last) > 2:
        raise UserError(f"the page must hold {first.strip()} and below it {last}, each of them once")
    return f"{before}{first}{text}{last}{after}"


def _rounds(saved: Mapping[str, Any], images: Path) -> str:
    measured = read_runs(saved)
    save_figure(draw_rounds(measured), images / "bench-rounds.svg")
    tables = "\n".join(markdown(workload, by_system) for workload, by_system in measured.items())
    figure = "![Seconds a round of each system](images/bench-rounds.svg)\n"
    return f"{tables}\n{figure}\n{_measured_on(saved['workloads'])}"


def _measured_on(workloads: Mapping[str, Any]) -> str:
    """Return on what machine, and by which commit, each workload was measured: not all in one call."""
    on: dict[str, list[str]] = {}
    for workload, found in sorted(workloads.items()):
        on.setdefault(found["machine"], []).append(workload)
    return "".join(f"{', '.join(names)} measured on: {machine}.\n\n" for machine, names in on.items())[:-1]


def _startup(saved: Mapping[str, Any], images: Path) -> str:
    return f"{startup.markdown(saved['scenarios'])}\nMeasured on: {saved['machine']}.\n"


def _scaling(saved: Mapping[str, Any], images: Path) -> str:
    save_figure(draw_scaling(scaling.read_found(saved)), images / "bench-scaling.svg")
    figure = "![Seconds a round as the federation grows](images/bench-scaling.svg)\n"
    return f"{figure}\nMeasured on: {saved['machine']}.\n"


PARTS: Mapping[str, tuple[str, Callable[[Mapping[str, Any], Path], str]]] = {
    "bench-rounds": (rounds.FILE, _rounds),
    "bench-startup": (startup.FILE, _startup),
    "bench-scaling": (scaling.FILE, _scaling),
}
"""Mark -> the file with the numbers, and what makes the text of them, and figures in a folder."""


def write_page(page: Path, folder: Path) -> list[str]:
    """Renew the parts of the page whose numbers are in `folder`; return their marks."""
    text, renewed = page.read_text(encoding="utf-8"), []
    images = page.parent / "images"
    for mark, (file, part) in PARTS.items():
        if not (folder / file).exists():
            continue
        saved = json.loads((folder / file).read_text(encoding="utf-8"))
        images.mkdir(exist_ok=True)
        text = replace_between(text, mark, part(saved, images))
        renewed.append(mark)
    page.write_text(text, encoding="utf-8")
    return renewed


def main(
    folder: Annotated[Path, typer.Option(help="Where the benchmarks have put their numbers.")] = FOLDER,
    page: Annotated[Path, typer.Option(help="The page to renew.")] = DOCS / "results.md",
) -> None:
    """Renew the page."""
    renewed = write_page(page, folder)
    print(f"{page}: renewed {', '.join(renewed) or 'nothing'}")


if __name__ == "__main__":
    typer.run(main)
