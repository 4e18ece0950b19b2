"""TOML that a person typed: what it holds, or one line that says why it cannot be read; and inline TOML."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from models.core.errors import UserError


def toml_value(text: str) -> Any:
    """Return the value that a text is; raises ValueError, in a few words, where it is not exactly one."""
    found = _loads(f"value = {text}")
    if found.keys() != {"value"}:  # "1}\n[more]\na = {2" would put a table of its own beside it
        raise ValueError("it goes on after the value")
    return found["value"]


def toml_file(path: Path, what: str) -> dict[str, Any]:
    """Return what a TOML file holds; raises UserError, with `what` it is, where it cannot be read."""
    try:
        return _loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # no TOML, or no UTF-8
        raise UserError(f"{what} {path} is not TOML: {error}") from error
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read ({error.strerror}): give another file") from error


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


def _loads(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python reads whole numbers of up to 4,300 digits
        raise ValueError("a number has too many digits") from None
