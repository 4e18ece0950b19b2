"""Taking a strategy's memory out of it and putting it back, without executing pickled code.

Strategies are plain objects, so their memory is their attributes: see `strategies.kept_values` for what they
may hold, and wrapped strategies. Whatever else an attribute holds is refused by its name, unless the strategy
declares it as not to be kept: it is then as the constructor sets it.
"""

from collections.abc import MutableMapping, MutableSequence, MutableSet
from difflib import get_close_matches
from typing import Any

from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.declaration import declaration_of
from strategies.kept_values import ALLOWED, Plain, Reader, UnknownKindError, Writer


class NotSavedError(TypeError):
    """An attribute of a strategy holds what no checkpoint can."""


def capture(strategy: Strategy) -> tuple[Plain, dict[str, Tensor]]:
    """Return a JSON tree of the strategy's attributes, and the arrays that it points to.

    Raises NotSavedError for an attribute that cannot be saved, and is not declared as not to be kept.
    """
    writer = Writer()
    return _capture_strategy(strategy, type(strategy).__name__, "", writer), writer.arrays


def restore(strategy: Strategy, tree: Plain, arrays: dict[str, Tensor]) -> None:
    """Set the attributes that `capture` took from a strategy of the same class."""
    _restore_strategy(strategy, tree, Reader(arrays))


def _restore_strategy(strategy: Strategy, tree: Plain, reader: Reader) -> None:
    for name, node in tree["strategy"].items():
        if isinstance(node, dict) and "strategy" in node:
            _restore_strategy(getattr(strategy, name), node, reader)
        else:
            setattr(strategy, name, reader.read(node))


def _capture_strategy(strategy: Strategy, name: str, path: str, writer: Writer) -> Plain:
    """Capture what a strategy remembers; `name` is the dotted one, for errors, `path` is where arrays go."""
    left_out = declaration_of(strategy).not_kept
    _check_declared(strategy, name, left_out)
    _check_class_body(strategy, name, left_out)
    nodes = {}
    for attribute, value in _attributes(strategy).items():
        if attribute in ("declaration", *left_out):
            continue
        place = f"{name}.{attribute}", f"{path}/{attribute}"
        try:
            if isinstance(value, Strategy):
                nodes[attribute] = _capture_strategy(value, *place, writer)
            else:
                nodes[attribute] = writer.write(value, *place)
        except UnknownKindError as error:
            raise NotSavedError(
                f"{error}, which no checkpoint can hold: keep {ALLOWED}, or leave {attribute} out of "
                f'checkpoints with Declaration(not_kept=("{attribute}",))'
            ) from error
    return {"strategy": nodes}


def _attributes(strategy: Strategy) -> dict[str, Any]:
    """Return what a strategy holds, in slots too."""
    slots = [vars(cls).get("__slots__", ()) for cls in type(strategy).__mro__]
    names = [name for given in slots for name in ((given,) if isinstance(given, str) else given)]
    held = {name: getattr(strategy, name) for name in names if name[:2] != "__" and hasattr(strategy, name)}
    return {**vars(strategy), **held}


def _check_declared(strategy: Strategy, name: str, left_out: tuple[str, ...]) -> None:
    """Raise NotSavedError for a name that is declared as not to be kept and that nothing has."""
    for missing in (each for each in left_out if not hasattr(strategy, each)):
        close = get_close_matches(missing, _attributes(strategy), n=1)
        meant = f"did you mean {close[0]!r}?" if close else "set it in the constructor, or leave it out"
        raise NotSavedError(f"{name} declares not_kept = ({missing!r},) and has no such attribute: {meant}")


def _check_class_body(strategy: Strategy, name: str, left_out: tuple[str, ...]) -> None:
    """Raise NotSavedError for a container that can change and belongs to the class, not to the strategy."""
    for cls in type(strategy).__mro__:
        for attribute, value in vars(cls).items():
            changeable = isinstance(value, MutableMapping | MutableSequence | MutableSet)
            if changeable and attribute[:2] != "__" and attribute not in (*left_out, *vars(strategy)):
                raise NotSavedError(
                    f"{name}.{attribute} is a {type(value).__name__} in the body of {cls.__name__}, which no "
                    f"checkpoint holds: set it in the constructor, or, if it stays as it is, declare "
                    f'Declaration(not_kept=("{attribute}",))'
                )
