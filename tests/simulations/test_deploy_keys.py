import os
import stat
import subprocess
from pathlib import Path

import pytest
from command_line import polyfed
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode, _try_setup_client_authentication

from models.core.errors import UserError
from simulations.deploy import keys


def test_a_private_key_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keys.write_key(tmp_path / "a.key", keys.new_key())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


def test_a_private_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    keys.write_private(path, b"first")
    with pytest.raises(UserError, match=r"a\.key is there already, and a private key is never overwritten"):
        keys.write_private(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path], "a temporary file is left"


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is there already"):
        keys.write_private(tmp_path / "a.key", b"secret")
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_comes_back(tmp_path: Path) -> None:
    for ssh in (False, True):
        key = keys.new_key()
        keys.write_key(tmp_path / f"{ssh}.key", key, ssh=ssh)
        assert keys.read_key(tmp_path / f"{ssh}.key").public_key() == key.public_key()


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keys.write_key(tmp_path / "a.key", keys.new_key())
    (tmp_path / "a.key").chmod(0o640)
    with pytest.raises(UserError, match=r"may be read by others \(mode 640\): chmod 600"):
        keys.read_key(tmp_path / "a.key")


def test_flower_reads_the_key_of_a_node(tmp_path: Path) -> None:
    assert polyfed("deploy", "node-key", tmp_path / "node", "--name", "hospital-a").code == 0
    arguments = ["--auth-supernode-private-key", str(tmp_path / "node" / "node.key")]
    read = _try_setup_client_authentication(_parse_args_run_supernode().parse_args(arguments))
    assert read is not None
    assert isinstance(read[0].curve, ec.SECP384R1)
    assert try_load_public_key(tmp_path / "node" / "node.pub") == public_key_to_bytes(read[1])


def test_a_fingerprint_is_that_of_ssh(tmp_path: Path) -> None:
    ended = polyfed("deploy", "node-key", tmp_path / "node", "--name", "hospital a")
    fingerprint, name = keys.read_public_line(tmp_path / "node" / "node.pub")
    assert name == "hospital a"
    assert fingerprint in ended.out
    command = ["ssh-keygen", "-l", "-f", str(tmp_path / "node" / "node.pub")]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    assert said.split()[:2] == ["384", fingerprint]


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    keys.write_key(tmp_path / "node.key", keys.new_key(), ssh=True)
    with pytest.raises(UserError, match=r"never leaves its node: give the \.pub file"):
        keys.read_public_line(tmp_path / "node.key")
    (tmp_path / "other.pub").write_text("ssh-ed25519 AAAA nobody\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds no public key"):
        keys.read_public_line(tmp_path / "other.pub")
