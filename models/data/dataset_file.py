"""A dataset as one safetensors file, which is mapped and not read: its columns cost no memory until used.

The mapping is private: what a process writes into a column reaches neither the file nor another process.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from models.data.dataset import Dataset, Examples, Rows

_REST = "dataset"
"""Name of the tensor whose bytes are, in JSON, what a dataset holds beside its columns."""
_OF_ROWS = ("client", "group")
"""Arrays with a number for each training example."""


def num_bytes(dataset: Dataset) -> int:
    """Return the bytes of a dataset's columns."""
    parts = (dataset.train, dataset.test, dataset.validation)
    return sum(part.num_bytes for part in parts if part is not None)


def write_dataset(path: Path, key: str, dataset: Dataset) -> None:
    """Write a dataset under a key, at once: a reader sees all of it or none, whoever else writes it.

    Raises TypeError where it holds what is neither a tensor nor JSON.
    """
    from safetensors.torch import save_file

    tensors = {  # safetensors writes none that share memory
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors_of(dataset).items()
    }
    scratch = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        save_file(tensors, scratch, {"key": key, "sha256": _digest(key, tensors)})
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def read_dataset(path: Path, key: str) -> Dataset:
    """Map the dataset that was written under a key; ValueError where the file is not as it was written."""
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    if header.get("key") != key or header.get("sha256") != _digest(key, tensors):
        raise ValueError("its hash is another")
    return dataset_of(tensors)


def tensors_of(dataset: Dataset) -> dict[str, Tensor]:
    """Return a dataset as tensors by name; TypeError where it holds what is neither a tensor nor JSON."""
    parts = _parts(dataset)
    tensors = {
        f"{part}/{name}": column for part, columns in parts.items() for name, column in columns.items()
    }
    numbers = {name: getattr(dataset, name) for name in _OF_ROWS}
    tensors |= {
        name: torch.from_numpy(np.ascontiguousarray(each, np.int64))
        for name, each in numbers.items()
        if each is not None
    }
    rest = {
        "columns": {part: list(columns) for part, columns in parts.items()},
        "name": dataset.name,
        "kind": dataset.kind,
        "label": dataset.label,
        "classes": dataset.classes,
        "client_names": dataset.client_names,
        "ordered": dataset.ordered,
        "info": {name: _plain(value) for name, value in dataset.info.items()},
    }
    tensors[_REST] = torch.frombuffer(bytearray(json.dumps(rest).encode()), dtype=torch.uint8)
    return tensors


def dataset_of(tensors: Mapping[str, Tensor]) -> Dataset:
    """Return the dataset of what `tensors_of` returned; its columns are those very tensors."""
    rest = json.loads(tensors[_REST].numpy().tobytes())
    parts = {
        part: Examples({name: tensors[f"{part}/{name}"] for name in names})
        for part, names in rest["columns"].items()
    }
    numbers = {name: tensors[name].numpy() if name in tensors else None for name in _OF_ROWS}
    return Dataset(
        name=rest["name"],
        kind=rest["kind"],
        **parts,
        label=rest["label"],
        classes=tuple(rest["classes"]),
        client=numbers["client"],
        group=numbers["group"],
        client_names=tuple(rest["client_names"]),
        ordered=rest["ordered"],
        info={name: _restored(value) for name, value in rest["info"].items()},
    )


def _parts(dataset: Dataset) -> dict[str, Mapping[str, Tensor]]:
    """Return the columns of each part of a dataset, by the part's name."""
    parts = {"train": dataset.train, "test": dataset.test, "validation": dataset.validation}
    return {name: _copied(part) for name, part in parts.items() if part is not None}


def _copied(part: Examples) -> Mapping[str, Tensor]:
    """Return columns, those of rows of others as copies that the rows do not keep."""
    columns = part.columns
    return dict(Rows(columns.source, columns.index)) if isinstance(columns, Rows) else columns


def _plain(value: Any) -> Any:
    """Return a value as JSON that tells a tuple from a list; TypeError for what would come back changed."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (tuple, list):
        return {type(value).__name__: [_plain(item) for item in value]}
    if type(value) is dict and all(type(name) is str for name in value):
        return {"dict": {name: _plain(item) for name, item in value.items()}}
    raise TypeError(f"info holds a {type(value).__name__}")


def _restored(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind == "dict":
        return {name: _restored(item) for name, item in items.items()}
    return {"tuple": tuple, "list": list}[kind](_restored(item) for item in items)


def _digest(key: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of a key, and of the name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(key.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
