"""Clients' states that travel: the same files in the end as those that workers write by themselves."""

from pathlib import Path

import pytest
import torch

from clients.held_states import HeldStates, read_states, write_states
from clients.state import ClientState, ClientStates, ModelMemory
from strategies.wire.saved_state import LostStateError, SavedState


def remembered(value: float) -> ClientState:
    weight = torch.full((3,), value)
    # Two names of one tensor, as tied weights have, and a view of a larger one.
    return ClientState(ModelMemory({"weight": weight, "tied": weight, "row": torch.eye(2)[0]}))


def test_states_that_travelled_are_the_files_that_a_worker_would_have_written(tmp_path: Path) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    named: dict[int, SavedState] = {}
    for server_round, restorable in ((1, 0), (2, 1), (3, 1), (5, 3)):
        written = ClientStates(near, named)
        held = HeldStates(far, named, read_states(far, named))
        assert held.load(7, server_round).as_file().keys() == written.load(7, server_round).as_file().keys()
        for states in (written, held):
            saved = states.save(7, server_round, remembered(server_round), restorable)
        assert not held.of(7).joinpath(f"round-{server_round}.safetensors").exists()
        write_states(far, held.saved)
        assert {path.name: path.read_bytes() for path in held.of(7).iterdir()} == {
            path.name: path.read_bytes() for path in written.of(7).iterdir()
        }
        named = {7: saved}
    assert sorted(path.name for path in held.of(7).iterdir()) == [
        "round-3.safetensors",
        "round-5.safetensors",
    ]


def test_a_state_that_did_not_come_is_lost_and_so_is_another_one(tmp_path: Path) -> None:
    states = ClientStates(tmp_path)
    first, second = (states.save(7, number, remembered(number), 0) for number in (1, 2))
    content = read_states(tmp_path, {7: first})
    assert HeldStates(tmp_path / "gone", {7: first}, content).load(7, 3).as_file()
    with pytest.raises(LostStateError, match="client 7 had after round 1 is gone"):
        HeldStates(tmp_path / "gone", {7: first}, {}).load(7, 3)
    with pytest.raises(LostStateError, match="is another"):
        HeldStates(tmp_path, {7: second}, content).load(7, 3)
    with pytest.raises(LostStateError, match="cannot be read"):
        HeldStates(tmp_path, {7: first}, {7: b"cut"}).load(7, 3)
    assert read_states(tmp_path, {7: SavedState(9, "0" * 64)}) == {}
