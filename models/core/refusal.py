"""The one line with which a config refuses a value: what was given, and what is allowed."""

import math
from collections.abc import Mapping
from typing import Any, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from models.core.errors import UserError, shown, unknown

WORDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
"""Type -> what a value of it is called."""


def key_of(field_name: str) -> str:
    """Return the run-config key of a config field: `num_clients` is `num-clients`."""
    return field_name.replace("_", "-")


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Return the names that a field takes beside "", which is none; () where it takes other values too."""
    return tuple(name for name in get_args(field.annotation) if name)


def bounds(field: FieldInfo) -> str:
    """Return the bounds of a number in words: ">= 1" or "in [0, 1)"; "" where it has none."""
    low, high = "", ""
    for bound in field.metadata:
        match bound:
            case Ge():
                low, least = f"[{bound.ge}", f">= {bound.ge}"
            case Gt():
                low, least = f"({bound.gt}", f"> {bound.gt}"
            case Le():
                high = f"{bound.le}]"
            case Lt():
                high = f"{bound.lt})"
    if low and high:
        return f"in {low}, {high}"
    return least if low else ""


def refusal(error: ValidationError, declared: Mapping[str, FieldInfo]) -> UserError:
    """Return the line for the first value that pydantic refused; `declared` are the config's fields."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":  # from a check of our own, which has the words
        return UserError(str(first["ctx"]["error"]))
    fields = {key_of(name): field for name, field in declared.items()}
    key = key_of(str(first["loc"][0]))
    if first["type"] == "extra_forbidden":
        return unknown("run-config key", key, fields)
    if first["type"] == "missing":
        return UserError(f"{key} is missing from the run config")
    allowed = bounds(fields[key]) + (" and finite" if first["type"] == "finite_number" else "")
    return _misfit(key, first["input"], fields[key], allowed)


def _misfit(key: str, given: Any, field: FieldInfo, allowed: str) -> UserError:
    """Return the line for a value of another type, outside the bounds, or that is none of the choices."""
    names = choices(field)
    declared: Any = str if names else field.annotation
    if declared is float and type(given) is int:
        try:
            given = float(given)
        except OverflowError:  # TOML in Python knows whole numbers of any size
            given = math.inf if given > 0 else -math.inf
    if type(given) is not declared:
        return UserError(f"{key} must be {WORDS[declared]}, got {shown(given)}")
    if names:
        return unknown(key, given, names)
    return UserError(f"{key} must be {allowed}, got {shown(given)}")
