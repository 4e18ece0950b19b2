"""Lets a node's key in, or out again, by Flower's own command."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from models.core.errors import UserError
from server.node_clients import client_ranges
from simulations.deploy import asked, given_clients, keys
from simulations.deploy.folder import Folder
from simulations.deploy.program import Program, flwr
from simulations.deploy.server import CONNECTION

Say = Callable[[str], None]
IN_USE = "Public key already in use"
"""Flower's words about a key that was registered once, also where it was taken out again."""
TAKEN_OUT = " A key that was unregistered is never taken again: make another with polyfed deploy node-key"


def register(folder: Folder, public: Path, name: str, clients: str, say: Say) -> int:
    """Have the SuperLink of a folder take a public key, and return the number that it gives the node.

    A key that it has taken before stays as it is, but for the clients that it may host, where some are given.
    """
    fingerprint, comment = keys.read_public_line(public)
    if clients:
        client_ranges(clients, "--clients")
    number = next((node.number for node in asked.registered(folder) if node.key == fingerprint), None)
    if number is None:
        name = name or comment or public.stem
        command = flwr(["supernode", "register", str(public.absolute()), CONNECTION, "--name", name], folder)
        number = int(_answer(command, say)["node-id"])
        say(f"registered {name} as node {number}, key {fingerprint}")
    else:
        say(f"node {number} is registered with the key {fingerprint} already")
    if clients:
        given_clients.write(folder, {**given_clients.given(folder), fingerprint: clients})
        say(f"node {number} may host clients {clients} alone, and no other node may host them")
    return number


def unregister(folder: Folder, number: int, say: Say) -> None:
    """Have the SuperLink of a folder take a node's key no longer."""
    gone = [node.key for node in asked.registered(folder) if node.number == number]
    _answer(flwr(["supernode", "unregister", str(number), CONNECTION], folder), say)
    given = given_clients.given(folder)
    if gone and gone[0] in given:
        given_clients.write(folder, {key: clients for key, clients in given.items() if key != gone[0]})
    say(f"node {number} is let in no longer")


def _answer(command: Program, say: Say) -> dict[str, str]:
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
        raise UserError(f"flwr refused: {said}{TAKEN_OUT if IN_USE in said else ''}")
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
