"""What a GPU does for polyfed: `python -m simulations.bench.gpu`, or `make gpu`.

It measures whether results repeat on the GPU, every family against the CPU, small clients stacked against one
by one, ways to get examples to the GPU, and workers that share it. On a machine without CUDA it says so.
"""

import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from joblib import cpu_count  # heeds what a scheduler or a container allows this process

from models.core.machine import cpu_name, device_name
from models.core.tracebacks import line_of
from simulations.bench.gpu_parts import PARTS, Piece, Sizes, pieces
from simulations.bench.gpu_table import Row, tabulate, write
from simulations.doctor.gpus import gpu_findings, graphics
from simulations.terminal import make_console


def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="What does not fit into these is left out.")] = 15,
    part: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PARTS)}; may be repeated.")] = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Without workers that share the GPU, so without Ray.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Where gpu.md and gpu.json are written.")] = Path("runs/gpu"),
) -> None:
    """Measure, print a table, and write it row by row."""
    console = make_console()
    for name in part or ():
        if name not in PARTS:
            raise typer.BadParameter(f"part must be one of {', '.join(PARTS)}, got {name!r}")
    if not torch.cuda.is_available():
        console.print(f"Nothing is measured: {gpu_findings(graphics())[0].found}.", soft_wrap=True)
        return
    machine = describe(torch.device("cuda"))
    wanted = [
        each
        for each in pieces("cuda", _sizes(cpu_count()), actors=not in_process)
        if not part or each.part in part
    ]
    rows: list[Row] = []
    for row in measured(wanted, time.monotonic() + 60 * minutes):
        rows.append(row)
        write(folder, rows, title(machine), machine)
        console.print("  ".join(row.cells()), soft_wrap=True)
    console.print(tabulate(rows, title(machine)))
    console.print(f"table: {folder / 'gpu.md'}", soft_wrap=True)
    if any(row.failed for row in rows):
        raise typer.Exit(1)


def measured(wanted: Iterable[Piece], until: float) -> Iterable[Row]:
    """Yield a row a piece: what it measures, why that failed, or that no time was left for it.

    `until` is a time of time.monotonic().
    """
    for piece in wanted:
        left = until - time.monotonic()
        if left < piece.guess:
            also = f"left out: it may take {piece.guess:.0f} s, and {max(0, left):.0f} s were left"
            yield Row(piece.part, piece.what, also=also)
            continue
        try:
            yield piece.measure(left)
        except Exception as error:  # of one part: the others are measured all the same
            yield Row(piece.part, piece.what, also=f"failed: {line_of(error)}", failed=True)


def _sizes(num_cpus: int) -> Sizes:
    """Return the sizes, with no more workers than there are CPUs."""
    return Sizes(actors=[number for number in Sizes().actors if number <= num_cpus])


def describe(device: torch.device) -> dict[str, object]:
    """Return what a number needs beside it to mean anything."""
    return {
        "device": device_name(device),
        "gpus": torch.cuda.device_count(),
        "cpu": cpu_name(),
        "cpus": cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def title(machine: dict[str, object]) -> str:
    """Return the line over the table."""
    return (
        f"{machine['device']}; {machine['cpus']} CPUs ({machine['cpu']}); torch {machine['torch']}, "
        f"Python {machine['python']}. " + "; ".join(f"{part}: {what}" for part, what in PARTS.items()) + "."
    )


if __name__ == "__main__":
    typer.run(main)
