"""Taking a strategy's memory out of it and putting it back, without executing pickled code.

Strategies are plain objects, so their memory is their attributes: numbers, text, arrays, and containers
or wrapped strategies of these. What is neither, such as a function, is configuration that the
constructor sets again.
"""

from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.wire.records import to_arrays, to_record

Plain = Any
"""What JSON can hold."""


def capture(strategy: Strategy) -> tuple[Plain, dict[str, Tensor]]:
    """Return a JSON tree of the strategy's attributes, and the arrays that it points to."""
    arrays: dict[str, Tensor] = {}
    return _capture(strategy, "", arrays), arrays


def restore(strategy: Strategy, tree: Plain, arrays: dict[str, Tensor]) -> None:
    """Set the attributes that `capture` took from a strategy of the same class."""
    for name, node in tree["strategy"].items():
        if isinstance(node, dict) and "strategy" in node:
            restore(getattr(strategy, name), node, arrays)
        else:
            setattr(strategy, name, _restore(node, arrays))


def _capture(value: Any, path: str, arrays: dict[str, Tensor]) -> Plain:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.ndarray() | np.generic():
            arrays[path] = torch.from_numpy(np.array(value))
            return {"array": path}
        case Tensor():
            arrays[path] = value.detach().cpu().clone()  # safetensors refuses tensors that share memory
            return {"tensor": path}
        case ArrayRecord():
            return {"record": _capture(to_arrays(value), path, arrays)}
        case Strategy():
            return {"strategy": _items(vars(value), path, arrays)}
        case dict() if all(isinstance(name, str) for name in value):
            return {"dict": _items(value, path, arrays)}
        case dict() if all(isinstance(name, int) for name in value):  # by client, say; JSON knows no such key
            return {"by-number": list(_items(value, path, arrays).items())}
        case list() | tuple():
            items = [_capture(item, f"{path}/{index}", arrays) for index, item in enumerate(value)]
            return {"tuple" if isinstance(value, tuple) else "list": items}
    raise TypeError(f"{type(value).__name__} at {path} cannot be saved")


def _items(mapping: dict[str, Any], path: str, arrays: dict[str, Tensor]) -> dict[str, Plain]:
    taken = {}
    for name, value in mapping.items():
        try:
            taken[str(name)] = _capture(value, f"{path}/{name}", arrays)
        except TypeError:
            continue
    return taken


def _restore(node: Plain, arrays: dict[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, body),) = node.items()
    match kind:
        case "array":
            return arrays[body].numpy()
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
        case _:
            return [_restore(item, arrays) for item in body]
