"""Help that is whole, versions, and what an interrupted or awkward start says."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from command_line import hear_ctrl_c, polyfed

from simulations.cli import cli


def commands(group: click.Group, *words: str) -> dict[tuple[str, ...], click.Command]:
    found: dict[tuple[str, ...], click.Command] = {}
    for name, command in group.commands.items():
        found[*words, name] = command
        if isinstance(command, click.Group):
            found |= commands(command, *words, name)
    return found


@pytest.mark.parametrize(("words", "command"), commands(cli).items())
def test_help_says_all_that_its_author_wrote(words: tuple[str, ...], command: click.Command) -> None:
    ended = polyfed(*words, "--help")
    assert (ended.code, ended.err) == (0, "")
    said = "".join(ended.out.split())  # long words are broken at hyphens
    for parameter in command.params:
        if parameter.name != "help":
            assert getattr(parameter, "help", None), f"{parameter.name} of {' '.join(words)} has no help"
            assert "".join(parameter.help.split()) in said


def test_brackets_in_help_are_there() -> None:
    said = polyfed("sweep", "--help").out
    assert all(words in said for words in ("key=[values]", "[[arm]]", "key=[low, high]"))


def test_the_version() -> None:
    ended = polyfed("--version")
    assert ended.code == 0
    assert ended.out.startswith("polyfed 0.")
    assert "torch " in ended.out


@pytest.mark.parametrize("seconds", [0.15, 0.5])
def test_ctrl_c_during_imports_is_one_line(seconds: float, tmp_path: Path) -> None:
    # A library that takes long to import, and that would turn the interruption into an error of its own.
    (tmp_path / "click.py").write_text(
        "import time\ntry:\n    print('here', flush=True)\n    time.sleep(30)\n"
        "except BaseException as error:\n    raise ImportError('broken') from error\n",
        encoding="utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", "from simulations.entry import main; main()", "tasks"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        preexec_fn=hear_ctrl_c,
        encoding="utf-8",
    )
    assert process.stdout
    assert process.stdout.readline() == "here\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "polyfed: interrupted\n")


@pytest.mark.slow
def test_an_ascii_locale_raises_nothing(tmp_path: Path) -> None:
    ascii_only = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "simulations.cli", "tasks"],
        cwd=tmp_path,
        env={**os.environ, **ascii_only},
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"accuracy ^, loss" in ended.stdout
    assert b"\x1b" not in ended.stdout
