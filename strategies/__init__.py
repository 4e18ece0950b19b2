"""Strategies: the public face for authors of plugins, who import from here alone.

Names are imported when they are first asked for, as torch takes seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strategies.conformance.checks import checks
    from strategies.conformance.federation import Candidate
    from strategies.declaration import Declaration, declaration_of
    from strategies.rule import (
        CLIENT_COUNT,
        Arrays,
        AuxTensors,
        LocalRule,
        ParameterResult,
        RuleResult,
        aux_arrays,
        split_aux,
    )
    from strategies.wire.arrays import to_arrays, to_record
    from strategies.wire.train_config import number

__all__ = [
    "CLIENT_COUNT",
    "Arrays",
    "AuxTensors",
    "Candidate",
    "Declaration",
    "LocalRule",
    "ParameterResult",
    "RuleResult",
    "aux_arrays",
    "checks",
    "declaration_of",
    "number",
    "split_aux",
    "to_arrays",
    "to_record",
]

_MODULES = {
    "Candidate": "conformance.federation",
    "Declaration": "declaration",
    "checks": "conformance.checks",
    "declaration_of": "declaration",
    "number": "wire.train_config",
    "to_arrays": "wire.arrays",
    "to_record": "wire.arrays",
}
"""Name -> the module that defines it; strategies.rule unless it is listed."""


def __getattr__(name: str) -> Any:
    """Import a public name (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'rule')}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
