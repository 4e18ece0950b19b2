"""The table of model families: what each reaches untrained, alone, federated and centralized."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from simulations.bench.trials import Family
from simulations.runs.compare import NOTHING, number
from simulations.runs.record import UNFINISHED, Run
from simulations.terminal import Table

HEADINGS = ("task", "metric", "untrained", "local only", "federated", "centralized", "difference", "minutes")


@dataclass(frozen=True)
class Row:
    """One family; what has not been measured is None."""

    name: str
    metric: str
    maximize: bool
    """Whether more of the metric is better."""
    untrained: float | None
    """Of the initial model of the federated run."""
    alone: float | None
    """Mean over the clients that trained by themselves."""
    num_alone: int
    num_clients: int
    federated: float | None
    centralized: float | None
    seconds: float
    """Of all its runs, one after the other."""

    @property
    def difference(self) -> float | None:
        """How much better federated is than centralized, relative to centralized; negative is worse."""
        if self.federated is None or not self.centralized:
            return None
        return (self.federated - self.centralized) / abs(self.centralized) * (1 if self.maximize else -1)

    def cells(self) -> list[str]:
        """Return the row as texts, under HEADINGS."""
        values = [
            NOTHING if value is None else number(value)
            for value in (self.untrained, self.alone, self.federated, self.centralized)
        ]
        values[1] += f" ({self.num_alone} of {self.num_clients})"
        difference = NOTHING if self.difference is None else f"{100 * self.difference:+.1f} %"
        metric = f"{self.metric or NOTHING} {'↑' if self.maximize else '↓'}"
        return [self.name, metric, *values, difference, f"{self.seconds / 60:.1f}"]


def row_of(family: Family) -> Row:
    """Read the row of a family from its run folders."""
    federated, centralized = family.federated.run(), family.centralized.run()
    alone = [trial.run() for trial in family.alone]
    found = [run for run in (federated, centralized, *alone) if run]
    results = [run.result for run in found if run.result and run.status != UNFINISHED]
    reached = [value for value in map(_best, alone) if value is not None]
    return Row(
        name=family.name,
        metric=results[0].metric if results else "",
        maximize=results[0].maximize if results else True,
        untrained=_untrained(federated),
        alone=mean(reached) if alone and len(reached) == len(alone) else None,
        num_alone=len(alone),
        num_clients=family.num_clients,
        federated=_best(federated),
        centralized=_best(centralized),
        seconds=sum(run.seconds for run in found),
    )


def caption(seeds: Sequence[int]) -> str:
    """Return what a reader has to know about the numbers."""
    which = ", ".join(map(str, sorted(set(seeds))))
    return (
        f"Seed {which}. Every number is of the model that a run keeps, its best one by validation "
        "examples, on the same test examples (untrained: on the validation examples); ↑ more is better, ↓ "
        "less is. Local only: the mean of clients that each train without the others (how many, of how "
        "many), for the epochs that a client trains in the federation. "
        "Difference: of federated to centralized, relative, + where federated is better. "
        "Minutes: of the row's runs together, on one thread each."
    )


def tabulate(rows: Sequence[Row], seeds: Sequence[int]) -> Table:
    """Return the table for a terminal."""
    table = Table(caption=caption(seeds), caption_justify="left")
    for heading in HEADINGS:
        words = heading in HEADINGS[:2]
        table.add_column(heading, justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*row.cells())
    return table


def markdown(rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """Return the table for a README."""
    lines = [HEADINGS, ("---", "---", *["---:"] * (len(HEADINGS) - 2)), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{caption(seeds)}\n"


def _best(run: Run | None) -> float | None:
    return run.best.metrics.get(run.metric) if run and run.result and run.best else None


def _untrained(run: Run | None) -> float | None:
    if run is None or not run.rounds or run.rounds[0].server_round != 0:
        return None
    return run.rounds[0].central.get(run.metric)
