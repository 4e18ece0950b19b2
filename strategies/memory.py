"""Taking a strategy's memory out of it and putting it back, without executing pickled code.

Strategies are plain objects, so their memory is their attributes: numbers, text, arrays, and containers
or wrapped strategies of these. Whatever else an attribute holds is refused by its name, unless the strategy
declares it as not to be kept: it is then as the constructor sets it.
"""

from collections import OrderedDict
from collections.abc import MutableMapping, MutableSequence, MutableSet
from enum import Enum
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.declaration import declaration_of
from strategies.wire.records import to_arrays, to_record

Plain = Any
"""What JSON can hold."""
ALLOWED = "None, numbers, text, arrays, and lists, tuples and dicts (by text or whole numbers) of these"


class NotSavedError(TypeError):
    """An attribute of a strategy holds what no checkpoint can."""


class _UnknownKindError(Exception):
    """What cannot be saved, and its dotted name."""


def capture(strategy: Strategy) -> tuple[Plain, dict[str, Tensor]]:
    """Return a JSON tree of the strategy's attributes, and the arrays that it points to.

    Raises NotSavedError for an attribute that cannot be saved, and is not declared as not to be kept.
    """
    arrays: dict[str, Tensor] = {}
    return _capture_strategy(strategy, type(strategy).__name__, "", arrays), arrays


def restore(strategy: Strategy, tree: Plain, arrays: dict[str, Tensor]) -> None:
    """Set the attributes that `capture` took from a strategy of the same class."""
    for name, node in tree["strategy"].items():
        if isinstance(node, dict) and "strategy" in node:
            restore(vars(strategy)[name], node, arrays)
        else:
            setattr(strategy, name, _restore(node, arrays))


def _capture_strategy(strategy: Strategy, name: str, path: str, arrays: dict[str, Tensor]) -> Plain:
    """Capture what a strategy remembers; `name` is the dotted one, for errors, `path` is where arrays go."""
    nodes, left_out = {}, ("declaration", *declaration_of(strategy).not_kept)
    _check_class_body(strategy, name, left_out)
    for attribute, value in vars(strategy).items():
        if attribute in left_out:
            continue
        place = f"{name}.{attribute}", f"{path}/{attribute}", arrays
        try:
            if isinstance(value, Strategy):
                nodes[attribute] = _capture_strategy(value, *place)
            else:
                nodes[attribute] = _capture(value, *place)
        except _UnknownKindError as error:
            raise NotSavedError(
                f"{error}, which no checkpoint can hold: keep {ALLOWED}, or leave {attribute} out of "
                f'checkpoints with Declaration(not_kept=("{attribute}",))'
            ) from error
    return {"strategy": nodes}


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


def _capture(value: Any, name: str, path: str, arrays: dict[str, Tensor]) -> Plain:
    while path in arrays:  # of {"a/b": x, "a": {"b": y}}
        path += "'"
    match value:
        case Enum():  # some are numbers or text, and would not come back as what they were
            raise _UnknownKindError(f"{name} is an enum, {type(value).__name__}")
        case None | bool() | int() | float() | str():
            return value
        case np.generic():
            arrays[path] = _to_tensor(np.array(value), name)
            return {"scalar": path}
        case np.ndarray():
            arrays[path] = _to_tensor(np.array(value), name)
            return {"array": path}
        case Tensor():
            if value.layout is not torch.strided or value.dtype is torch.complex128:
                raise _UnknownKindError(f"{name} is a tensor of {value.dtype}, {value.layout}")
            arrays[path] = value.detach().cpu().clone()  # safetensors refuses tensors that share memory
            return {"tensor": path}
        case ArrayRecord():
            return {"record": _capture(to_arrays(value), name, path, arrays)}
        case dict() | list() | tuple():
            return _capture_container(value, name, path, arrays)
    raise _UnknownKindError(f"{name} is of type {type(value).__name__}")


def _capture_container(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...], name: str, path: str, arrays: dict[str, Tensor]
) -> Plain:
    """Capture a container; one of a type that would come back as another, as a defaultdict, is refused."""
    if type(value) in (dict, OrderedDict):
        assert isinstance(value, dict)
        kinds = {type(key) for key in value}
        if kinds <= {str}:
            return {
                "dict": {
                    key: _capture(item, f"{name}.{key}", f"{path}/{key}", arrays)
                    for key, item in value.items()
                }
            }
        if kinds == {int}:  # by client, say; JSON knows no such key
            items = [
                [str(key), _capture(item, f"{name}[{key}]", f"{path}/{key}", arrays)]
                for key, item in value.items()
            ]
            return {"by-number": items}
        raise _UnknownKindError(f"{name} is a dict with keys of type {_named(kinds)}")
    if type(value) not in (list, tuple):
        raise _UnknownKindError(f"{name} is of type {type(value).__name__}")
    items = [
        _capture(item, f"{name}[{index}]", f"{path}/{index}", arrays) for index, item in enumerate(value)
    ]
    return {"tuple" if isinstance(value, tuple) else "list": items}


def _to_tensor(array: np.ndarray, name: str) -> Tensor:
    try:
        tensor = torch.from_numpy(array)
        if tensor.dtype is not torch.complex128:  # safetensors has no such type
            return tensor
    except (TypeError, ValueError):  # of objects or text, or with its bytes the other way round
        pass
    raise _UnknownKindError(f"{name} is an array of {array.dtype}")


def _named(kinds: set[type]) -> str:
    return " and ".join(sorted(kind.__name__ for kind in kinds))


def _restore(node: Plain, arrays: dict[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, body),) = node.items()
    match kind:
        case "array":
            return arrays[body].numpy()
        case "scalar":
            return arrays[body].numpy()[()]
        case "tensor":
            return arrays[body]
        case "record":
            return to_record(_restore(body, arrays))
        case "dict":
            return {name: _restore(item, arrays) for name, item in body.items()}
        case "by-number":
            return {int(name): _restore(item, arrays) for name, item in body}
        case "tuple":
            return tuple(_restore(item, arrays) for item in body)
        case "list":
            return [_restore(item, arrays) for item in body]
    raise ValueError(f"the checkpoint holds a {kind!r}, which this version of polyfed does not know")
