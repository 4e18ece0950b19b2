"""Values that strategies remember, as a JSON tree beside arrays: each comes back as what it was.

A tree holds no code and names none to run: of a namedtuple it names the class, which is looked up among what
is imported already. What is held twice, such as a generator that two attributes share, comes back as one.
"""

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from random import Random
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from torch import Tensor

from strategies.wire.arrays import to_arrays, to_record

Plain = Any
"""What JSON can hold."""
ALLOWED = (
    "None, numbers, text, bytes, arrays, random generators, and lists, tuples, namedtuples, dicts, sets, "
    "deques, Counters, OrderedDicts and defaultdicts of these"
)
ATOMS = (type(None), bool, int, float, str)
"""What JSON holds as it is; by their exact type, as np.float64 is a float too."""
FACTORIES: Mapping[str, Callable[[], Any]] = {
    each.__name__: each
    for each in (bool, int, float, str, list, tuple, dict, set, frozenset, deque, Counter, OrderedDict)
}
"""What may make the missing values of a defaultdict."""
BIT_GENERATORS: Mapping[str, Callable[[Any], Any]] = {
    name: getattr(np.random, name) for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
}
SEQUENCES: Mapping[str, Callable[[Iterable[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
SHARED = "as"
"""Key beside that of a value which is held more than once: its number."""


class UnknownKindError(Exception):
    """What cannot be saved, and its dotted name."""


class Writer:
    """Makes trees of values, and collects their arrays; what would come back otherwise is refused by name."""

    def __init__(self) -> None:
        self.arrays: dict[str, Tensor] = {}
        self._nodes: dict[int, tuple[Any, dict[str, Plain]]] = {}
        """By the id of what was met: itself, which must live on for the id to be its own, and its node."""
        self._within: set[int] = set()
        self._numbers = 0

    def write(self, value: Any, name: str, path: str) -> Plain:
        """Return the node of a value; `name` is its dotted one, for errors, `path` where its arrays go."""
        if type(value) in ATOMS:
            return value
        if id(value) in self._within:
            raise UnknownKindError(f"{name} holds itself")
        if id(value) in self._nodes:
            return self._again(value)
        while path in self.arrays:  # of {"a/b": x, "a": {"b": y}}
            path += "'"
        self._within.add(id(value))
        node = self._write(value, name, path)
        self._within.remove(id(value))
        self._nodes[id(value)] = value, node
        return node

    def _again(self, value: Any) -> Plain:
        """Return the node of what has one already."""
        node = self._nodes[id(value)][1]
        if SHARED not in node:
            node[SHARED] = self._numbers
            self._numbers += 1
        return {"same": node[SHARED]}

    def _write(self, value: Any, name: str, path: str) -> dict[str, Plain]:
        for write in (self._array, self._container, self._generator, self._record):
            node = write(value, name, path)
            if node is not None:
                return node
        if isinstance(value, Enum):  # some are numbers or text, and would not come back as what they were
            raise UnknownKindError(f"{name} is an enum, {type(value).__name__}")
        raise UnknownKindError(f"{name} is of type {type(value).__name__}")

    def _array(self, value: Any, name: str, path: str) -> dict[str, Plain] | None:
        kind = type(value)
        if kind is np.ndarray:
            self.arrays[path] = _to_tensor(np.array(value), name)
            return {"array": path}
        if isinstance(value, np.generic):
            self.arrays[path] = _to_tensor(np.array(value), name)
            return {"scalar": path}
        if kind in (bytes, bytearray):
            self.arrays[path] = torch.from_numpy(np.frombuffer(value, np.uint8).copy())
            return {kind.__name__: path}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is not Tensor:
            return None
        if value.layout is not torch.strided or value.dtype is torch.complex128 or value.requires_grad:
            grad = ", with a gradient" if value.requires_grad else ""
            raise UnknownKindError(f"{name} is a tensor of {value.dtype}, {value.layout}{grad}")
        self.arrays[path] = value.detach().cpu().clone()  # safetensors refuses tensors that share memory
        return {"tensor": path if value.device.type == "cpu" else [path, str(value.device)]}

    def _container(self, value: Any, name: str, path: str) -> dict[str, Plain] | None:
        kind = type(value)
        if kind is dict:
            return self._dict(value, name, path)
        if kind in (Counter, OrderedDict):
            return {kind.__name__: self._pairs(value, name, path)}
        if kind is defaultdict:
            factory = value.default_factory
            if factory is not None and FACTORIES.get(getattr(factory, "__name__", "")) is not factory:
                called = getattr(factory, "__qualname__", repr(factory))
                raise UnknownKindError(
                    f"{name} is a defaultdict of {called} (of {', '.join(FACTORIES)} it could be kept)"
                )
            return {"defaultdict": [factory and factory.__name__, self._pairs(value, name, path)]}
        if kind.__name__ in SEQUENCES and SEQUENCES[kind.__name__] is kind:
            return {kind.__name__: self._items(value, name, path)}
        if kind is deque:
            return {"deque": [value.maxlen, self._items(value, name, path)]}
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            module, qualname, fields = kind.__module__, kind.__qualname__, list(kind._fields)
            if _imported(module, qualname, fields) is not kind:
                raise UnknownKindError(
                    f"{name} is a namedtuple of {qualname}, which is not found in {module}"
                )
            return {"namedtuple": [module, qualname, fields, self._items(value, name, path)]}
        return None

    def _generator(self, value: Any, name: str, path: str) -> dict[str, Plain] | None:
        kind = type(value)
        if kind is Random:
            return {"random": self.write(value.getstate(), name, path)}
        if kind is torch.Generator and value.device.type == "cpu":
            return {"torch-generator": self.write(value.get_state(), name, path)}
        if kind is np.random.RandomState:
            return {"random-state": self.write(value.get_state(legacy=False), name, path)}
        if kind is np.random.Generator:
            bits = value.bit_generator
            seeds: Any = bits.seed_seq
            if type(bits).__name__ in BIT_GENERATORS and type(seeds) is np.random.SeedSequence:
                # What it would spawn is known by the seeds alone.
                spawning = seeds.state
                return {"generator": self.write([bits.state, spawning], name, path)}
        return None

    def _record(self, value: Any, name: str, path: str) -> dict[str, Plain] | None:
        kind = type(value)
        if kind is ArrayRecord:
            return {"record": self.write(to_arrays(value), name, path)}
        if kind in (ConfigRecord, MetricRecord):
            return {kind.__name__: self.write(dict(value), name, path)}
        return None

    def _dict(self, value: dict[Any, Any], name: str, path: str) -> dict[str, Plain]:
        kinds = {type(key) for key in value}
        if kinds <= {str}:
            return {
                "dict": {
                    key: self.write(item, f"{name}.{key}", f"{path}/{key}") for key, item in value.items()
                }
            }
        if kinds == {int}:  # by client, say; JSON knows no such key
            items = value.items()
            return {
                "by-number": [
                    [str(key), self.write(item, f"{name}[{key}]", f"{path}/{key}")] for key, item in items
                ]
            }
        return {"pairs": self._pairs(value, name, path)}

    def _pairs(self, value: Mapping[Any, Any], name: str, path: str) -> Plain:
        return [
            [
                self.write(key, f"{name}'s key {index}", f"{path}/{index}-key"),
                self.write(item, f"{name}[{key!r}]", f"{path}/{index}"),
            ]
            for index, (key, item) in enumerate(value.items())
        ]

    def _items(self, value: Iterable[Any], name: str, path: str) -> Plain:
        return [self.write(item, f"{name}[{index}]", f"{path}/{index}") for index, item in enumerate(value)]


class Reader:
    """Makes values of the trees that a Writer has made."""

    def __init__(self, arrays: Mapping[str, Tensor]) -> None:
        self.arrays = arrays
        self._shared: dict[int, Any] = {}

    def read(self, node: Plain) -> Any:
        """Return the value of a node; raise ValueError for one that this version does not know."""
        if not isinstance(node, dict):
            return node
        node = dict(node)
        number = node.pop(SHARED, None)
        ((kind, body),) = node.items()
        value = self._read(kind, body)
        if number is not None:
            self._shared[number] = value
        return value

    def _read(self, kind: str, body: Plain) -> Any:
        if kind in SEQUENCES:
            return SEQUENCES[kind](self.read(item) for item in body)
        match kind:
            case "same":
                return self._shared[body]
            case "array":
                return self.arrays[body].numpy()
            case "scalar":
                return self.arrays[body].numpy()[()]
            case "tensor":
                return self.arrays[body] if isinstance(body, str) else self.arrays[body[0]].to(body[1])
            case "bytes":
                return self.arrays[body].numpy().tobytes()
            case "bytearray":
                return bytearray(self.arrays[body].numpy().tobytes())
            case "complex":
                return complex(*body)
            case "dict":
                return {name: self.read(item) for name, item in body.items()}
            case "by-number":
                return {int(name): self.read(item) for name, item in body}
            case "pairs":
                return dict(self._pairs(body))
            case "Counter":
                return Counter(dict(self._pairs(body)))
            case "OrderedDict":
                return OrderedDict(self._pairs(body))
            case "defaultdict":
                return defaultdict(body[0] and FACTORIES[body[0]], self._pairs(body[1]))
            case "deque":
                return deque((self.read(item) for item in body[1]), body[0])
            case "namedtuple":
                return self._namedtuple(*body)
            case "record":
                return to_record(self.read(body))
            case "ConfigRecord":
                return ConfigRecord(self.read(body))
            case "MetricRecord":
                return MetricRecord(self.read(body))
        return self._generator(kind, body)

    def _generator(self, kind: str, body: Plain) -> Any:
        match kind:
            case "random":
                generator = Random()
                generator.setstate(self.read(body))
                return generator
            case "torch-generator":
                return torch.Generator().set_state(self.read(body))
            case "random-state":
                state = np.random.RandomState()
                state.set_state(self.read(body))
                return state
            case "generator":
                bits, spawning = self.read(body)
                made = BIT_GENERATORS[bits["bit_generator"]](np.random.SeedSequence(**spawning))
                made.state = bits
                return np.random.Generator(made)
        raise ValueError(f"the checkpoint holds a {kind!r}, which this version of polyfed does not know")

    def _namedtuple(self, module: str, qualname: str, fields: list[str], items: Plain) -> Any:
        cls = _imported(module, qualname, fields)
        if cls is None:
            raise ValueError(f"the checkpoint holds a namedtuple {qualname}, which is not found in {module}")
        return cls(*map(self.read, items))

    def _pairs(self, body: Plain) -> list[tuple[Any, Any]]:
        return [(self.read(key), self.read(item)) for key, item in body]


def _imported(module: str, qualname: str, fields: list[str]) -> Callable[..., Any] | None:
    """Return the class of a namedtuple, of a module that is imported already; None if it is not there."""
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    fits = (
        isinstance(found, type) and issubclass(found, tuple) and getattr(found, "_fields", None) == (*fields,)
    )
    return found if fits else None


def _to_tensor(array: np.ndarray, name: str) -> Tensor:
    try:
        tensor = torch.from_numpy(array)
        if tensor.dtype is not torch.complex128:  # safetensors has no such type
            return tensor
    except (TypeError, ValueError):  # of objects or text, or with its bytes the other way round
        pass
    raise UnknownKindError(f"{name} is an array of {array.dtype}")
