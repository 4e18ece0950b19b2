"""The commands of docs/deploy.md, as far as they can be checked without running them."""

import re
import shlex

import click
import pytest
from places import ROOT

from simulations.deploy.cli import deploy
from simulations.deploy.gate import FOR_NODES
from simulations.deploy.preflight import AHEAD, BEHIND

PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
IN_TEXT = re.findall(r"`polyfed deploy ([a-z-]+ [^`]+)`", PAGE)
COMMANDS = [line.removeprefix("polyfed deploy ") for block in BLOCKS for line in block.splitlines()
            if line.startswith("polyfed deploy ")]  # fmt: skip


@pytest.mark.parametrize("command", [*COMMANDS, *IN_TEXT])
def test_the_command_line_takes_it(command: str) -> None:
    words = shlex.split(command.replace("$SERVER", "localhost").replace("NODE-ID", "7"), comments=True)
    made = deploy.commands[words[0]].make_context(words[0], words[1:])
    assert isinstance(made, click.Context)


def test_every_command_is_on_the_page() -> None:
    assert len(COMMANDS) > 10
    assert deploy.commands.keys() - {command.split()[0] for command in [*COMMANDS, *IN_TEXT]} == set()


def test_numbers_of_the_page() -> None:
    assert f"Its clock may be {AHEAD} s ahead of the server's and {BEHIND} s behind" in PAGE
    decisions = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    assert "the ten paths" in decisions
    assert len(FOR_NODES) == 10


def test_nothing_is_started_without_tls() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    started = r"^(flower-superlink|flower-supernode)\b.*--insecure"
    assert [
        page.name for page in pages if re.search(started, page.read_text(encoding="utf-8"), re.MULTILINE)
    ] == []
