"""Finding a task, a dataset or a strategy by name, entry point or "module:Class", and checking options."""

import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from models.core.config import checked
from models.core.errors import UserError, shown, unknown
from models.core.user_code import hidden_by, import_user_module

BUILT_IN = "built in"


@dataclass(frozen=True)
class Offer:
    """What a name stands for, before it is loaded."""

    origin: str
    """BUILT_IN, or the package that brings it, with its version."""
    load: Callable[[], Any]
    """Import and return it; UserError where that fails."""


def offers(known: Mapping[str, Any], group: str) -> dict[str, Offer]:
    """Return what goes by a name: entry points of `group`, and the `known`, which win over them."""
    plugins = {
        point.name: Offer(_package(point), partial(_load, point)) for point in entry_points(group=group)
    }
    return plugins | {name: Offer(BUILT_IN, partial(known.__getitem__, name)) for name in known}


def find(name: str, kind: str, known: Mapping[str, Any], group: str) -> Any:
    """Return what `name` stands for: a built-in, an entry point of `group`, or "module:Class".

    Raises UserError with the nearest names when there is no such thing.
    """
    if name in known:  # what is built in wins, and asks no installed package
        return known[name]
    offered = offers(known, group)
    if name in offered:
        return offered[name].load()
    if ":" not in name:
        raise unknown(kind, name, offered)
    return load_object(name, kind)


def check_offered(name: str, kind: str, known: Collection[str], group: str, allowed: Sequence[str]) -> None:
    """Raise UserError for a "module:Class" whose module is not among the `allowed`; import nothing.

    What is built in, and what an entry point of `group` brings, is offered by this installation itself.
    """
    if ":" in name and name not in known and name not in offers({}, group):
        check_module(f"{kind} {shown(name)}", name.partition(":")[0], allowed)


def check_module(owner: str, module: str, allowed: Sequence[str]) -> None:
    """Raise UserError for a module that is neither one of the `allowed`, nor lies in one."""
    if not any(module == each or module.startswith(f"{each}.") for each in allowed):
        raise UserError(
            f"{owner} is code that this node does not offer: its owner may install a package that brings it "
            f"as an entry point, or allow {module!r} by allow-code in --node-config, which allows "
            f"{', '.join(allowed) or 'none'}"
        )


def comes_with(module: str, group: str) -> bool:
    """Return whether an entry point of `group` has brought a module of its own package along.

    It loads those of that package, and imports nothing else.
    """
    package = module.partition(".")[0]
    points = [each for each in entry_points(group=group) if each.module.partition(".")[0] == package]
    for point in points:
        _load(point)
    return bool(points) and module in sys.modules


def load_object(name: str, kind: str) -> Any:
    """Import "module:Class", of the current folder or installed; raise UserError where it cannot be.

    A fault in the module's own code shows itself.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(f'{kind} must be "module:Class", got {shown(name)}')
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise UserError(f"{kind} {shown(name)} cannot be imported: it must be like 'package.module:Class'")
    try:
        module = import_user_module(module_name)
    except ImportError as error:  # any other is a fault in the module's own code
        raise UserError(f"{kind} {name!r} cannot be imported: {error}") from error
    if not hasattr(module, attribute):
        raise UserError(
            f"{kind} {name!r} cannot be imported: module {module_name!r} has no attribute {attribute!r}"
            f"{hidden_by(module)}"
        )
    return getattr(module, attribute)


def constructor_parameters(cls: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return what can be given to a class by name; a constructor that passes on the rest takes that too."""
    found: dict[str, inspect.Parameter] = {}
    own = [vars(parent)["__init__"] for parent in getattr(cls, "__mro__", ()) if "__init__" in vars(parent)]
    for signature in (inspect.signature(cls), *map(inspect.signature, own[1:-1])):  # the last is object's
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        for name, parameter in signature.parameters.items():
            if name != "self" and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(name, parameter)
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return found


def check_options(
    owner: str, cls: Callable[..., Any], options: Mapping[str, Any], given: tuple[str, ...]
) -> None:
    """Raise UserError for an option that the constructor of `cls` does not take, or not of that type.

    A type is checked where it is plain: text, a number or a truth. `given` names the parameters that
    polyfed fills in itself. Of a constructor that passes options on, Python alone says what it does not take.
    """
    parameters = constructor_parameters(cls)
    own = inspect.signature(cls).parameters.values()
    passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own)
    functions = [name for name, each in parameters.items() if _is_function(each.annotation)]
    allowed = [name for name in parameters if name not in (*given, *functions)]
    for option, value in options.items():
        if option in functions:
            raise UserError(
                f"option {option!r} of {owner} is a function, which no text can give: set it in a class of "
                "your own"
            )
        if option not in allowed:
            if passes_on and option not in given and option != "self":
                continue
            raise unknown(f"option of {owner}", option, allowed or ["none"])
        declared = [kind for kind in _kinds(parameters[option].annotation) if kind is not NoneType]
        if len(declared) == 1 and declared[0] in (bool, int, float, str):
            checked(option, value, declared[0])


def check_required(owner: str, cls: Callable[..., Any], filled: Collection[str]) -> None:
    """Raise UserError for a parameter without a default that is not among those `filled`."""
    for name, parameter in inspect.signature(cls).parameters.items():
        by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if by_name and parameter.default is parameter.empty and name not in filled:
            raise UserError(f"{owner} needs the option {name!r}: set it")


def _is_function(annotation: Any) -> bool:
    """Return whether an annotation allows functions alone, such as `Callable[[float], float] | None`."""
    optional = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    declared = [kind for kind in optional if kind is not NoneType]
    return bool(declared) and all(get_origin(kind) is Callable or kind is Callable for kind in declared)


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """Return what an annotation such as `float | None` allows."""
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except MemoryError:  # not the package's fault
        raise
    except Exception as error:  # whatever its code raises: it must not hide the other packages
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"{point.name!r} of {_package(point)} (entry point {point.group}) cannot be loaded: {reason}"
        ) from error
