"""Random streams: what their keys are, and that they use all of them."""

import hashlib
import random

import numpy as np
import pytest
import torch

from models.core.seeds import derive_seed, generator_for, seed_python, seed_torch

PLACE = (42, "train", 3, 7)
CPU = torch.device("cpu")


def words(place: tuple[int | str, ...]) -> np.ndarray:
    """Return the state that a place stands for, by the documented rule."""
    bits = hashlib.shake_128(repr(place).encode()).digest(8 + 4 * 624)
    return np.frombuffer(bits, np.uint32, 624, offset=8)


def mt19937(place: tuple[int | str, ...]) -> np.random.MT19937:
    """Return numpy's generator of the same kind in the same state."""
    twin = np.random.MT19937()
    twin.state = {"bit_generator": "MT19937", "state": {"key": words(place), "pos": 624}}
    return twin


def drawn(generator: torch.Generator | None, count: int = 2000) -> list[int]:
    """Return 24 bits of each of its numbers."""
    floats = torch.rand(count, generator=generator, dtype=torch.float32)
    return (floats * 2**24).long().tolist()  # type: ignore[no-any-return]


def test_a_place_fills_the_whole_state_of_the_generator() -> None:
    assert drawn(generator_for(*PLACE)) == (mt19937(PLACE).random_raw(2000) & 0xFFFFFF).tolist()


def test_layers_draw_from_a_whole_state_as_well() -> None:
    before = torch.random.get_rng_state()
    try:
        seed_torch(CPU, *PLACE)
        assert drawn(None) == drawn(generator_for(*PLACE))
    finally:
        torch.random.set_rng_state(before)


def test_no_stream_is_among_those_of_seeds_with_32_bits() -> None:
    """`manual_seed` takes 64 bits and drops half of them; a seed that it forgets nothing of would differ."""
    for place in (PLACE, (42, "reply", 1, 0)):
        ours = generator_for(*place)
        assert drawn(ours) != drawn(torch.Generator().manual_seed(ours.initial_seed()))
    same = (torch.Generator().manual_seed(seed) for seed in (5, 5 + 2**32))
    assert len({tuple(drawn(each)) for each in same}) == 1  # why `manual_seed` does not do


def test_the_name_of_a_stream_is_known() -> None:
    assert generator_for(*PLACE).initial_seed() == derive_seed(*PLACE) % 2**64
    places = [(42, "train", number // 100, number % 100) for number in range(2000)]
    assert len({generator_for(*place).initial_seed() for place in places}) == 2000


def test_python_and_numpy_take_all_of_a_seed() -> None:
    bits = hashlib.shake_128(repr(PLACE).encode()).digest(16)
    assert derive_seed(*PLACE) == int.from_bytes(bits, "little")
    assert derive_seed(*PLACE) >= 2**64
    python, numpy = random.getstate(), np.random.get_state()
    try:
        seed_python(*PLACE)
        expected = np.random.RandomState(np.frombuffer(bits, np.uint32))
        assert np.array_equal(np.random.random_sample(9), expected.random_sample(9))
        assert random.random() == random.Random(bits).random()
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_layers_on_a_gpu_use_64_bits() -> None:
    device = torch.device("cuda")
    seed_torch(device, *PLACE)
    here = torch.rand(9, device=device)
    low = torch.Generator(device).manual_seed(derive_seed(*PLACE) % 2**32)
    assert torch.cuda.initial_seed() == derive_seed(*PLACE) % 2**64
    assert not torch.equal(here, torch.rand(9, device=device, generator=low))
