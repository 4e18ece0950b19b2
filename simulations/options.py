"""Options as inline TOML text, the only form in which Flower's flat run config can carry them."""

import re
from collections.abc import Mapping
from typing import Any

import tomli_w

OPTIONS = (
    "task-options",
    "dataset-options",
    "strategy-options",
    "optimizer-options",
    "client-speeds",
    "availability",
)
"""The keys that a scenario file and an override may give as tables."""


def quoted(options: Mapping[str, Any]) -> str:
    """Return what `parse_options` reads back as these options; the same text however they were written."""
    return ", ".join(f"{_key(name)} = {inline(value)}" for name, value in sorted(options.items()))


def inline(value: Any) -> str:
    """Write a value of TOML in one line; a table by the names of its keys."""
    match value:
        case Mapping():
            return f"{{{quoted(value)}}}"
        case list():
            return f"[{', '.join(map(inline, value))}]"
        case str() if value.isprintable() and "'" not in value:
            return f"'{value}'"  # single quotes, as the whole is itself in double ones
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else inline(name)
