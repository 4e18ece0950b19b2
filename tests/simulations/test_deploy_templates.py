"""The files that `polyfed deploy templates` writes."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from command_line import polyfed

from simulations.deploy.cli import deploy
from simulations.deploy.templates import FILES

UNITS = sorted(FILES.glob("*.service"))
COMPOSE = yaml.safe_load((FILES / "compose.yaml").read_text(encoding="utf-8"))


def check(words: list[str]) -> None:
    """Raise where `polyfed deploy` does not take these words."""
    command = deploy.commands[words[0]]
    command.make_context(words[0], words[1:], resilient_parsing=False)


def test_they_are_written_once(tmp_path: Path) -> None:
    ended = polyfed("deploy", "templates", tmp_path / "files")
    assert ended.code == 0
    assert {Path(line).name for line in ended.out.splitlines()} == {
        ".dockerignore", "Dockerfile", "compose.yaml", "polyfed-node.service", "polyfed-server.service",
        "requirements.lock",
    }  # fmt: skip
    assert polyfed("deploy", "templates", tmp_path / "files").code == 2


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_a_command_that_there_is(unit: Path) -> None:
    text = unit.read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^ExecStart=(.*)$", text, flags=re.MULTILINE)
    program, deploy_, *words = shlex.split(command)
    assert (program, deploy_) == ("/opt/polyfed/bin/polyfed", "deploy")
    check(words)
    assert "\nUMask=0077\n" in text


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_a_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    # The program and its user are not on this machine.
    text = unit.read_text(encoding="utf-8").replace("/opt/polyfed/bin/polyfed", "/bin/true")
    (tmp_path / unit.name).write_text(text.replace("User=polyfed\n", ""), encoding="utf-8")
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True, text=True, check=False, encoding="utf-8",
    )  # fmt: skip
    assert unit.name not in ended.stderr, ended.stderr


def test_compose_takes_the_file() -> None:
    words = ["--builtin-schema", "vendor.compose-spec", str(FILES / "compose.yaml")]
    ended = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *words],
        capture_output=True, text=True, check=False, encoding="utf-8",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_compose_runs_commands_that_there_are() -> None:
    for name, service in COMPOSE["services"].items():
        check(service["command"])
        assert service["user"] == "1000:1000"
        assert service["cap_drop"] == ["ALL"]
        ports = service.get("ports", [])
        assert bool(ports) == (name == "superlink"), "only the SuperLink is reached from outside"
    test = COMPOSE["services"]["superlink"]["healthcheck"]["test"]
    assert test[:3] == ["CMD", "polyfed", "deploy"]
    check(test[3:])


def test_compose_gives_each_node_its_own_number_and_folders() -> None:
    nodes = [service for name, service in COMPOSE["services"].items() if name.startswith("node-")]
    numbers = [node["command"][node["command"].index("--partition-id") + 1] for node in nodes]
    assert numbers == [str(number) for number in range(len(nodes))]
    assert all(
        node["command"][node["command"].index("--num-partitions") + 1] == str(len(nodes)) for node in nodes
    )
    assert len({volume for node in nodes for volume in node["volumes"]}) == 2 * len(nodes)


def test_a_wrong_command_is_seen() -> None:
    with pytest.raises(click.UsageError):
        check(["node", "/state", "--no-such-option", "1"])


IN_COMMENTS = re.findall(r"^#   .*?polyfed deploy (.*?)(?: &&.*)?$", "\n".join(
    path.read_text(encoding="utf-8") for path in sorted(FILES.iterdir())), flags=re.MULTILINE)  # fmt: skip


@pytest.mark.parametrize("command", IN_COMMENTS)
def test_what_a_file_says_to_do_can_be_done(command: str) -> None:
    check(shlex.split(command))


def test_there_are_commands_in_the_files() -> None:
    assert len(IN_COMMENTS) >= 8
