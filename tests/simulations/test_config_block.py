"""What is written from the config classes: the block of pyproject.toml, and the schema for editors."""

import json
import tomllib

import pytest
from command_line import polyfed
from jsonschema import Draft202012Validator
from places import ROOT
from shortened import SCENARIOS

from simulations.config_block import HEADINGS, config_block, with_block
from simulations.scenario import defaults

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_block_is_current() -> None:
    assert with_block(PYPROJECT) == PYPROJECT, "run `make config`"


def test_the_block_says_what_the_code_says() -> None:
    declared = tomllib.loads(config_block())["tool"]["flwr"]["app"]["config"]
    assert declared == defaults()
    assert [type(value) for value in declared.values()] == [type(defaults()[key]) for key in declared]
    assert all(len(line) <= 110 for line in config_block().splitlines())
    assert set(defaults()) > HEADINGS.keys()


def test_a_block_that_is_out_of_date_is_replaced_and_nothing_else() -> None:
    old = '[tool.a]\nb = 1\n\n[tool.flwr.app.config]\n# old\ntask = "x"  # [1]\n\n[tool.c]\nd = 2\n'
    assert with_block(old) == f"[tool.a]\nb = 1\n\n{config_block()}\n[tool.c]\nd = 2\n"


def _complaints(scenario: dict[str, object]) -> list[str]:
    printed = polyfed("schema")
    assert printed.code == 0
    schema = json.loads(printed.out)
    Draft202012Validator.check_schema(schema)
    return [error.message for error in Draft202012Validator(schema).iter_errors(scenario)]


def test_an_editor_accepts_every_scenario() -> None:
    for path in SCENARIOS:
        assert _complaints(tomllib.loads(path.read_text(encoding="utf-8"))) == [], path.name


@pytest.mark.parametrize(
    ("key", "value"),
    [("alpha", 0), ("num-client", 3), ("download", "yes"), ("seed", 1.5)],
)
def test_an_editor_refuses(key: str, value: object) -> None:
    assert len(_complaints({key: value})) == 1
