"""Every random number follows from the run's seed and the place where it is drawn."""

import hashlib

import torch

STREAMS = 1
"""Which random numbers a place stands for."""


def derive_seed(run_seed: int, *place: int | str) -> int:
    """Return a seed in [0, 2**63) for a place such as ("train", server_round, client).

    A hash keeps neighbouring places independent, which adding or multiplying them would not.
    """
    digest = hashlib.sha256(repr((run_seed, *place)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_for(run_seed: int, *place: int | str) -> torch.Generator:
    """Return a CPU generator that is seeded for a place."""
    return torch.Generator().manual_seed(derive_seed(run_seed, *place))
