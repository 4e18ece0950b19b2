"""A run that is killed and resumed ends in the hash of the run that was not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from finished import result_of, run_killed

from models.core.config import Value
from models.core.errors import UserError
from server.errors import RunFailedError
from simulations.report.page import write_report
from simulations.runtime.in_process import InProcessGrid, run_in_process
from simulations.scenario import defaults

Make = Callable[..., dict[str, Value]]


def rounds_of(folder: Path) -> list[int]:
    return [json.loads(line)["server_round"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


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
    assert not (killed / "result.json").exists()

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
    assert str(caught.value) == (
        f"the run in {folder} has trained to round 3, but {why}: it is not resumed, and left as it is; "
        "to start over give another run-dir, or delete this one; to go on put a whole checkpoint back"
    )
    assert everything_in(folder) == before


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
    first, second = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[:2]
    nobody = json.dumps({**json.loads(second), "train": {}, "clients": []})
    (killed / "metrics.jsonl").write_text(f"{first}\n{nobody}\n{second[:20]}")
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
