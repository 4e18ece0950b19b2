"""What a client compresses, and what it remembers of that."""

from collections.abc import Mapping

import torch
from flwr.app import ArrayRecord
from torch import Tensor

from models.core.config import TaskConfig
from strategies.rule import Arrays
from strategies.wire.compression import CODECS, compress
from strategies.wire.packing import to_record

RESIDUAL = "residual."
"""Prefix of what a client's state file holds of what was left out."""


def compressed_reply(
    config: TaskConfig,
    arrays: Arrays,
    received: Arrays,
    remembered: Mapping[str, Tensor],
    generator: torch.Generator,
) -> tuple[dict[str, ArrayRecord], dict[str, Tensor]]:
    """Return the records that stand for a client's arrays, and what it has to remember.

    `received` is what the server sent, `remembered` what the client's state file holds.
    """
    residual = {
        name.removeprefix(RESIDUAL): tensor.numpy()
        for name, tensor in remembered.items()
        if name.startswith(RESIDUAL)
    }
    codec = CODECS[config.compression]
    encoded = compress(codec, config.compression_ratio, arrays, received, residual, generator)
    records = {key: to_record(parts) for key, parts in encoded.records.items()}
    return records, {RESIDUAL + name: torch.from_numpy(array) for name, array in encoded.residual.items()}
