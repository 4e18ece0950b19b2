import shlex
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest
from command_line import polyfed
from flwr.cli.flower_config import parse_superlink_connection
from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink

from models.core.errors import UserError
from simulations.deploy import addresses, server
from simulations.deploy.folder import Folder
from simulations.deploy.program import Program


def test_flower_takes_the_command(tmp_path: Path) -> None:
    folder = Folder.made(tmp_path / "server")
    program = server.superlink(folder, "0.0.0.0", 8000, "")
    assert program.arguments[1:4] == ("-m", "simulations.deploy.gated", "flower-superlink")
    read = _parse_args_run_superlink().parse_args(program.arguments[4:])
    assert (read.host, read.port, read.insecure, read.enable_supernode_auth) == ("0.0.0.0", 8000, False, True)
    assert (read.database, read.runtime_dependency_install) == (str(folder.database), False)
    assert [read.ssl_ca_certfile, read.ssl_certfile, read.ssl_keyfile] == [
        str(folder.path / name) for name in ("ca.crt", "server.crt", "server.key")
    ]


def test_flwr_reads_the_connection(tmp_path: Path) -> None:
    folder = Folder.made(tmp_path / "server")
    server.write_connection(folder, "127.0.0.1:8000")
    config = tomllib.loads((folder.home / "config.toml").read_text(encoding="utf-8"))["superlink"]
    read = parse_superlink_connection(config[config["default"]], "polyfed")
    assert (read.address, read.root_certificates, read.insecure) == ("127.0.0.1:8000", str(folder.ca), False)


def test_a_shell_does_what_is_shown(tmp_path: Path) -> None:
    script = "import os, sys; print(os.getcwd(), os.environ['A_NAME'], sys.argv[1:])"
    program = Program(("python3", "-c", script, "it's", "a b"), {"A_NAME": "x $HOME; y"}, tmp_path)
    ended = subprocess.run(
        ["sh", "-c", program.shown()], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert ended.stdout == f"{tmp_path} x $HOME; y {['it' + chr(39) + 's', 'a b']}\n"
    assert shlex.split(program.shown())[:2] == ["cd", str(tmp_path)]


def test_the_present_path_is_shown_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/a:/b")
    shown = Program(("env",), {"PATH": "/my bin:/a:/b"}, tmp_path).shown()
    assert shown.endswith("""&& PATH='/my bin':"$PATH" env""")


def test_a_port_that_is_taken_is_named_with_its_holder() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"cannot listen on 127\.0\.0\.1:{port} \(.*\): process \d+ \(.+\) listens"
        ):
            addresses.check_free("127.0.0.1", port)
    addresses.check_free("127.0.0.1", port)


def test_an_address_that_is_not_this_machines() -> None:
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1:8000"):
        addresses.check_free("192.0.2.1", 8000)


def test_addresses() -> None:
    assert addresses.parse("fed.example.org:8000") == ("fed.example.org", 8000)
    assert addresses.parse("[2001:db8::1]:80") == ("2001:db8::1", 80)
    assert addresses.joined("2001:db8::1", 80) == "[2001:db8::1]:80"
    assert [addresses.reached(host) for host in ("0.0.0.0", "::", "10.0.0.1")] == [
        "127.0.0.1",
        "::1",
        "10.0.0.1",
    ]
    for wrong in ("fed.example.org", ":8000", "https://fed.example.org:8000", "a:b", "a:0", "a:65536"):
        with pytest.raises(UserError, match="an address is HOST:PORT"):
            addresses.parse(wrong)


def test_a_server_without_a_certificate_says_how_one_is_made(tmp_path: Path) -> None:
    ended = polyfed("deploy", "server", tmp_path / "server")
    assert ended.code == 2
    assert "server.crt is not there: polyfed deploy cert CA" in ended.err
