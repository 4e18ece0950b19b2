"""Makes the files of a deployment: the CA, the server's certificate, the keys of nodes."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from models.core.errors import UserError
from server.node_clients import fingerprint
from simulations.deploy import certificates, keys
from simulations.deploy.folder import OWN, Folder

Say = Callable[[str], None]


def make_authority(folder: Path, days: int, renew: bool, say: Say) -> None:
    """Write ca.key and ca.crt, or a new ca.crt for the key that is there."""
    _make_folder(folder)
    key = _key(folder / "ca.key", renew, say)
    certificates.write(folder / "ca.crt", certificates.make_ca(key, days))
    say(f"{folder / 'ca.crt'}: holds for {days} days; every node needs a copy")


def make_certificate(
    ca_folder: Path, folder: Path, hosts: Sequence[str], days: int, renew: bool, say: Say
) -> None:
    """Write server.key, server.crt and a copy of ca.crt into a server's folder."""
    if not hosts:
        raise UserError("--host takes names and addresses with commas between, got none")
    ca_path = ca_folder / "ca.crt"
    ca, ca_key = certificates.read(ca_path), keys.read_key(ca_folder / "ca.key")
    certificates.check_pair(ca, ca_key, ca_path)
    if line := certificates.check_dates(ca_path, ca):
        say(line)
    key = keys.read_key(Folder(folder.absolute()).key) if renew else keys.new_key()
    certificate = certificates.make_server(key, hosts, ca, ca_key, days)  # before anything is there to stay
    made = Folder.made(folder)
    if not renew:
        _write(made.key, key, say)
    certificates.write(made.certificate, certificate)
    shutil.copyfile(ca_path, made.ca)
    say(f"{made.certificate}: holds for {', '.join(certificates.hosts_of(certificate))}, {days} days")


def make_node_key(folder: Path, name: str, say: Say) -> None:
    """Write node.key and node.pub into a node's folder."""
    made = Folder.made(folder)
    name = name or made.path.name
    if "\n" in name:
        raise UserError("--name is one line")
    key = keys.new_key()
    keys.write_key(made.node_key, key, ssh=True)
    line = keys.public_line(key, name)
    made.node_public.write_text(line, encoding="utf-8")
    say(f"{made.node_key}: the node's private key, which stays here")
    say(f"{made.node_public}: {fingerprint(line.encode())}, to be registered at the server")


def _key(path: Path, renew: bool, say: Say) -> ec.EllipticCurvePrivateKey:
    """Return the key of a file (`renew`), or a new one, written there."""
    if renew:
        return keys.read_key(path)
    key = keys.new_key()
    _write(path, key, say)
    return key


def _write(path: Path, key: ec.EllipticCurvePrivateKey, say: Say) -> None:
    keys.write_key(path, key)
    say(f"{path}: a private key, for its owner alone")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=OWN, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder} ({error.strerror}): give another") from error
