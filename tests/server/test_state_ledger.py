"""The server's list of what clients remember."""

from pathlib import Path

import pytest
import torch

from clients.state import ClientState, ClientStates, ModelMemory
from server.state_ledger import StateLedger
from strategies.wire.saved_state import SavedState, pack_states, unpack_states


def saved(server_round: int, digit: str) -> SavedState:
    return SavedState(server_round, digit * 64)


def test_the_newest_state_of_each_client_comes_back_from_a_checkpoint() -> None:
    ledger = StateLedger()
    expected = {client: saved(client % 5 + 1, f"{client % 10}") for client in range(0, 1000, 7)}
    ledger.add({client: saved(1, "f") for client in expected})
    ledger.add(expected)
    ledger.lose(994)
    ledger.lose(0)  # the first, whose row another takes
    ledger.lose(3)  # which never had one
    for client in (994, 0):
        del expected[client]
    copy = StateLedger.from_tensors({name: each.clone() for name, each in ledger.tensors().items()})
    for each in (ledger, copy):
        assert dict(each.items()) == expected
        assert (each.get(0), each.get(7), each.lost) == (None, saved(3, "7"), {0, 3, 994})
    copy.add({0: saved(9, "a"), 7: saved(9, "b")})
    assert (copy.get(0), copy.get(7)) == (saved(9, "a"), saved(9, "b"))


@pytest.mark.parametrize("column", ["clients", "rounds", "hashes", "lost"])
def test_other_columns_are_refused(column: str) -> None:
    ledger = StateLedger()
    ledger.add({1: saved(1, "a"), 2: saved(1, "b")})
    tensors = ledger.tensors()
    with pytest.raises(ValueError, match="list of clients' states has other columns"):
        StateLedger.from_tensors({**tensors, column: tensors[column].float()})
    with pytest.raises(ValueError, match="list of clients' states has other columns"):
        StateLedger.from_tensors({name: each for name, each in tensors.items() if name != column})
    if column != "lost":
        with pytest.raises(ValueError, match="list of clients' states has other columns"):
            StateLedger.from_tensors({**tensors, column: tensors[column][:1]})


def test_what_lies_on_the_disk_is_compared_by_its_headers(tmp_path: Path) -> None:
    states, ledger = ClientStates(tmp_path), StateLedger()
    for client in (1, 2):
        memory = ModelMemory({"w": torch.tensor([float(client)])})
        ledger.add({client: states.save(client, 3, ClientState(memory), 0)})
    ledger.check(tmp_path)
    one, two = (states.of(client) / "round-3.safetensors" for client in (1, 2))
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    with pytest.raises(ValueError, match=r"the state that client 1 had after round 3 is another"):
        ledger.check(tmp_path)
    one.write_bytes(kept)
    two.unlink()
    with pytest.raises(ValueError, match=r"the state that client 2 had after round 3 is gone"):
        ledger.check(tmp_path)


@pytest.mark.parametrize(
    "text",
    ['[[1, "../../x", "' + "a" * 64 + '"]]', '[[1, 2, "abc"]]', '[[1, 2, "' + "g" * 64 + '"]]', "[[1, 2]]"],
)
def test_what_a_message_says_of_a_state_is_checked(text: str) -> None:
    assert unpack_states(pack_states({1: saved(2, "c")})) == {1: saved(2, "c")}
    with pytest.raises(ValueError):  # noqa: PT011  (of several kinds)
        unpack_states(text)
