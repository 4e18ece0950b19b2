"""What there is to run: tasks and datasets, of polyfed and of installed packages, and scenarios."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from rich import box
from rich.console import Console
from rich.text import Text

from models import registry as tasks
from models.core.errors import UserError
from models.core.plugins import BUILT_IN, offers
from models.data import datasets
from models.data.source import Source
from models.task import Task
from simulations.scenario import SCENARIOS, load_scenario
from simulations.terminal import Table

T = TypeVar("T")


class Found(NamedTuple, Generic[T]):
    """Something that goes by a name, and "built in" or the package that brings it."""

    thing: T
    origin: str


@dataclass(frozen=True)
class Catalogue:
    """All that loads, and a line about each plugin that does not."""

    tasks: Mapping[str, Found[tuple[type[Task], ...]]]
    """Name -> the task, or one for each kind of data that it learns from."""
    datasets: Mapping[str, Found[Source]]
    scenarios: Mapping[tuple[str, str], list[str]]
    """Task and kind of data -> the names of the scenarios."""
    broken: list[str]


def load_all(
    known: Mapping[str, Any], group: str, check: Callable[[str, object], T], broken: list[str]
) -> dict[str, Found[T]]:
    """Load the `known` and the entry points of `group`; a line about each that fails is added to `broken`."""
    loaded = {}
    for name, offer in sorted(offers(known, group).items()):
        try:
            loaded[name] = Found(check(name, offer.load()), offer.origin)
        except UserError as error:
            broken.append(str(error))
    return loaded


def read_catalogue() -> Catalogue:
    """Look everything up."""
    broken: list[str] = []
    scenarios = defaultdict(list)
    for path in sorted(SCENARIOS.glob("*.toml"), key=lambda path: path.stem):
        scenario = load_scenario(path)
        kind = datasets.find_source(str(scenario["dataset"])).kind
        scenarios[str(scenario["task"]), kind].append(path.stem)
    return Catalogue(
        load_all(tasks.TASKS, tasks.ENTRY_POINTS, tasks.task_classes, broken),
        load_all(datasets.DATASETS, datasets.ENTRY_POINTS, datasets.dataset_source, broken),
        scenarios,
        broken,
    )


def print_catalogue(console: Console, errors: Console) -> None:
    """Print a table of tasks for each kind of data, and a warning for each plugin that does not load."""
    catalogue = read_catalogue()
    used = {task.kind for classes, _ in catalogue.tasks.values() for task in classes}
    for kind in sorted(used | {each for source, _ in catalogue.datasets.values() for each in source.kinds}):
        console.print(Text.assemble((kind, "bold"), f": {_datasets(catalogue, kind)}"), soft_wrap=True)
        console.print(_tasks(catalogue, kind) if kind in used else "  no task learns from it")
        console.print()
    warn(errors, catalogue.broken)


def warn(errors: Console, broken: list[str]) -> None:
    """Print a warning for each plugin that does not load."""
    for line in broken:
        errors.print(Text.assemble(("warning:", "bold yellow"), f" {line}"), soft_wrap=True)


def _datasets(catalogue: Catalogue, kind: str) -> str:
    """List the datasets of a kind, those that need no files first; "csv:FILE" is followed by a path."""
    names: dict[bool, list[str]] = {True: [], False: []}
    for name, (source, origin) in catalogue.datasets.items():
        if kind in source.kinds:
            shown = source.form(name) + f" ({origin})" * (origin != BUILT_IN)
            names[source.packaged].append(shown)
    packaged, from_files = (", ".join(names[side]) for side in (True, False))
    return "; ".join(filter(None, (packaged, from_files and f"from your files {from_files}"))) or "no dataset"


def _tasks(catalogue: Catalogue, kind: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("task", "from", "learns", "metrics", "scenarios"):
        table.add_column(column, overflow="fold")
    offered = ((name, task, found.origin) for name, found in catalogue.tasks.items() for task in found.thing)
    for name, task, origin in offered:
        if task.kind == kind:
            summary = (task.__doc__ or "").strip().partition("\n")[0]
            metrics = ", ".join((f"{task.metric} {'↑' if task.maximize else '↓'}", *task.metrics))
            scenarios = ", ".join(catalogue.scenarios.get((name, kind), []))
            table.add_row(*map(Text, (name, origin, summary, metrics, scenarios)))
    return table
