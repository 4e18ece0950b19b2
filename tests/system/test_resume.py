"""A run that is killed and resumed ends in the hash of the run that was not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from finished import result_of, run_killed
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clients.state import ClientStates
from models.core.config import Value
from models.core.errors import UserError
from models.state import weights_sha256
from server.errors import RunFailedError
from server.run_folder import RunFolder
from server.run_schema import RoundRecord
from simulations.report.page import write_report
from simulations.runs.reader import read_run
from simulations.runtime.in_process import InProcessGrid, run_in_process
from simulations.scenario import defaults

Make = Callable[..., dict[str, Value]]


def rounds_of(folder: Path) -> list[int]:
    return [
        json.loads(line)["server_round"]
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


# With a checkpoint every second round, the third is done again, from client states of the second.
# Scaffold's control variates live at the server and with every client, FedDyn's slopes too.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "every", "last_round"),
    [
        ("FedAvg", 1, 2),
        ("FedAdam", 2, 3),
        ("Scaffold", 2, 3),
        ("FedDyn", 1, 2),
    ],
)
def test_sigkill_after_a_round_and_resume(
    tiny: Make, tmp_path: Path, strategy: str, every: int, last_round: int
) -> None:
    survivor = tmp_path / "now-it-survives"
    config = tiny(
        task="faulty:FaultyCnn",
        task_options=f"kill_at = [{last_round + 1}, 1], unless = '{survivor}'",
        num_server_rounds=5,
        keep_optimizer=True,  # client state on disk has to come back too
        strategy=strategy,
        strategy_options="any_optimizer = true" if strategy == "Scaffold" else "",
        checkpoint_every=every,
    )
    killed = tmp_path / "run"
    run_killed(config)
    assert rounds_of(killed) == list(range(last_round + 1))
    assert result_of(killed)["status"] == "unfinished"
    assert read_run(killed).status == "unfinished"

    survivor.touch()
    run_in_process({**config, "resume": True}, num_nodes=1)
    assert rounds_of(killed) == [0, 1, 2, 3, 4, 5]

    whole = tmp_path / "whole"
    run_in_process({**config, "run-dir": str(whole)}, num_nodes=2)
    assert result_of(killed)["weights_sha256"] == result_of(whole)["weights_sha256"]
    assert result_of(killed)["best"] == result_of(whole)["best"]


def test_a_finished_run_can_be_given_more_rounds(tiny: Make, tmp_path: Path) -> None:
    config = tiny(num_server_rounds=2)
    run_in_process(config)
    run_in_process({**config, "num-server-rounds": 3, "resume": True})
    whole = tiny(num_server_rounds=3, run_dir=str(tmp_path / "whole"))
    run_in_process(whole)
    assert result_of(tmp_path / "run")["weights_sha256"] == result_of(tmp_path / "whole")["weights_sha256"]


def test_a_truncated_checkpoint_is_refused_and_the_one_before_used(
    tiny: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(num_server_rounds=3, keep_optimizer=True)
    run_in_process(config)
    before = result_of(tmp_path / "run")["weights_sha256"]
    newest = tmp_path / "run" / "checkpoints" / "round-000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    run_in_process({**config, "resume": True})
    assert f"Checkpoint {newest} is refused" in caplog.text
    assert "Resuming after round 2" in caplog.text
    assert result_of(tmp_path / "run")["weights_sha256"] == before


def everything_in(folder: Path) -> dict[str, bytes]:
    """Return the contents of a run's files, but for what says that it was looked at."""
    said = {"errors.log", "run.log", "lock"}
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name not in said
    }


@pytest.mark.parametrize(
    ("damage", "why"),
    [("truncated", "none of its checkpoints can be used"), ("gone", "it has kept no checkpoint")],
)
def test_a_run_without_a_whole_checkpoint_is_not_resumed_and_nothing_of_it_is_lost(
    tiny: Make, tmp_path: Path, damage: str, why: str
) -> None:
    config = tiny(num_server_rounds=3, keep_optimizer=True)
    run_in_process(config)
    folder = tmp_path / "run"
    write_report([folder])
    for file in (folder / "checkpoints").iterdir():
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-100])
    before = everything_in(folder)
    assert {"metrics.jsonl", "result.json", "report.html", "models/best.safetensors"} <= before.keys()
    with pytest.raises(UserError) as caught:
        run_in_process({**config, "num-server-rounds": 5, "resume": True})
    said = str(caught.value)
    assert said.startswith(f"the run in {folder} has trained to round 3, but {why}")
    assert said.endswith(
        ": it is not resumed, and left as it is; to start over give another run-dir, or delete this one; "
        "to go on put back what is missing"
    )
    assert everything_in(folder) == before


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Value]:
    """Run four rounds in which two of three clients train, which remember their momentum."""
    config = {
        **defaults(),
        "dataset": "digits",
        "num-clients": 3,
        "clients-per-round": 2,
        "num-server-rounds": 4,
        "keep-optimizer": True,
        "optimizer-options": "momentum = 0.9",
        "run-dir": str(tmp_path_factory.mktemp("remembering") / "run"),
    }
    run_in_process(config)
    return config


