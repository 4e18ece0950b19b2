"""Which clients each node's key may host, where the SuperLink's owner has said it."""

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from models.core.errors import UserError, shown
from models.core.number_ranges import read_ranges
from models.core.toml import toml_file

FILE = "POLYFED_NODE_CLIENTS"
"""Variable of the SuperLink's environment that names the file; `polyfed deploy server` sets it."""
SHOWN = 5
"""Clients that a reason lists."""


@dataclass(frozen=True)
class NodeClients:
    """Says whether a node may host the clients that it claims.

    A key that was given clients hosts no others. Clients that were given to keys are hosted by nobody else.
    """

    file: Path | None = None
    """TOML: fingerprints of keys, and their clients, as in "0-3,7"; None where nobody has given any."""

    @staticmethod
    def of_environment() -> "NodeClients":
        """Return what this process's environment names; UserError where that cannot be read."""
        given = os.environ.get(FILE)
        found = NodeClients(Path(given) if given else None)
        found.read()
        return found

    def read(self) -> dict[str, str]:
        """Return fingerprint -> clients, as they are written; UserError where they cannot be read."""
        if self.file is None:
            return {}
        if not self.file.exists():  # which lets nobody in: a mistyped path must not let in everybody
            raise UserError(
                f"the list of nodes' clients {self.file} is not there: put it back, give its path by the "
                f"SuperLink's {FILE}, or make an empty file for no list"
            )
        found = {key: str(text) for key, text in toml_file(self.file, "the list of nodes' clients").items()}
        for key, text in found.items():
            client_ranges(text, f"clients of {key} in {self.file}")
        return found

    def why_not(self, public_key: bytes, claimed: Sequence[int]) -> str:
        """Return why the node with this key may not host these clients; "" where it may.

        The file is read each time, so that what its owner changes holds for the next node that is asked.
        """
        try:
            given = self.read()
        except UserError as error:  # in the midst of a run, which goes on
            return f"nobody knows which clients it may host: {error}"
        key = fingerprint_of(public_key) if given else ""
        if key in given:
            more = sorted({*claimed} - {*_inside(claimed, client_ranges(given[key], key))})
            return f"it claims {_listed(more)}, and its key {key} may host {given[key]} alone" if more else ""
        others = [part for text in given.values() for part in client_ranges(text, "")]
        taken = _inside(claimed, others)
        return (
            f"it claims {_listed(taken)}, which its key {key} was not given, and another was" if taken else ""
        )


def client_ranges(text: str, what: str) -> tuple[range, ...]:
    """Return the numbers that a text such as "0-3,7" stands for; UserError, with `what` it is, for others."""
    try:
        return read_ranges(text)
    except ValueError as error:
        raise UserError(f"{what} must be numbers as in 0-3,7, got {shown(text)}") from error


def fingerprint(line: bytes) -> str:
    """Return the fingerprint of a public key's line of OpenSSH, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def fingerprint_of(public_key: bytes) -> str:
    """Return the fingerprint of a key as Flower keeps it; "" for what is none."""
    try:
        return fingerprint(
            load_pem_public_key(public_key).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        )
    except (ValueError, UnsupportedAlgorithm):
        return ""


def clients_of(place: tuple[int, int] | None, num_clients: int) -> range:
    """Return the clients that a node says it hosts by its partition-id and num-partitions."""
    number, of = place or (0, 0)
    return range(number, num_clients, of) if 0 <= number < of else range(0)


def _inside(claimed: Sequence[int], parts: Iterable[range]) -> list[int]:
    parts = tuple(parts)
    return [client for client in claimed if any(client in part for part in parts)]


def _listed(clients: list[int]) -> str:
    more = f" and {len(clients) - SHOWN} more" if len(clients) > SHOWN else ""
    return f"client{'s' * (len(clients) > 1)} {', '.join(map(str, clients[:SHOWN]))}{more}"
