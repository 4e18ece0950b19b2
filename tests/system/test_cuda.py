"""What holds on a GPU; on a machine without one, all of this is skipped."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.core.config import Value
from server.run_schema import LAST_MODEL
from simulations.bench.gpu_parts import FAMILIES, Sizes, actors_row, family_row
from simulations.runs.reader import read_run
from simulations.runtime.in_process import run_in_process

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation"),
]


def final(config: dict[str, Value], folder: Path, **overrides: Value) -> tuple[str, dict[str, torch.Tensor]]:
    given = {name.replace("_", "-"): value for name, value in overrides.items()}
    run_in_process({**config, "run-dir": str(folder), **given})
    result = read_run(folder).result
    assert result is not None
    return result.weights_sha256, load_file(folder / LAST_MODEL)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"precision": "bfloat16", "channels-last": True},
        {"strategy": "Scaffold", "optimizer": "sgd", "optimizer-options": "momentum = 0.0"},
        {"strategy": "Ditto", "keep-optimizer": True},
        {"engine": "stacked"},
    ],
)
def test_a_run_repeats_on_the_gpu(
    overrides: dict[str, Value], tiny: Callable[..., dict[str, Value]], tmp_path: Path
) -> None:
    config = {**tiny(), **overrides, "device": "cuda"}
    assert final(config, tmp_path / "a")[0] == final(config, tmp_path / "b")[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_repeats_on_the_gpu(name: str) -> None:
    assert "; repeats, " in family_row(name, "cuda", Sizes(rounds=2)).also


def test_the_gpu_agrees_with_the_cpu_up_to_rounding(
    tiny: Callable[..., dict[str, Value]], tmp_path: Path
) -> None:
    _, gpu = final(tiny(), tmp_path / "gpu", device="cuda")
    _, cpu = final(tiny(), tmp_path / "cpu", device="cpu")
    for name, weight in cpu.items():
        assert torch.allclose(gpu[name], weight, atol=1e-4), name


def test_stacked_agrees_with_the_loop(tiny: Callable[..., dict[str, Value]], tmp_path: Path) -> None:
    config = tiny(num_server_rounds=5, device="cuda")
    _, loop = final(config, tmp_path / "loop")
    _, stacked = final(config, tmp_path / "stacked", engine="stacked")
    for name, weight in loop.items():
        assert torch.allclose(stacked[name], weight, atol=1e-4), name


def test_workers_that_share_a_gpu_end_in_one_hash() -> None:
    alone: list[float] = []
    sizes = Sizes(rounds=2, clients=4, photos=256)
    hashes = {actors_row(number, "cuda", sizes, alone, 300).also.split(";")[0] for number in (1, 2)}
    assert len(hashes) == 1
