"""Private keys: of the CA, of the SuperLink's certificate, and of each SuperNode."""

import os
import secrets
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from models.core.errors import UserError
from server.node_clients import fingerprint

PRIVATE = 0o600
"""Mode of a file that holds a private key: its owner reads it, and nobody else."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key on P-384, the curve that Flower's own examples take for TLS and for nodes."""
    return ec.generate_private_key(ec.SECP384R1())


def write_key(path: Path, key: ec.EllipticCurvePrivateKey, *, ssh: bool = False) -> None:
    """Write a private key to a new file: PKCS8, or as OpenSSH does (`ssh`), which Flower reads of nodes."""
    form = PrivateFormat.OpenSSH if ssh else PrivateFormat.PKCS8
    write_private(path, key.private_bytes(Encoding.PEM, form, NoEncryption()))


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner reads; UserError where there is one already.

    It is written under another name first and then linked, so that it is there as a whole or not at all,
    and takes nobody's place.
    """
    new = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        new.touch(PRIVATE, exist_ok=False)  # its mode from the first moment on
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(new, path)
    except FileExistsError:
        raise UserError(
            f"{path} is there already, and a private key is never overwritten: give another folder, or move "
            "the file away"
        ) from None
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        new.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> UserError:
    """Return the error for a file that cannot be written."""
    return UserError(f"cannot write {path} ({error.strerror}): give a folder that you may write to")


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the private key of a file; UserError where it holds none or others may read it."""
    content = _content(path, "a private key")
    if path.stat().st_mode & 0o077:
        raise UserError(
            f"{path} may be read by others (mode {path.stat().st_mode & 0o777:o}): chmod 600 it, and "
            "make a new key if somebody has"
        )
    try:
        is_ssh = content.startswith(b"-----BEGIN OPENSSH")
        load = serialization.load_ssh_private_key if is_ssh else serialization.load_pem_private_key
        key = load(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} holds no private key without a password ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UserError(f"{path} holds a key of another kind than ECDSA: make one with polyfed deploy")
    return key


def public_line(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """Return the public half as a line of OpenSSH that ends with a name."""
    return f"{key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {name}\n"


def read_public_line(path: Path) -> tuple[str, str]:
    """Return the fingerprint of a node's public key file, and the name at the line's end ("" without)."""
    content = _content(path, "a node's public key")
    if b"PRIVATE KEY" in content:
        raise UserError(f"{path} is a private key, which never leaves its node: give the .pub file")
    try:
        key = serialization.load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} holds no public key as OpenSSH writes it ({error})") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UserError(f"{path} holds a key of another kind than ECDSA: polyfed deploy node-key makes one")
    words = content.decode(errors="replace").split(maxsplit=2)
    return fingerprint(content), words[2].strip() if len(words) == 3 else ""


def _content(path: Path, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}, {kind}, cannot be read: {error.strerror}") from error
