"""Asks a SuperLink that runs on this machine which nodes and runs it has."""

import http.client
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import httpx
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest
from flwr.supercore.control import ControlHttpClient

from models.core.errors import UserError
from server.node_clients import fingerprint_of
from simulations.deploy import addresses, certificates
from simulations.deploy.folder import Folder, Running
from simulations.deploy.gate import HEALTH

GONE = "unregistered"
"""Flower's status of a node that was taken out, and of which it keeps the row."""
RUNS = 10
"""The newest runs, of which the status tells."""


@dataclass(frozen=True)
class Node:
    """A SuperNode that is registered."""

    number: int
    """Flower's number of it."""
    name: str
    """What it was registered as."""
    status: str
    """ "registered" until it first connects, then "online" or "offline"."""
    since: str
    """When it went online or offline, in UTC; "" before that."""
    key: str = ""
    """Fingerprint of its key."""


@dataclass(frozen=True)
class Run:
    """A run that was started on the SuperLink."""

    number: int
    """Flower's number of it."""
    status: str
    """ "pending", "starting", "running", or how it finished: "completed", "failed", "stopped"."""
    since: str
    """When it came to that, in UTC."""


def is_up(running: Running, folder: Folder) -> bool:
    """Whether the program of a folder is there and answers."""
    if running.process is None:
        return False
    host, port = addresses.parse(running.address)
    if running.superlink:  # a node serves its own user on the loopback, without TLS
        connection: http.client.HTTPConnection = http.client.HTTPConnection(host, port, timeout=5)
    else:
        certificates.read(folder.ca)  # which says in a line what is wrong with it
        context = ssl.create_default_context(cafile=str(folder.ca))
        connection = http.client.HTTPSConnection(host, port, timeout=5, context=context)
    with closing(connection):
        try:
            connection.request("GET", HEALTH)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def running(folder: Folder) -> Running:
    """Return the SuperLink of a folder; UserError where none runs there."""
    found = folder.remembered()
    if found is None or found.process is None or found.superlink:
        raise UserError(f"no SuperLink runs in {folder.path}: start it with polyfed deploy server")
    return found


def client(running: Running, folder: Folder) -> ControlHttpClient:
    """Return what talks to the SuperLink of a folder as the user who started it; to be closed."""
    certificates.read(folder.ca)  # which says in a line what is wrong with it
    return ControlHttpClient.from_server_address(
        running.address, insecure=False, root_certificates=folder.ca.read_bytes(), interceptors=[]
    )


def registered(folder: Folder) -> list[Node]:
    """Return the nodes that are registered; UserError where the SuperLink of a folder is not up."""
    return nodes(running(folder), folder)


def nodes(running: Running, folder: Folder) -> list[Node]:
    """Return the nodes that are registered, in the order of their registration."""
    with _control(running, folder) as control:
        found = sorted(control.ListNodes(ListNodesRequest()).nodes_info, key=lambda node: node.registered_at)
    since = {"online": "last_activated_at", "offline": "last_deactivated_at"}
    return [
        Node(
            node.node_id,
            node.name,
            node.status,
            _time(getattr(node, since.get(node.status, ""), "")),
            fingerprint_of(node.public_key),
        )
        for node in found
        if node.status != GONE
    ]


def runs(running: Running, folder: Folder) -> list[Run]:
    """Return the newest runs, the newest first."""
    with _control(running, folder) as control:
        found = control.ListRuns(ListRunsRequest(limit=RUNS)).run_dict.values()
    return [
        Run(run.run_id, run.status.sub_status or run.status.status,
            _time(run.finished_at or run.running_at or run.starting_at or run.pending_at))
        for run in sorted(found, key=lambda run: run.pending_at, reverse=True)
    ]  # fmt: skip


@contextmanager
def _control(running: Running, folder: Folder) -> Iterator[ControlHttpClient]:
    with closing(client(running, folder)) as control:
        try:
            yield control
        except httpx.HTTPStatusError as error:
            said = error.response.text[:200]
            raise UserError(
                f"the SuperLink on {running.address} refuses ({error.response.status_code}): {said}"
            ) from error
        except httpx.TransportError as error:
            raise UserError(f"the SuperLink on {running.address} does not answer: {error}") from error


def _time(text: str) -> str:
    return text[:19].replace("T", " ")
