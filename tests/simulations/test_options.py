"""Options that a scenario file or an override gives as tables, and what goes over Flower's wire."""

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from flwr.common.config import parse_config_args
from places import CONFIGS

from models.core.config import parse_options
from models.core.errors import UserError
from models.core.toml import quoted
from simulations.experiments.sweep import parse_space, plan_sweep, read_arms
from simulations.scenario import load_scenario

NESTED = {
    "a": [1, 2.5, "x"],
    "strategy": {"name": "FedAdam", "eta": 0.01, "b c": True},
    "t": "it's \"\n\u00e9",
}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, ""),
        ({"norm": "group"}, "norm = 'group'"),
        ({"z": 32_000, "a": 1.0, "b": 1e-5, "m": False}, "a = 1.0, b = 1e-05, m = false, z = 32000"),
        ({"local": ["f.*", "g.*"]}, "local = ['f.*', 'g.*']"),
        ({"strategy": {"name": "Krum", "eta": 1}}, "strategy = {eta = 1, name = 'Krum'}"),
        ({"t": "it's"}, 't = "it\'s"'),
    ],
)
def test_options_are_quoted_in_one_way(options: dict[str, Any], text: str) -> None:
    assert quoted(options) == text
    assert quoted(dict(reversed(options.items()))) == text


def test_what_is_quoted_reads_back_as_it_was() -> None:
    assert parse_options("o", quoted(NESTED)) == NESTED
    assert math.isinf(parse_options("o", quoted({"limit": math.inf}))["limit"])


@pytest.mark.parametrize("text", ["eta = nan", "a = {b = [1.0, -nan]}"])
def test_what_is_no_number_is_no_option(text: str) -> None:
    with pytest.raises(UserError, match=r"^strategy-options must be without nan, which is no number, got"):
        parse_options("strategy-options", text)


def scenario(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "task-options = \"norm = 'group'\"",
        'task-options = {norm = "group"}',
        '[task-options]\nnorm = "group"',
        'task-options.norm = "group"',
    ],
)
def test_a_table_is_the_text_that_says_the_same(tmp_path: Path, text: str) -> None:
    assert load_scenario(scenario(tmp_path, text))["task-options"] == "norm = 'group'"


@pytest.mark.parametrize(
    "value", ["norm = 'group'", "{norm = 'group'}", '{norm="group"}', "\"norm = 'group'\""]
)
def test_an_override_may_be_a_table_or_its_text(tmp_path: Path, value: str) -> None:
    path = scenario(tmp_path, 'task-options = {norm = "none"}')
    assert load_scenario(path, [f"task-options={value}"])["task-options"] == "norm = 'group'"


def test_only_options_are_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"alpha must be a number, got \{'low': 1\}"):
        load_scenario(scenario(tmp_path, "alpha = {low = 1}"))
    with pytest.raises(UserError, match="unknown run-config key 'task_options': did you mean task-options"):
        load_scenario(scenario(tmp_path, "[task_options]\nnorm = 'group'"))


def test_arms_and_grids_may_hold_tables(tmp_path: Path) -> None:
    path = scenario(tmp_path, "num-clients = 3")
    arms = tmp_path / "arms.toml"
    arms.write_text(
        '[[arm]]\nstrategy = "FedProx"\nstrategy-options = {proximal_mu = 0.1}\n', encoding="utf-8"
    )
    as_text = "{strategy = 'FedProx', strategy-options = 'proximal_mu = 0.1'}"
    as_table = "{strategy = 'FedProx', strategy-options = {proximal_mu = 0.1}}"
    spaces = [
        parse_space((), (), (), (), read_arms(arms)),
        parse_space([as_text], (), (), ()),
        parse_space([as_table], (), (), ()),
        parse_space((), ["strategy=['FedProx']", "strategy-options=[{proximal_mu = 0.1}]"], (), ()),
    ]
    folders = set()
    for space in spaces:
        (trial,) = plan_sweep(path, space.combinations(0, 1), [1], tmp_path)
        assert load_scenario(path, trial.overrides)["strategy-options"] == "proximal_mu = 0.1"
        folders.add(trial.folder)
    assert len(folders) == 1


def test_every_shipped_scenario_is_flat(tmp_path: Path) -> None:
    """So that plain Flower takes it: `flwr run` makes keys of its own of a table's, and refuses them."""
    for path in CONFIGS.glob("*.toml"):
        assert parse_config_args([str(path)]) == tomllib.loads(path.read_text(encoding="utf-8"))
    table = tmp_path / "table.toml"
    table.write_text("task-options = {mask_ratio = 0.3}", encoding="utf-8")
    assert parse_config_args([str(table)]) == {"task-options.mask_ratio": 0.3}
