"""What tasks share that encode pictures and texts, of which an example or a client may lack one."""

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from models.core.config import require
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.modalities import HAS, IMAGE, KIND, MODALITIES, TEXT
from models.images.networks import find_network
from models.images.pyramid import image_shape
from models.multimodal.encoders import ImageEncoder, TextEncoder
from models.task import Batch, Task

EVALUATION_BATCH = 250


class ModalityTask(Task):
    """A task with an encoder for each modality, which are `encoders.NAME` in its model.

    A batch has a column of a modality where one of its examples has it, and for each modality who has it.
    """

    kind = KIND

    def __init__(
        self, dataset: Dataset, modalities: Sequence[str], size: int, network: str, norm: str
    ) -> None:
        super().__init__(dataset)
        listed = isinstance(modalities, list | tuple) and 0 < len(modalities) == len({*map(str, modalities)})
        known = listed and all(name in MODALITIES for name in modalities)
        require(known, "modalities", f"some of {', '.join(MODALITIES)}, each once", modalities)
        require(size >= 4 and size % 4 == 0, "size", "a multiple of 4", size)
        if not dataset.classes:
            raise UserError(f"this task needs labels, and dataset {dataset.name!r} has none")
        self.modalities = tuple(name for name in MODALITIES if name in modalities)
        self.size, self.max_value = size, float(dataset.info["max_value"])
        self.network = find_network(network, image_shape(dataset), norm) if IMAGE in modalities else None
        self.unstackable = self.network.unstackable if self.network else ""
        self.stackable = not self.unstackable

    def encoders(self) -> nn.ModuleDict:
        """Return freshly drawn encoders."""
        found: dict[str, nn.Module] = {}
        if self.network:
            found[IMAGE] = ImageEncoder(self.network, self.size)
        if TEXT in self.modalities:
            found[TEXT] = TextEncoder(self.size)
        return nn.ModuleDict(found)

    def trains_on_one(self, model: nn.Module) -> bool:
        """Return whether the networks can train on a batch of one example."""
        return (self.network is None or self.network.trains_on_one) and super().trains_on_one(model)

    def has(self, data: Examples) -> dict[str, Tensor]:
        """Return which examples have each modality that is used: (N,), 1 or 0."""
        return {name: data[HAS + name].float() for name in self.modalities}

    def seen(self, data: Examples, has: Mapping[str, Tensor]) -> Batch:
        """Return what a network sees of these examples, where they `has` what."""
        batch = {"label": data["label"], **{HAS + name: each for name, each in has.items()}}
        for name, each in has.items():
            if each.any():
                batch[name] = data[name].float() / self.max_value if name == IMAGE else data[name].long()
        return batch


def vectors_of(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return what the encoders make of a batch: modality -> (B, size), of those that some example has."""
    encoders = cast(nn.ModuleDict, model.encoders)
    return {name: encoder(batch[name]) for name, encoder in encoders.items() if name in batch}


def has_of(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return which examples of a batch have each modality of the model: (B,)."""
    return {name: batch[HAS + name] for name in cast(nn.ModuleDict, model.encoders)}


def in_chunks(data: Examples, size: int = EVALUATION_BATCH) -> Collection[Examples]:
    """Return examples a few at a time, for an evaluation; nothing of none."""
    return [data.at(rows) for rows in torch.arange(len(data)).split(size) if len(rows)]
