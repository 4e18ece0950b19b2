"""Lets a node's key in, or out again, by Flower's own command."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from models.core.errors import UserError
from simulations.deploy import keys
from simulations.deploy.folder import Folder
from simulations.deploy.program import Program, flwr
from simulations.deploy.server import CONNECTION


def register(folder: Folder, public: Path, name: str, say: Callable[[str], None]) -> int:
    """Have the SuperLink of a folder take a public key, and return the number that it gives the node."""
    fingerprint, comment = keys.read_public_line(public)
    name = name or comment or public.stem
    command = flwr(["supernode", "register", str(public.absolute()), CONNECTION, "--name", name], folder)
    answer = _answer(command, say)
    number = int(answer["node-id"])
    say(f"registered {name} as node {number}, key {fingerprint}")
    return number


def unregister(folder: Folder, number: int, say: Callable[[str], None]) -> None:
    """Have the SuperLink of a folder take a node's key no longer."""
    _answer(flwr(["supernode", "unregister", str(number), CONNECTION], folder), say)
    say(f"node {number} is let in no longer")


def _answer(command: Program, say: Callable[[str], None]) -> dict[str, str]:
    """Run a command of `flwr` that answers in JSON; UserError where it says that it failed."""
    say(f"$ {command.shown()}")
    ended = subprocess.run(
        [*command.arguments, "--format", "json"],
        cwd=command.folder,
        env={**os.environ, **command.variables},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    answer = json_in(ended.stdout)
    if ended.returncode or not answer.get("success"):
        said = answer.get("error-message") or " ".join((ended.stderr or ended.stdout).split())
        raise UserError(f"flwr refused: {said}")
    return answer


def json_in(text: str) -> dict[str, str]:
    """Return the JSON object that a command printed among other lines; {} where there is none."""
    start = text.find("{")
    if start < 0:
        return {}
    try:
        found, _ = json.JSONDecoder().raw_decode(text[start:])
    except ValueError:
        return {}
    return dict(found) if isinstance(found, dict) else {}