def copy_of(config: dict[str, Value], folder: Path, rounds: int) -> dict[str, Value]:
    """Run the same for fewer rounds, in another folder; return the config that goes on to the end."""
    begun = {**config, "run-dir": str(folder)}
    run_in_process({**begun, "num-server-rounds": rounds})
    return {**begun, "resume": True}


def hash_of(config: dict[str, Value]) -> str:
    return str(result_of(Path(str(config["run-dir"])))["weights_sha256"])


def states_in(folder: Path) -> list[Path]:
    return sorted((folder / "clients").rglob("round-*.safetensors"))


@pytest.mark.parametrize("harm", ["all", "one", "swapped"])
def test_a_run_whose_clients_have_lost_what_they_knew_is_not_resumed(
    remembering: dict[str, Value], tmp_path: Path, harm: str
) -> None:
    more = copy_of(remembering, tmp_path / "run", 2)
    clients = {path.parent for path in states_in(tmp_path / "run")}
    if harm == "swapped":
        first, second = sorted(clients)[:2]
        first.rename(tmp_path / "aside")
        second.rename(first)
        (tmp_path / "aside").rename(second)
    for folder in clients if harm == "all" else sorted(clients)[:1] if harm == "one" else []:
        shutil.rmtree(folder)
    before = everything_in(tmp_path / "run")
    with pytest.raises(
        UserError, match=r"can be used \(the state that client \d had after round \d is (gone|an)"
    ):
        run_in_process(more)
    assert everything_in(tmp_path / "run") == before


def test_a_leg_without_checkpoints_in_between_is_done_again_exactly(
    remembering: dict[str, Value], tmp_path: Path
) -> None:
    more = copy_of(remembering, tmp_path / "run", 1)
    run_in_process({**more, "num-server-rounds": 3, "checkpoint-every": 0})
    run_in_process(more)
    assert hash_of(more) == hash_of(remembering)


def test_what_clients_saved_in_rounds_that_are_done_again_is_not_gone_on_from(
    remembering: dict[str, Value], tmp_path: Path
) -> None:
    """As where a run is started over: a client that is drawn later than before still has a later state."""
    more = copy_of(remembering, tmp_path / "run", 3)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    # Two clients train in a round: such a state is of one that is drawn again only later.
    for client in range(3):
        folder = ClientStates(tmp_path / "run" / "clients").of(client)
        folder.mkdir(parents=True, exist_ok=True)
        newest = max((path for path in states_in(tmp_path / "run")), key=lambda path: path.name)
        if not list(folder.iterdir()):
            shutil.copy(newest, folder)
    run_in_process(more)
    assert hash_of(more) == hash_of(remembering)


