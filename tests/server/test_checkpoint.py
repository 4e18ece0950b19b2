"""Checkpoints on disk: what comes back, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.core.config import Value
from server.checkpoint import FORMAT, Checkpoint, CheckpointFolder, write_safetensors
from server.run_folder import RunFolder
from simulations.runtime.in_process import run_in_process

WEIGHTS = {
    "scale": torch.tensor(3.0),
    "layer.weight": torch.tensor([[1.0, -2.5], [float("inf"), 1e-45]]),
    "half": torch.tensor([0.1], dtype=torch.bfloat16),
}


def checkpoint(server_round: int, weights: dict[str, Tensor] = WEIGHTS) -> Checkpoint:
    return Checkpoint(
        server_round,
        weights,
        progress={"best": {"accuracy": 0.1 + 0.2}, "stale": 2},
        strategy={"strategy": {"m": {"array": "/m"}}},
        strategy_arrays={"/m": torch.tensor([1, 2], dtype=torch.int64)},
    )


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


def newest(folder: CheckpointFolder, like: dict[str, Tensor] = WEIGHTS) -> int | None:
    found = folder.load_newest(like)
    return found.server_round if found else None


def test_all_comes_back_bit_for_bit(folder: CheckpointFolder) -> None:
    saved = checkpoint(7)
    folder.save(saved)
    loaded = folder.load_newest(WEIGHTS)
    assert loaded is not None
    assert list(loaded.weights) == list(WEIGHTS)  # a strategy may draw noise in this order
    assert (loaded.server_round, loaded.progress, loaded.strategy) == (7, saved.progress, saved.strategy)
    for before, after in ((WEIGHTS, loaded.weights), (saved.strategy_arrays, loaded.strategy_arrays)):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(before[name].dtype == after[name].dtype for name in before)


def test_a_strategy_without_memory_is_one_too(folder: CheckpointFolder) -> None:
    folder.save(Checkpoint(1, WEIGHTS))
    loaded = folder.load_newest(WEIGHTS)
    assert loaded is not None
    assert (loaded.progress, loaded.strategy, loaded.strategy_arrays) == ({}, None, {})


def test_the_last_two_are_kept(folder: CheckpointFolder) -> None:
    assert folder.oldest_round() == 0
    assert newest(folder) is None
    for server_round, oldest in ((1, 1), (2, 1), (10, 2), (100, 10), (1_000_000, 100)):
        folder.save(checkpoint(server_round))
        assert (newest(folder), folder.oldest_round()) == (server_round, oldest)
    assert sorted(path.name for path in folder.folder.iterdir()) == [
        "round-000100.safetensors",
        "round-1000000.safetensors",
    ]


def test_a_view_is_saved_as_what_it_shows(folder: CheckpointFolder) -> None:
    weights = {"transposed": torch.arange(6.0).reshape(2, 3).T, "part": torch.arange(9.0)[2:8:2]}
    folder.save(checkpoint(1, weights))
    loaded = folder.load_newest(weights)
    assert loaded is not None
    assert all(torch.equal(loaded.weights[name], weights[name]) for name in weights)


def damage_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_checkpoint(path: Path) -> None:
    save_file({"model/layer.weight": torch.zeros(2, 2)}, path)


def of_another_version(path: Path) -> None:
    write_safetensors(path, {"model/w": torch.zeros(1)}, {"format": FORMAT + "0"})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_end, ""),
        (damage_a_weight, "its contents do not match its SHA-256"),
        (empty, ""),
        (no_checkpoint, f"it is no {FORMAT} file"),
        (of_another_version, f"it is no {FORMAT} file"),
    ],
)
def test_a_damaged_one_is_refused_aloud_and_the_one_before_used(
    folder: CheckpointFolder, caplog: pytest.LogCaptureFixture, damage: object, reason: str
) -> None:
    folder.save(checkpoint(1))
    folder.save(checkpoint(2))
    path = folder.folder / "round-000002.safetensors"
    damage(path)  # type: ignore[operator]
    assert newest(folder) == 1
    assert f"Checkpoint {path} is refused: {reason}" in caplog.text
    path.with_name("round-000001.safetensors").unlink()
    assert newest(folder) is None


@pytest.mark.parametrize(
    "like",
    [
        {**WEIGHTS, "scale": torch.zeros(1)},
        {**WEIGHTS, "scale": torch.tensor(0.0, dtype=torch.float64)},
        {**WEIGHTS, "more": torch.zeros(1)},
        {"scale": torch.tensor(0.0)},
    ],
)
def test_one_of_another_model_is_refused(
    folder: CheckpointFolder, caplog: pytest.LogCaptureFixture, like: dict[str, Tensor]
) -> None:
    folder.save(checkpoint(1))
    assert newest(folder, like) is None
    assert "it holds another model than this run trains" in caplog.text


def test_what_was_being_written_at_the_end_is_not_looked_at(folder: CheckpointFolder) -> None:
    folder.save(checkpoint(1))
    (folder.folder / "round-000002.partial").write_bytes(b"half a checkp")
    assert newest(folder) == 1
    folder.save(checkpoint(2))
    assert newest(folder) == 2
    assert not list(folder.folder.glob("*.partial"))


def test_a_file_is_there_as_a_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "models" / "best.safetensors"
    write_safetensors(path, {"w": torch.zeros(1)}, {"a": "b"})
    with pytest.raises(ValueError, match="Key `w` is invalid"):
        write_safetensors(path, {"w": 1})  # type: ignore[dict-item]
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"a": "b"}
        assert file.get_tensor("w").item() == 0


def test_no_round_is_missing_from_the_metrics_whenever_a_run_is_killed(
    tiny: Callable[..., dict[str, Value]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the round's two writes, whichever comes first."""
    config = tiny(num_clients=2, num_server_rounds=3)
    for owner, method in ((RunFolder, "append"), (CheckpointFolder, "save")):
        original = getattr(owner, method)

        def killed(self: Any, what: Any, original: Any = original) -> None:
            if (what["server_round"] if isinstance(what, dict) else what.server_round) == 2:
                raise KeyboardInterrupt
            original(self, what)

        with monkeypatch.context() as patch:
            patch.setattr(owner, method, killed)
            with pytest.raises(KeyboardInterrupt):
                run_in_process(config)
        run_in_process({**config, "resume": True})
        rows = (Path(str(config["run-dir"])) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(row)["server_round"] for row in rows] == [0, 1, 2, 3], method
        config["run-dir"] = f"{config['run-dir']}-again"
