"""Every random number follows from the run's seed and the place where it is drawn.

A place is a tuple such as ("train", server_round, client). Its SHAKE-128 gives as many bits as a generator
has room for, so that no two places share a stream, and no stream can be found by trying seeds of 32 bits:
`torch.manual_seed` and `numpy.random.seed` use no more of what they are given.
"""

import hashlib
import random

import numpy as np
import torch

STREAMS = 2
"""Which random numbers a place stands for. A run cannot go on with those of another scheme.

The first, of polyfed 1, had no number; its torch streams had keys of 32 bits.
"""
_MT19937_WORDS = 624
_FRESH = torch.Generator().manual_seed(0).get_state().numpy().tobytes()
_BETWEEN, _BEHIND = _FRESH[8:24], _FRESH[24 + 8 * _MT19937_WORDS :]
"""Of a state of torch's CPU generator, what lies between the number that it says it was seeded with (64 bits)
and its words, each in 64 bits, and what follows them."""


def derive_seed(run_seed: int, *place: int | str) -> int:
    """Return a seed in [0, 2**128) for a place.

    For `random.Random` and `numpy.random.default_rng`, which use all of it; torch wants `generator_for`.
    """
    return int.from_bytes(_bits(run_seed, place, 16), "little")


def generator_for(run_seed: int, *place: int | str) -> torch.Generator:
    """Return a CPU generator for a place."""
    generator = torch.Generator()
    generator.set_state(_state(run_seed, place))
    return generator


def seed_torch(device: torch.device, run_seed: int, *place: int | str) -> None:
    """Seed what draws without a generator, such as dropout and initial weights, for a place.

    Not torch.manual_seed: it also queues a seeding, with a stack trace, for every kind of accelerator
    that is not there, which takes longer than a step of a small network.
    """
    torch.default_generator.set_state(_state(run_seed, place))
    if device.type == "cuda":
        with torch.cuda.device(device):  # which need not be the current one
            torch.cuda.manual_seed(torch.default_generator.initial_seed())  # Philox uses all 64 bits


def seed_python(run_seed: int, *place: int | str) -> None:
    """Seed `random` and `numpy.random`, which strategies sample with, for a place."""
    seed = _bits(run_seed, place, 16)
    random.seed(seed)
    np.random.seed(np.frombuffer(seed, np.uint32))


def _state(run_seed: int, place: tuple[int | str, ...]) -> torch.Tensor:
    """Return a state of torch's CPU generator, an MT19937, whose words are the bits of a place.

    They follow after the 64 bits that `initial_seed` returns.
    """
    bits = _bits(run_seed, place, 8 + 4 * _MT19937_WORDS)
    words = np.frombuffer(bits, np.uint32, offset=8).astype(np.uint64).tobytes()
    return torch.frombuffer(bytearray(b"".join((bits[:8], _BETWEEN, words, _BEHIND))), dtype=torch.uint8)


def _bits(run_seed: int, place: tuple[int | str, ...], num_bytes: int) -> bytes:
    return hashlib.shake_128(repr((run_seed, *place)).encode()).digest(num_bytes)
