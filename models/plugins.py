"""Finding a task or a strategy by name, entry point or "module:Class", and checking its options."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from models.config import checked
from models.errors import UserError, unknown


def find(name: str, kind: str, known: Mapping[str, Any], group: str) -> Any:
    """Return what `name` stands for: a built-in, an entry point of `group`, or "module:Class".

    Raises UserError with the nearest names when there is no such thing.
    """
    if name in known:
        return known[name]
    plugins = {point.name: point for point in entry_points(group=group)}
    if name in plugins:
        return plugins[name].load()
    if ":" not in name:
        raise unknown(kind, name, [*known, *plugins])
    module_name, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{kind} {name!r} cannot be imported: {error}") from error


def check_options(
    owner: str, cls: Callable[..., Any], options: Mapping[str, Any], given: tuple[str, ...]
) -> None:
    """Raise UserError for an option that the constructor of `cls` does not take, or not of that type.

    A type is checked where it is plain: text, a number or a truth. `given` names the parameters that
    polyfed fills in itself.
    """
    parameters = inspect.signature(cls).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    allowed = [name for name in parameters if name not in given]
    for option, value in options.items():
        if option not in allowed:
            raise unknown(f"option of {owner}", option, allowed or ["none"])
        if parameters[option].annotation in (bool, int, float, str):
            checked(option, value, parameters[option].annotation)
