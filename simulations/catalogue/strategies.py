"""The strategies that a scenario can name: Flower's, polyfed's, and those of installed packages."""

import inspect
import re
import sys
from collections.abc import Mapping
from importlib.metadata import version

from flwr.serverapp.strategy import FedAvg, Strategy
from rich import box
from rich.console import Console
from rich.text import Text

from models.core.plugins import BUILT_IN
from server.strategy import strategy_class
from simulations.catalogue.tasks import load_all, warn
from simulations.terminal import Table
from strategies.registry import ENTRY_POINTS, STRATEGIES
from strategies.sampling import FEDERATION

COMMON = frozenset(inspect.signature(FedAvg).parameters)
"""What nearly every strategy takes and polyfed fills in or leaves alone: samples, names of records."""
PAPER = re.compile(r"\barxiv(?:\.org/\w+/|:)(\d{4}\.\d{4,5})", re.IGNORECASE)


def options(cls: type[Strategy]) -> dict[str, inspect.Parameter]:
    """Return what `strategy-options` may set; a constructor that passes on the rest takes that too."""
    found: dict[str, inspect.Parameter] = {}
    for parent in cls.__mro__:
        constructor = vars(parent).get("__init__")
        if constructor is None:
            continue
        _, *parameters = inspect.signature(constructor).parameters.values()
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(parameter.name, parameter)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    # A function is nothing that TOML could give.
    return {
        name: parameter
        for name, parameter in found.items()
        if name not in (*COMMON, *FEDERATION) and "Callable" not in str(parameter.annotation)
    }


def paper(cls: type[Strategy]) -> str:
    """Return the first paper on arXiv that the class cites, or else its module; "" where neither does."""
    cited = (PAPER.search(text or "") for text in (cls.__doc__, sys.modules[cls.__module__].__doc__))
    return next((f"arXiv:{paper[1]}" for paper in cited if paper), "")


def print_strategies(console: Console, errors: Console) -> None:
    """Print a table of all strategies, and a warning for each plugin that does not load."""
    broken: list[str] = []
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("strategy", "from", "options", "paper"):
        table.add_column(column, overflow="fold")
    for name, (cls, origin) in load_all(STRATEGIES, ENTRY_POINTS, strategy_class, broken).items():
        table.add_row(*map(Text, (name, source_of(cls, origin), _in_words(options(cls)), paper(cls))))
    console.print(table)
    warn(errors, broken)


def source_of(cls: type[Strategy], origin: str) -> str:
    """Return who wrote a strategy: Flower, polyfed, or the package that it is from."""
    if origin != BUILT_IN:
        return origin
    return f"Flower {version('flwr')}" if cls.__module__.startswith("flwr.") else "polyfed"


def _in_words(options: Mapping[str, inspect.Parameter]) -> str:
    """Write options with their defaults, as strategy-options would set them."""
    return ", ".join(f"{name}{default_in_words(each.default)}" for name, each in options.items())


def default_in_words(value: object) -> str:
    """Return " = DEFAULT" as TOML writes it, or what there is in its place."""
    if value is inspect.Parameter.empty:
        return " (required)"
    if value is None:
        return " (optional)"  # TOML has no word for it
    return f" = {str(value).lower() if isinstance(value, bool) else repr(value)}"
