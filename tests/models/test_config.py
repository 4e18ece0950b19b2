"""Reading the run config."""

import math
from pathlib import Path

import pytest
from places import ROOT

from models.core.config import TaskConfig, check_keys, parse_options, read
from models.core.errors import UserError, shown
from models.core.refusal import choices
from server.config import ServerConfig
from simulations.scenario import CONFIGS, load_scenario
from strategies.wire.compression import CODECS

SCENARIOS = sorted((ROOT / "simulations" / "configs").glob("*.toml"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num-clients", "x", "num-clients must be a whole number, got 'x'"),
        ("num-clients", True, "num-clients must be a whole number, got True"),
        ("num-clients", 0, "num-clients must be >= 1, got 0"),
        ("alpha", 0, "alpha must be > 0, got 0.0"),
        ("local-test-fraction", 1.0, "local-test-fraction must be in [0, 1), got 1.0"),
        ("partitioner", "dirichlett", "unknown partitioner 'dirichlett': did you mean dirichlet?"),
        ("alpha", math.inf, "alpha must be > 0 and finite, got inf"),
        ("alpha", math.nan, "alpha must be > 0 and finite, got nan"),
        ("alpha", 10**400, "alpha must be > 0, got inf"),
        ("seed", 2**63, f"seed must be at most {2**63 - 1}, got {2**63}"),
        ("alpha", False, "alpha must be a number, got False"),
        ("alpha", "1", "alpha must be a number, got '1'"),
        ("compression-ratio", 0, "compression-ratio must be in (0, 1], got 0.0"),
        ("attack-fraction", 1.5, "attack-fraction must be in [0, 1], got 1.5"),
        ("download", 1, "download must be true or false, got 1"),
        ("dataset", 3, "dataset must be text, got 3"),
        ("batch-size", 1.0, "batch-size must be a whole number, got 1.0"),
        ("seed", -1, "seed must be >= 0, got -1"),
        ("partitioner", 3, "partitioner must be text, got 3"),
        ("precision", "fp8", "unknown precision 'fp8': known are bfloat16, float32"),
        ("attack", "sign", "unknown attack 'sign': did you mean sign-flip?"),
        ("engine", "", "unknown engine '': known are auto, loop, stacked"),
        ("compression", "topk", "unknown compression 'topk': did you mean top-k?"),
    ],
)
def test_task_config_refuses(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(TaskConfig, {key: value})  # type: ignore[dict-item]
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fraction-train", 0.0, "fraction-train must be in (0, 1], got 0.0"),
        ("run-dir", "runs/a", "run-dir must be an absolute folder, got 'runs/a'"),
        ("resume", True, "run-dir must be given when resume is true, got ''"),
        ("round-timeout", math.nan, "round-timeout must be > 0, got nan"),
    ],
)
def test_server_config_refuses(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(ServerConfig, {key: value})  # type: ignore[dict-item]
    assert str(error.value) == message


def test_a_whole_number_passes_for_a_float_and_is_one() -> None:
    alpha = read(TaskConfig, {"alpha": 1}).alpha
    assert alpha == 1.0
    assert isinstance(alpha, float)


def test_a_config_is_a_key_of_a_cache() -> None:
    assert read(TaskConfig, {"alpha": 1}) == TaskConfig(alpha=1.0)
    assert hash(read(TaskConfig, {"alpha": 1})) == hash(TaskConfig(alpha=1.0))
    assert TaskConfig(seed=1) != TaskConfig(seed=2)
    with pytest.raises(ValueError, match="frozen"):
        TaskConfig().seed = 3  # type: ignore[misc]


def test_a_made_config_refuses_what_a_read_one_does() -> None:
    with pytest.raises(UserError, match=r"unknown run-config key 'num-client': did you mean num-clients"):
        TaskConfig(num_client=3)  # type: ignore[call-arg]
    with pytest.raises(UserError, match=r'keep-optimizer must be false when engine is "stacked", got True'):
        TaskConfig(engine="stacked", keep_optimizer=True)


def test_a_timeout_may_be_endless() -> None:
    assert read(ServerConfig, {"round-timeout": math.inf}).round_timeout == math.inf


def test_every_key_says_what_it_is() -> None:
    for cls in CONFIGS:
        for name, field in cls.model_fields.items():
            assert field.description, name


def test_every_compression_that_a_config_allows_is_there() -> None:
    assert set(choices(TaskConfig.model_fields["compression"])) == set(CODECS)


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown run-config key 'num-client': did you mean num-clients"):
        check_keys({"num-client": 3}, *CONFIGS)


def test_options_are_inline_toml() -> None:
    assert parse_options("o", "") == {}
    assert parse_options("o", "a = 1, b = 'x', c = [1, 2]") == {"a": 1, "b": "x", "c": [1, 2]}
    with pytest.raises(UserError, match="o must be inline TOML"):
        parse_options("o", "a: 1")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_is_a_valid_config(path: Path) -> None:
    assert load_scenario(path)["task"]


def test_overrides_win_over_the_scenario(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('num-clients = 3\ndataset = "digits"\ndata-dir = "here"\n', encoding="utf-8")
    config = load_scenario(path, ["num-clients=7", "task-options=norm = 'group'"])
    assert (config["num-clients"], config["dataset"]) == (7, "digits")
    assert config["task-options"] == "norm = 'group'"
    assert Path(str(config["data-dir"])).is_absolute()


def test_whatever_is_given_is_shown_in_one_line() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "a value that is nested too deeply"
    assert shown(10**5000) == "a number of thousands of digits"
    assert len(shown("a\n" * 500)) == 200
