"""Finding what was meant as a declaration, and would be read by nobody.

A strategy whose client half is misspelled would train as FedAvg without a word.
"""

from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from flwr.serverapp.strategy import FedAvg, Strategy

from strategies.declaration import Declaration

DECLARATION = "declaration"
OLD_NAMES = {
    "local_rule": "local_rules",
    "personal_rule": "personal_rules",
    "weighted_by_key": "weighted_by",
    "replies_beside": "replies_aux",
}
"""How attributes of strategies were called before there was a declaration -> its field."""
SIMILAR = 0.85
"""How alike two names are that are taken for one, as difflib measures it."""
EXAMPLES: dict[str, Any] = {
    "local_rules": ("module:Class",),
    "personal_rules": ("module:Class",),
    "weighted_mean": True,
    "weighted_by": "num-examples",
    "replies_aux": True,
    "received_losses": True,
    "metric_ranges": (("metric", 0.0, 1.0),),
    "over_all_clients": True,
    "withstands": 1,
    "not_kept": ("attribute",),
}


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


MEANT = {_plain(name): name for name in (DECLARATION, *(field.name for field in fields(Declaration)))} | {
    _plain(old): field for old, field in OLD_NAMES.items()
}
"""Names in plain letters -> what they mean."""


def check_near_misses(strategy: Strategy | type[Strategy]) -> None:
    """Raise ValueError for an attribute that looks like a declaration, or a part of one, and is none.

    Names that begin with an underscore are the author's own, and so is what Flower's classes define.
    """
    cls = strategy if isinstance(strategy, type) else type(strategy)
    for name, value in _attributes(strategy):
        if name.startswith("_") or name == DECLARATION:
            continue
        for close in get_close_matches(_plain(name), MEANT, n=1, cutoff=SIMILAR):
            raise ValueError(
                f"{cls.__name__}.{name} is read by nobody: write {_instead(MEANT[close], value)} "
                f"in the class, or name it _{name} if it is something else"
            )


def _attributes(strategy: Strategy | type[Strategy]) -> Iterator[tuple[str, Any]]:
    """Yield what the classes beneath Flower's define, and what the strategy itself holds."""
    if not isinstance(strategy, type):
        flowers = {"weighted_by_key"} if isinstance(strategy, FedAvg) else set()
        yield from ((name, value) for name, value in vars(strategy).items() if name not in flowers)
    cls = strategy if isinstance(strategy, type) else type(strategy)
    for base in cls.__mro__:
        if issubclass(base, Strategy) and not base.__module__.startswith("flwr."):
            yield from vars(base).items()


def _instead(field: str, value: Any) -> str:
    if field == DECLARATION:
        return "declaration = Declaration(...)"
    if field == "check_optimizer":
        return "declaration = Declaration(check_optimizer=FUNCTION)"
    example = EXAMPLES[field]
    if isinstance(example, tuple) and isinstance(value, str):
        value = tuple(filter(None, value.split("+"))) if ":" in value else (value,)
    return f"declaration = Declaration({field}={(value if type(value) is type(example) else example)!r})"
