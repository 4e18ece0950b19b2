"""TOML that a person typed wrongly is one line."""

from pathlib import Path

import pytest

from models.core.config import parse_options
from models.core.errors import UserError
from models.core.toml import toml_file, toml_value
from simulations.scenario import load_scenario


def test_a_value_is_read() -> None:
    assert toml_value("{a = [1, 2.5], b.c = 'x'}") == {"a": [1, 2.5], "b": {"c": "x"}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = " + "[" * 5000 + "]" * 5000, "brackets are nested too deeply"),
        ("x = " + "9" * 100_000, "a number has too many digits"),
        ("x = 1}\n[evil]\na = {y = 2", "it goes on after the value"),
        ("x = 1}\nevil = {y = 2", "it goes on after the value"),
        ("x = ", "Invalid value"),
    ],
)
def test_options_that_cannot_be_read_are_one_short_line(text: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_options("task-options", text)
    said = str(caught.value)
    assert said.startswith("task-options must be inline TOML such as")
    assert reason in said
    assert len(said) < 400
    assert "\n" not in said


@pytest.mark.parametrize("value", ["[" * 5000 + "]" * 5000, "9" * 100_000, "1\nseed = 2"])
def test_an_override_or_a_file_with_such_values_is_one_short_line(value: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^num-clients must be a whole number, got '") as caught:
        load_scenario({}, [f"num-clients={value}"])
    assert len(str(caught.value)) < 400
    with pytest.raises(UserError, match=r"^task-options must be inline TOML") as caught:
        parse_options("task-options", str(load_scenario({}, [f"task-options={value}"])["task-options"]))
    assert len(str(caught.value)) < 400
    path = tmp_path / "scenario.toml"
    path.write_text(f"num-clients = {value}\nbroken\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_scenario(path)
    assert len(str(caught.value)) < 400


def test_a_scenario_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_bytes('data-dir = "/ü"\n'.encode())
    assert load_scenario(path)["data-dir"] == "/ü"
    path.write_bytes(b'data-dir = "/\xfc"\n')
    with pytest.raises(UserError, match="is not TOML: 'utf-8' codec"):
        toml_file(path, "scenario")
