"""`polyfed tasks NAME`, `polyfed strategies NAME`: every option with its default and what it means."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise

from rich import box
from rich.console import Console
from rich.text import Text

from models import registry as tasks
from models.core.plugins import BUILT_IN, constructor_parameters, find, offers
from server.strategy import strategy_class
from simulations.catalogue.strategies import default_in_words, options, paper, source_of
from simulations.catalogue.tasks import read_catalogue
from simulations.terminal import Table
from strategies.registry import ENTRY_POINTS, STRATEGIES

OF_EVERY_TASK = {
    "local": "patterns of the state that stays with the client",
    "freeze": "patterns of the state that stays as it is",
}
"""Options that polyfed itself heeds."""
NUMPY_ENTRY = re.compile(r"^( *)(\w+) *: *.*\n((?:\1 +.*\n|\s*\n)+)", re.MULTILINE)
"""An entry of a NumPy docstring's Parameters: name, type, and the indented lines below."""


def print_strategy(name: str, console: Console) -> None:
    """Print what a strategy is and takes; raises UserError, with the nearest names, where there is none."""
    cls = strategy_class(name, find(name, "strategy", STRATEGIES, ENTRY_POINTS))
    offered = offers(STRATEGIES, ENTRY_POINTS).get(name)
    _print_head(console, name, source_of(cls, offered.origin if offered else cls.__module__), cls)
    _print_options(console, cls, options(cls), "strategy-options")


def print_task(name: str, console: Console) -> None:
    """Print what a task is and takes, on each kind of data; raises UserError where there is none."""
    classes = tasks.task_classes(name, find(name, "task", tasks.TASKS, tasks.ENTRY_POINTS))
    offered = offers(tasks.TASKS, tasks.ENTRY_POINTS).get(name)
    catalogue = read_catalogue()
    for cls in classes:
        _print_head(console, name, offered.origin if offered else cls.__module__, cls)
        metrics = ", ".join((f"{cls.metric} {'↑' if cls.maximize else '↓'}", *cls.metrics))
        fitting = (
            found.thing.form(data)
            for data, found in catalogue.datasets.items()
            if cls.kind in found.thing.kinds
        )
        for what, words in (
            ("data", f"{cls.kind}: {', '.join(fitting)}"),
            ("metrics", metrics),
            ("explained by", ", ".join(cls.explained_by) or "nothing"),
            ("scenarios", ", ".join(catalogue.scenarios.get((name, cls.kind), [])) or "none"),
        ):
            console.print(f"{what}: {words}")
        _, *parameters = constructor_parameters(cls).values()  # the first is the dataset
        common = {
            each: inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=[])
            for each in OF_EVERY_TASK
        }
        _print_options(console, cls, {each.name: each for each in parameters} | common, "task-options")


def meaning(cls: type, option: str) -> str:
    """Return what the docstrings of a class, or of those that it extends, say about an option; else "".

    That is the docstring of a field, an entry under Parameters, or the clause with its name in backquotes,
    of the class or of its module.
    """
    if option in OF_EVERY_TASK:
        return OF_EVERY_TASK[option]
    for parent in cls.__mro__:
        if said := _field_docstrings(parent).get(option):
            return said
        module = sys.modules.get(parent.__module__)
        for source in (parent, vars(parent).get("__init__"), module):
            text = getattr(source, "__doc__", None)
            if said := _in_parameters(text or "", option) or _in_backquotes(text or "", option):
                return said
    return ""


@cache
def _field_docstrings(cls: type) -> Mapping[str, str]:
    """Return what stands below the fields of a dataclass."""
    if "__dataclass_fields__" not in vars(cls):
        return {}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairwise(tree.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def _in_parameters(text: str, option: str) -> str:
    _, heading, listed = inspect.cleandoc(text).partition("Parameters\n----------\n")
    entries = NUMPY_ENTRY.finditer(f"{listed}\n") if heading else ()
    found = (" ".join(entry[3].split()) for entry in entries if entry[2] == option)
    return re.sub(r"\s*Defaults to \S+$", "", next(found, ""))


def _in_backquotes(text: str, option: str) -> str:
    clauses = re.split(r"(?<=[;.])\s+(?=[A-Z`])", " ".join(text.split()))
    found = next((clause for clause in clauses if f"`{option}`" in clause), "")
    return found.removeprefix("Options: ").removeprefix(f"`{option}`, ").rstrip(".;").replace("`", "")


def _print_head(console: Console, name: str, origin: str, cls: type) -> None:
    console.print(Text.assemble((name, "bold"), f" ({origin if origin != BUILT_IN else 'polyfed'})"))
    console.print(" ".join((cls.__doc__ or "").strip().partition("\n\n")[0].split()) or "no description")
    cited = paper(cls)
    if cited:
        console.print(f"paper: {cited}")


def _print_options(console: Console, cls: type, taken: Mapping[str, inspect.Parameter], key: str) -> None:
    if not taken:
        console.print("It takes no options.")
        return
    table = Table(box=box.SIMPLE, pad_edge=False, title=f"{key}", title_justify="left")
    for column in ("option", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for name, parameter in taken.items():
        default = default_in_words(parameter.default).removeprefix(" = ").strip(" ()")
        table.add_row(*map(Text, (name, default, meaning(cls, name))))
    console.print(table)
