"""What engine = "auto" chooses, and that it is what the run is then trained by."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from models.core.config import Value
from models.core.errors import UserError
from server.plan import make_plan
from server.run_schema import RESULT, RUN_LOG
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]

# Of an image of 8x8: two convolutions, each over all 64 and all 16 pixels, and two linear layers.
FORWARD = 2 * (64 * 32 * 9 + 16 * 64 * 32 * 9 + 256 * 128 + 128 * 10)


@pytest.mark.parametrize(
    ("overrides", "name", "why"),
    [
        ({}, "stacked", f"a step is {32 * FORWARD / 1e6:.3g} million operations forward, at most 50"),
        (
            {"batch_size": 128},
            "loop",
            f"a step is {128 * FORWARD / 1e6:.3g} million operations forward, over",
        ),
        ({"num_clients": 1}, "loop", "there is one client"),
        ({"keep_optimizer": True}, "loop", "clients keep their optimizers"),
        ({"channels_last": True}, "loop", "channels-last is set"),
        ({"optimizer": "adafactor"}, "loop", "optimizer adafactor sees a weight as a whole"),
        ({"strategy": "Ditto"}, "loop", "clients keep personal models"),
        ({"task_options": "norm = 'batch'"}, "loop", "task cnn has BatchNorm, whose running statistics"),
        (
            {"task": "lstm-forecast", "dataset": "sine", "partitioner": "iid"},
            "loop",
            "lstm-forecast clips each client's gradients",
        ),
    ],
)
def test_small_steps_of_what_can_be_stacked_are(
    tiny: Make, overrides: dict[str, bool | int | str], name: str, why: str
) -> None:
    choice = make_plan(tiny(engine="auto", **overrides)).engine
    assert choice.name == name
    assert why in choice.why


def test_what_the_config_says_is_not_chosen(tiny: Make) -> None:
    assert make_plan(tiny(engine="stacked", batch_size=128)).engine.name == "stacked"
    assert make_plan(tiny()).engine.name == "loop"


@pytest.mark.parametrize(("batch_size", "engine"), [(32, "stacked"), (128, "loop")])
def test_a_run_is_trained_by_what_was_chosen(
    tiny: Make, tmp_path: Path, batch_size: int, engine: str
) -> None:
    for name in ("auto", engine):
        run_in_process(tiny(engine=name, batch_size=batch_size, run_dir=str(tmp_path / name)))
    results = [json.loads((tmp_path / name / RESULT).read_text("utf-8")) for name in ("auto", engine)]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert results[0]["used"]["engine"] == engine
    log = (tmp_path / "auto" / RUN_LOG).read_text(encoding="utf-8")
    assert log.count(f'engine = "auto" is "{engine}": a step is ') == 1
    assert 'engine = "auto"' not in (tmp_path / engine / RUN_LOG).read_text(encoding="utf-8")


def test_clients_with_personal_models_are_trained_one_by_one(tiny: Make, tmp_path: Path) -> None:
    for name in ("auto", "loop"):
        run_in_process(tiny(engine=name, strategy="Ditto", run_dir=str(tmp_path / name)))
    last = [load_file(tmp_path / name / "models" / "last.safetensors") for name in ("auto", "loop")]
    assert all(last[0][key].equal(last[1][key]) for key in last[0])


def test_a_run_does_not_go_on_by_another_engine(tiny: Make, tmp_path: Path) -> None:
    """As it would where a later polyfed chooses otherwise."""
    config = tiny(engine="auto", checkpoint_every=1)
    run_in_process(config)
    result = tmp_path / "run" / RESULT
    said = json.loads(result.read_text(encoding="utf-8"))
    assert said["used"]["engine"] == "stacked"
    said["used"]["engine"] = "loop"
    result.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(
        UserError, match='chose engine "loop" by engine = "auto", and this polyfed chooses "st'
    ):
        run_in_process({**config, "resume": True, "num-server-rounds": 3})