def rewritten(path: Path, change: Callable[[dict[str, str], dict[str, Tensor]], None]) -> None:
    """Write a checkpoint again with other contents, which its hash fits."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    metadata = {**metadata, "sha256": weights_sha256(tensors)} if "sha256" in metadata else metadata
    save_file(tensors, path, metadata)


def progress_of_a_list(metadata: dict[str, str], _: dict[str, Tensor]) -> None:
    metadata["progress"] = "[]"


def progress_with_text(metadata: dict[str, str], _: dict[str, Tensor]) -> None:
    metadata["progress"] = json.dumps({**json.loads(metadata["progress"]), "stale": "none"})


def progress_without_a_key(metadata: dict[str, str], _: dict[str, Tensor]) -> None:
    progress = json.loads(metadata["progress"])
    del progress["best_round"]
    metadata["progress"] = json.dumps(progress)


def progress_of_another_round(metadata: dict[str, str], _: dict[str, Tensor]) -> None:
    metadata["progress"] = json.dumps({**json.loads(metadata["progress"]), "server_round": 7})


def another_round(metadata: dict[str, str], _: dict[str, Tensor]) -> None:
    metadata["server_round"] = "two"


def no_strategy(metadata: dict[str, str], _: dict[str, Tensor]) -> None:
    metadata["strategy"] = "null"


def strange_strategy(metadata: dict[str, str], _: dict[str, Tensor]) -> None:
    tree = json.loads(metadata["strategy"])
    tree["strategy"]["fraction_train"] = {"array": "/nowhere"}
    metadata["strategy"] = json.dumps(tree)


def no_hash(metadata: dict[str, str], _: dict[str, Tensor]) -> None:
    del metadata["sha256"]


def other_shapes(_: dict[str, str], tensors: dict[str, Tensor]) -> None:
    tensors["model/classifier.2.bias"] = torch.zeros(11)


def other_states(_: dict[str, str], tensors: dict[str, Tensor]) -> None:
    tensors["states/hashes"] = tensors["states/hashes"].flip(0) + 1


def poison(_: dict[str, str], tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if name.startswith("model/"):
            tensor.fill_(1e30)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (progress_of_a_list, "its progress must have best, best_round,"),
        (progress_with_text, "its progress is broken: stale must be a valid integer, got 'none'"),
        (progress_without_a_key, "its progress must have best, best_round,"),
        (progress_of_another_round, "its progress is that of round 7"),
        (another_round, "it is of round 'two', and named after another"),
        (no_strategy, "the memory of its strategy is None"),
        (strange_strategy, "KeyError: '/nowhere'"),
        (no_hash, "its header lacks sha256"),
        (other_shapes, "it holds another model than this run trains"),
        (other_states, "the state that client"),
        (poison, "set aside, as the run failed at once"),
    ],
)
def test_a_checkpoint_that_is_whole_but_strange_gives_way_to_the_one_before(
    remembering: dict[str, Value],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[dict[str, str], dict[str, Tensor]], None],
    why: str,
) -> None:
    more = copy_of(remembering, tmp_path / "run", 3)
    rewritten(tmp_path / "run" / "checkpoints" / "round-000003.safetensors", change)
    run_in_process(more)
    assert why in caplog.text
    assert "Resuming after round 2" in caplog.text
    assert hash_of(more) == hash_of(remembering)
    assert rounds_of(tmp_path / "run") == [0, 1, 2, 3, 4]
    assert not list((tmp_path / "run" / "checkpoints").glob("*.refused"))


def test_where_no_checkpoint_helps_all_is_put_back(remembering: dict[str, Value], tmp_path: Path) -> None:
    more = copy_of(remembering, tmp_path / "run", 3)
    for server_round in (2, 3):
        rewritten(tmp_path / "run" / "checkpoints" / f"round-00000{server_round}.safetensors", poison)
    before = {name: held for name, held in everything_in(tmp_path / "run").items() if "checkpoints" in name}
    with pytest.raises(RunFailedError, match="all 2 clients of round 3 failed"):
        run_in_process(more)
    after = everything_in(tmp_path / "run")
    assert before.items() <= after.items()
    assert rounds_of(tmp_path / "run") == [0, 1, 2, 3, 4]


def test_ctrl_c_leaves_a_result_and_a_kill_leaves_one_that_says_unfinished(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def interrupt(folder: RunFolder, record: RoundRecord) -> None:
        seen.append(result_of(folder.path)["status"])
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "append", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_in_process(tiny())
    assert seen == ["unfinished"]
    ended = result_of(tmp_path / "run")
    assert (ended["status"], ended["reason"]) == ("unfinished", "interrupted")
    assert read_run(tmp_path / "run").status == "unfinished"


def test_a_resumed_run_that_fails_before_it_goes_on_leaves_the_result(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    run_in_process(config)
    before = everything_in(tmp_path / "run")
    monkeypatch.setattr(InProcessGrid, "get_node_ids", lambda _: [])
    with pytest.raises(RunFailedError, match="none has connected"):
        run_in_process({**config, "num-server-rounds": 5, "node-timeout": 0.2, "resume": True})
    assert everything_in(tmp_path / "run") == before


def test_a_run_that_has_trained_no_round_starts_over(tiny: Make, tmp_path: Path) -> None:
    """Be it killed in its first round, or ended since all clients failed in it."""
    whole = tiny(run_dir=str(tmp_path / "whole"))
    run_in_process(whole)
    killed = tmp_path / "run"
    killed.mkdir()
    (killed / "config.toml").write_bytes((tmp_path / "whole" / "config.toml").read_bytes())
    first, second = (tmp_path / "whole" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    nobody = json.dumps({**json.loads(second), "train": {}, "clients": []})
    (killed / "metrics.jsonl").write_text(f"{first}\n{nobody}\n{second[:20]}", encoding="utf-8")
    run_in_process(tiny(resume=True))
    assert rounds_of(killed) == [0, 1, 2]
    assert result_of(killed)["weights_sha256"] == result_of(tmp_path / "whole")["weights_sha256"]


def test_a_resumed_run_must_keep_its_config(tiny: Make) -> None:
    config = tiny(num_server_rounds=1)
    run_in_process(config)
    with pytest.raises(UserError, match=r"seed is 7, but the run in .* has 42: a resumed run must keep it"):
        run_in_process({**config, "resume": True, "seed": 7})


def test_a_folder_without_a_run_cannot_be_resumed(tiny: Make) -> None:
    with pytest.raises(UserError, match="holds no run to resume"):
        run_in_process(tiny(resume=True))


def test_the_keys_that_are_free_on_resume_exist() -> None:
    from server.run_folder import FREE_ON_RESUME

    assert defaults().keys() >= FREE_ON_RESUME


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.toml", b"x = = 1", "config.toml is broken"),
        ("config.toml", b"x = '\xff'", "config.toml is broken"),
        ("metrics.jsonl", b'{"server_round": "x"}\n', "metrics.jsonl is broken: server_round must be"),
    ],
)
def test_a_run_with_a_broken_file_is_not_resumed_and_nothing_of_it_is_lost(
    tiny: Make, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    config = tiny(num_server_rounds=1)
    run_in_process(config)
    (tmp_path / "run" / name).write_bytes(content)
    before = everything_in(tmp_path / "run")
    for _ in range(2):  # the first try has not left the folder locked
        with pytest.raises(UserError, match=message):
            run_in_process({**config, "num-server-rounds": 2, "resume": True})
    assert everything_in(tmp_path / "run") == before
