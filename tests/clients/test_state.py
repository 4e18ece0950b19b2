"""What stays with a client: on its node's disk, and nowhere else."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from flwr.app import Context, RecordDict
from safetensors.torch import load_file
from torch import Tensor

from clients.state import ClientState, ClientStates, ModelMemory
from models.core.config import Value
from models.state import build_model
from server.app import app as server_app
from simulations.runtime.in_process import InProcessGrid, run_in_process
from simulations.scenario import defaults
from strategies.wire.saved_state import LostStateError

Make = Callable[..., dict[str, Value]]


def states(steps: Sequence[int]) -> ClientState:
    head = torch.tensor(steps, dtype=torch.float32) / 3
    return ClientState(ModelMemory({"steps": torch.tensor(steps), "head": head}))


def steps_of(state: ClientState) -> list[int]:
    steps: list[int] = state.shared.model["steps"].tolist()
    return steps


def rounds_on_disk(store: ClientStates, client: int) -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in store.of(client).iterdir())


def test_the_newest_state_older_than_the_round(tmp_path: Path) -> None:
    store = ClientStates(tmp_path)
    assert store.load(3, before=1).as_file() == {}
    for server_round in (2, 10):
        store.save(3, server_round, states([server_round]), restorable_round=0)
    assert store.load(3, before=2).as_file() == {}
    assert steps_of(store.load(3, before=3)) == [2]
    assert steps_of(store.load(3, before=10)) == [2]
    loaded = store.load(3, before=11).shared.model
    assert loaded["steps"].dtype == torch.int64
    assert torch.equal(loaded["head"], torch.tensor([10 / 3]))
    assert store.load(4, before=11).as_file() == {}


def test_what_no_resume_can_ask_for_is_dropped(tmp_path: Path) -> None:
    store = ClientStates(tmp_path)
    kept = []
    for server_round, checkpoint_round in ((1, 0), (3, 2), (4, 2), (6, 4), (9, 8)):
        store.save(3, server_round, states([1]), checkpoint_round)
        kept.append(rounds_on_disk(store, 3))
    # After a checkpoint of round 2 comes a resume that asks for the newest state before round 3.
    assert kept == [[1], [1, 3], [1, 3, 4], [4, 6], [6, 9]]
    store.save(
        3, 9, states([2]), restorable_round=9
    )  # without checkpoints, the state before will never be asked for
    assert rounds_on_disk(store, 3) == [9]
    assert steps_of(store.load(3, before=10)) == [2]


def test_a_round_that_is_done_again_replaces_its_state(tmp_path: Path) -> None:
    store = ClientStates(tmp_path)
    store.save(3, 1, states([1]), 0)
    store.save(3, 1, states([5]), 0)
    assert steps_of(store.load(3, before=2)) == [5]


def test_the_state_that_the_server_names_is_loaded_and_no_other(tmp_path: Path) -> None:
    saved = {}
    for server_round in (2, 4):
        store = ClientStates(tmp_path)
        saved[server_round] = store.save(3, server_round, states([server_round]), restorable_round=0)
    # Of round 4 the server knows nothing: its reply was late, or the round is done again.
    store = ClientStates(tmp_path, {3: saved[2]})
    assert steps_of(store.load(3, before=9)) == [2]
    assert not store.load(4, before=9)
    store.save(3, 7, states([7]), restorable_round=6)
    assert rounds_on_disk(store, 3) == [2, 7]
    assert not ClientStates(tmp_path, {}).load(3, before=9)
    # One that has none yet begins with none, whatever lies there.
    ClientStates(tmp_path, {}).save(3, 1, states([1]), restorable_round=0)
    assert rounds_on_disk(store, 3) == [1]


def test_a_reply_that_does_not_arrive_costs_no_state(tmp_path: Path) -> None:
    """Without checkpoints too, the state that the server counts on stays until another takes its place."""
    first = ClientStates(tmp_path, {}).save(3, 1, states([1]), restorable_round=1)
    for server_round in (2, 3):
        store = ClientStates(tmp_path, {3: first})
        store.save(3, server_round, states([server_round]), restorable_round=server_round)
        assert rounds_on_disk(store, 3) == [1, server_round]
        assert steps_of(store.load(3, before=9)) == [1]


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "what"),
    [(Path.unlink, "is gone"), (damaged, "is another"), (lambda path: path.write_bytes(b"x"), "cannot be")],
)
def test_a_state_that_is_not_what_the_server_counts_on_is_refused(
    tmp_path: Path, harm: Callable[[Path], object], what: str
) -> None:
    saved = ClientStates(tmp_path).save(3, 2, states([1, 2, 3]), 0)
    store = ClientStates(tmp_path, {3: saved})
    harm(store.of(3) / "round-2.safetensors")
    with pytest.raises(LostStateError, match=f"^the state that client 3 had after round 2 {what}"):
        store.load(3, before=3)


def test_a_million_clients_do_not_share_a_folder(tmp_path: Path) -> None:
    folders = [ClientStates(tmp_path).of(client) for client in (7, 1_007, 999_999)]
    assert [str(folder.relative_to(tmp_path)) for folder in folders] == [
        "007/client-7",
        "007/client-1007",
        "999/client-999999",
    ]


def test_half_a_file_is_not_looked_at(tmp_path: Path) -> None:
    store = ClientStates(tmp_path)
    store.save(3, 1, states([1]), 0)
    (store.of(3) / "4711.partial").write_bytes(b"half")
    assert steps_of(store.load(3, before=9)) == [1]


def test_tied_tensors_can_be_kept(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    memory = ModelMemory({"tied": whole, "same": whole, "turned": whole.T})
    ClientStates(tmp_path).save(3, 1, ClientState(memory), 0)
    loaded = ClientStates(tmp_path).load(3, before=2).shared.model
    assert torch.equal(loaded["tied"], whole)
    assert torch.equal(loaded["same"], whole)
    assert torch.equal(loaded["turned"], whole.T)


def test_every_kind_of_memory_comes_back_under_its_own_name(tmp_path: Path) -> None:
    one = {"w": torch.tensor([1.0])}
    state = ClientState(
        shared=ModelMemory(
            model=one, optimizer={"loss.0.step": torch.tensor(2.0)}, rule={"control/w": one["w"]}
        ),
        personal=ModelMemory(model={"w": torch.tensor([3.0])}),
        residual={"w": torch.tensor([4.0])},
    )
    ClientStates(tmp_path).save(3, 1, state, 0)
    names = {
        "model.w": 1.0,
        "optimizer.loss.0.step": 2.0,
        "rule.control/w": 1.0,
        "personal-model.w": 3.0,
        "residual.w": 4.0,
    }
    on_disk = load_file(ClientStates(tmp_path).of(3) / "round-1.safetensors")
    assert {name: float(tensor) for name, tensor in on_disk.items()} == names
    loaded = ClientStates(tmp_path).load(3, before=2)
    assert {name: float(tensor) for name, tensor in loaded.as_file().items()} == names


def test_a_tensor_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no client state has a tensor 'moments\.w'"):
        ClientState.from_file({"moments.w": torch.zeros(1)})


@pytest.fixture(scope="module")
def personal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Value]:
    """Run four rounds of three clients that keep their heads at home."""
    config = {
        **defaults(),
        "task": "personal_cnn:PersonalCnn",
        "dataset": "digits",
        "num-clients": 3,
        "num-server-rounds": 4,
        "local-test-fraction": 0.2,
        "fraction-evaluate": 1.0,
        "seed": 2,  # one that learns in four rounds
        "run-dir": str(tmp_path_factory.mktemp("personal") / "run"),
    }
    run_in_process(config, num_nodes=2)
    return config


def folder_of(config: dict[str, Value]) -> Path:
    return Path(str(config["run-dir"]))


def client_state(config: dict[str, Value], client: int, server_round: int = 4) -> dict[str, Tensor]:
    folder = ClientStates(folder_of(config) / "clients").of(client)
    return load_file(folder / f"round-{server_round}.safetensors")


HOME = {"classifier.2.weight", "classifier.2.bias", "replay.labels", "replay.weight", "replay.seen"}


def test_local_and_integer_state_is_not_federated(personal: dict[str, Value]) -> None:
    sent = load_file(folder_of(personal) / "models" / "last.safetensors").keys()
    kept = {name.removeprefix("model.") for name in client_state(personal, 0)}
    assert kept == HOME
    assert not kept & sent
    assert sent | kept >= {"features.0.weight", "classifier.0.bias"}


def test_clients_remember_over_rounds_each_their_own(personal: dict[str, Value]) -> None:
    rows = [
        json.loads(line)
        for line in (folder_of(personal) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert all(row["clients"] == [0, 1, 2] for row in rows[1:])
    per_round = [int(client_state(personal, client, 2)["model.replay.seen"]) // 2 for client in range(3)]
    assert [int(client_state(personal, client)["model.replay.seen"]) for client in range(3)] == [
        4 * rows for rows in per_round
    ]
    # Every row that trains counts once a round; the others are held back for the client's own evaluation.
    assert sum(per_round) == pytest.approx(0.8 * 1293, abs=3)
    heads = [client_state(personal, client)["model.classifier.2.weight"] for client in range(3)]
    assert not torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[1], heads[2])


def test_the_states_that_a_resume_could_ask_for_are_kept(personal: dict[str, Value]) -> None:
    # In round 4 the oldest checkpoint is that of round 2; a resume from it asks for the states up to 2.
    assert rounds_on_disk(ClientStates(folder_of(personal) / "clients"), 0) == [2, 3, 4]


@pytest.mark.rounding
def test_clients_evaluate_with_their_own_heads(personal: dict[str, Value]) -> None:
    rows = [
        json.loads(line)
        for line in (folder_of(personal) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    # 0.40 to 0.67 over seven seeds, 0.60 with this one.
    assert rows[4]["evaluate"]["accuracy"] > 0.45
    # The server's model has the head that nobody ever trained.
    assert rows[4]["central"]["accuracy"] < rows[4]["evaluate"]["accuracy"]


def test_a_resumed_run_goes_on_with_the_same_local_state(personal: dict[str, Value], tmp_path: Path) -> None:
    two = {**personal, "run-dir": str(tmp_path / "run"), "num-server-rounds": 2}
    run_in_process(two, num_nodes=1)
    run_in_process({**two, "num-server-rounds": 4, "resume": True}, num_nodes=3)
    for client in range(3):
        expected, found = client_state(personal, client), client_state(two, client)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    for name, weight in load_file(folder_of(personal) / "models" / "last.safetensors").items():
        assert torch.equal(load_file(folder_of(two) / "models" / "last.safetensors")[name], weight)


@pytest.mark.slow
def test_every_optimizer_can_be_kept(tiny: Make, tmp_path: Path) -> None:
    """Keeping Adam's moments is another run than forgetting them, and survives a resume."""
    common = {"num_clients": 2, "optimizer": "adam", "learning_rate": 0.001}
    kept = tiny(**common, keep_optimizer=True, run_dir=str(tmp_path / "kept"), num_server_rounds=3)
    run_in_process(kept)
    state = client_state(kept, 0, 3)
    assert {name.rsplit(".", 1)[1] for name in state} == {"step", "exp_avg", "exp_avg_sq"}
    steps_a_round = float(client_state(kept, 0, 1)["optimizer.loss.0.step"])
    assert float(state["optimizer.loss.0.step"]) == 3 * steps_a_round

    resumed = {**kept, "run-dir": str(tmp_path / "resumed"), "num-server-rounds": 1}
    run_in_process(resumed)
    run_in_process({**resumed, "num-server-rounds": 3, "resume": True})
    forgot = {**kept, "run-dir": str(tmp_path / "forgot"), "keep-optimizer": False}
    run_in_process(forgot)
    hashes = [
        json.loads((folder_of(run) / "result.json").read_text(encoding="utf-8"))["weights_sha256"]
        for run in (kept, resumed, forgot)
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    assert not (folder_of(forgot) / "clients").exists()


def test_the_warm_model_carries_nothing_from_client_to_client(personal: dict[str, Value]) -> None:
    from clients.worker import load_worker
    from models.core.config import TaskConfig, read

    worker = load_worker(read(TaskConfig, personal), "")  # the one that has just trained, still warm
    fresh = build_model(worker.task, worker.config.seed).state_dict()
    assert all(torch.equal(worker.initial[name], fresh[name]) for name in fresh)
    for client in range(3):
        rows = len(worker.examples(client)[0])
        assert int(client_state(personal, client, 2)["model.replay.seen"]) == 2 * rows


class RealNode(InProcessGrid):
    """A node with a disk of its own, as a SuperNode has."""

    interchangeable_nodes = False


def run_on_a_real_node(config: dict[str, Value], state_path: Path) -> str:
    """Run on a node that keeps its clients' state in this folder; return the hash."""
    grid = RealNode(config, 1)
    grid.contexts[0].node_config["state-path"] = str(state_path)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    server_app(grid, context)
    assert not (folder_of(config) / "clients").exists()
    return str(json.loads((folder_of(config) / "result.json").read_text(encoding="utf-8"))["weights_sha256"])


@pytest.mark.slow
@pytest.mark.parametrize("second", ["another", "first"])
def test_a_node_that_serves_many_runs_does_not_mix_them_up(tiny: Make, tmp_path: Path, second: str) -> None:
    """Not even where the first run's folder was deleted, and another run was given its name."""
    options = {"num_clients": 3, "clients_per_round": 1, "num_server_rounds": 5, "keep_optimizer": True}
    # Client 0 trains in round 1 of the first run, and in the second run not before round 3.
    run_on_a_real_node(tiny(**options, seed=2, run_dir=str(tmp_path / "first")), tmp_path / "state")
    shutil.rmtree(tmp_path / "first")
    found = run_on_a_real_node(tiny(**options, run_dir=str(tmp_path / second)), tmp_path / "state")
    expected = run_on_a_real_node(tiny(**options, run_dir=str(tmp_path / "clean")), tmp_path / "empty")
    assert list((tmp_path / "state").rglob("round-*.safetensors"))
    assert found == expected


def test_a_client_that_lost_its_state_fails_its_round_and_begins_anew_aloud(
    tiny: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"num_clients": 3, "keep_optimizer": True, "run_dir": str(tmp_path / "run")}
    run_on_a_real_node(tiny(**options, num_server_rounds=2), tmp_path / "state")
    [lost] = (tmp_path / "state").rglob("client-1/round-2.safetensors")
    lost.unlink()
    more = {**tiny(**options, num_server_rounds=4), "resume": True}
    run_on_a_real_node(more, tmp_path / "state")
    said = "Round 3: client 1 failed: LostStateError: the state that client 1 had after round 2 is gone"
    assert said in caplog.text
    rows = [
        json.loads(line)
        for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["clients"] for row in rows[1:]] == [[0, 1, 2], [0, 1, 2], [0, 2], [0, 1, 2]]
    assert json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["lost_states"] == [1]
