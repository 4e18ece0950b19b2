"""The words of a request: what a strategy says to clients beside the weights, and typed reading of it.

They travel in Flower's ConfigRecord, which checks neither names nor types. A key that one strategy and its
rule share is a constant of their module.
"""

from collections.abc import Mapping
from typing import Any

SERVER_ROUND = "server-round"
"""Number of the round, which Flower's strategies say as well."""


def number(config: Mapping[str, object], key: str) -> float:
    """Return a number that the strategy sent; raise ValueError for one that is missing, or no number."""
    value = _sent(config, key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _misfit(key, "a number", value)
    return float(value)


def whole_number(config: Mapping[str, object], key: str) -> int:
    """Return a whole number that the strategy sent; raise ValueError for one that is missing, or is none."""
    value = _sent(config, key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _misfit(key, "a whole number", value)
    return value


def as_json(config: Mapping[str, object]) -> dict[str, object]:
    """Return words as JSON can hold them, which knows no bytes."""
    return {
        key: {"bytes": value.hex()} if isinstance(value, bytes) else value for key, value in config.items()
    }


def from_json(held: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words that `as_json` made of it."""
    return {
        key: bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value
        for key, value in held.items()
    }


def _sent(config: Mapping[str, object], key: str) -> object:
    if key not in config:
        held = ", ".join(sorted(config)) or "nothing"
        raise ValueError(f"the strategy must send {key} to its clients, and it sends {held}")
    return config[key]


def _misfit(key: str, wanted: str, value: object) -> ValueError:
    return ValueError(f"{key} must be {wanted}, and the strategy sends {value!r} ({type(value).__name__})")
