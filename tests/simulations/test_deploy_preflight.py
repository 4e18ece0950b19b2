"""What a node says of a server before it starts Flower."""

import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models.core.errors import UserError
from simulations.deploy import certificates, keys, preflight

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Serving(http.server.HTTPServer):
    def handle_error(self, *_: object) -> None:  # a handshake that fails is what is asked for
        pass


@contextmanager
def serving(folder: Path, make: Callable[..., bytes] | None = None, **how: object) -> Iterator[str]:
    """Serve HTTPS with a certificate of the CA in `folder`; yield the address."""
    ca_key, key = keys.read_key(folder / "ca.key"), keys.new_key()
    ca = certificates.read(folder / "ca.crt")
    hosts, days, now = how.get("hosts", ["localhost"]), how.get("days", 100), how.get("now")
    certificate = certificates.make_server(key, hosts, ca, ca_key, days, now)  # type: ignore[arg-type]
    certificates.write(folder / "server.crt", certificate)
    (folder / "server.key").unlink(missing_ok=True)
    keys.write_key(folder / "server.key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with Serving(("127.0.0.1", 0), Quiet) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    key = keys.new_key()
    keys.write_key(tmp_path / "ca.key", key)
    certificates.write(tmp_path / "ca.crt", certificates.make_ca(key, 3650))
    return tmp_path


def heard(server: str, ca: Path) -> list[str]:
    lines: list[str] = []
    preflight.check_server(server, ca, lines.append)
    return lines


def test_a_server_of_the_ca(folder: Path) -> None:
    with serving(folder) as server:
        assert heard(server, folder / "ca.crt") == []


def test_a_certificate_that_ends_soon_is_told(folder: Path) -> None:
    with serving(folder, days=12) as server:
        assert heard(server, folder / "ca.crt") == [f"the certificate of {server} expires in 11 days"]


def test_an_expired_certificate(folder: Path) -> None:
    with (
        serving(folder, now=datetime.now(UTC) - timedelta(days=101)) as server,
        pytest.raises(UserError, match=rf"{server} is not trusted: its certificate has expired"),
    ):
        heard(server, folder / "ca.crt")


def test_a_certificate_of_a_foreign_ca(folder: Path, tmp_path: Path) -> None:
    certificates.write(tmp_path / "other.crt", certificates.make_ca(keys.new_key(), 3650))
    with (
        serving(folder) as server,
        pytest.raises(UserError, match=rf"{server} is not trusted: .*not signed by the CA of .*other\.crt"),
    ):
        heard(server, tmp_path / "other.crt")


def test_a_certificate_of_another_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "ITSELF", ())
    with (
        serving(folder, hosts=["fed.example.org"]) as server,
        pytest.raises(UserError, match=r"its certificate does not hold for 127\.0\.0\.1"),
    ):
        heard(server, folder / "ca.crt")


def test_the_nodes_own_ca_has_expired(folder: Path) -> None:
    certificates.write(
        folder / "ca.crt", certificates.make_ca(keys.new_key(), 1, datetime.now(UTC) - timedelta(3))
    )
    with pytest.raises(UserError, match=r"the certificate .*ca\.crt expired on"):
        heard("127.0.0.1:1", folder / "ca.crt")


def test_a_server_that_does_not_answer_is_waited_for(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{free.getsockname()[1]}"
    (line,) = heard(server, folder / "ca.crt")
    assert line.startswith(f"{server} does not answer yet")


def test_a_name_that_cannot_be_looked_up_yet_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(number: int) -> None:
        def look_up(*_: object, **__: object) -> None:
            raise socket.gaierror(number, "no answer")

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    fail(socket.EAI_AGAIN)
    assert heard("fed.example.org:8000", folder / "ca.crt") == [
        "fed.example.org cannot be looked up yet (no answer); the node waits for it"
    ]
    fail(socket.EAI_NONAME)
    with pytest.raises(UserError, match=r"fed\.example\.org is not known here"):
        heard("fed.example.org:8000", folder / "ca.crt")


def test_a_server_without_tls(folder: Path) -> None:
    with Serving(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(UserError, match="does not speak TLS"):
            heard(f"127.0.0.1:{server.server_address[1]}", folder / "ca.crt")
        thread.join()


def test_clocks() -> None:
    date = "Thu, 26 Nov 2026 12:00:00 GMT"
    for ahead in (-300, 0, 6):
        preflight.check_clock(date, NOW + timedelta(seconds=ahead))
    preflight.check_clock(None, NOW)
    with pytest.raises(UserError, match="this machine's clock is 7 s ahead of the server's"):
        preflight.check_clock(date, NOW + timedelta(seconds=7))
    with pytest.raises(UserError, match="this machine's clock is 301 s behind the server's"):
        preflight.check_clock(date, NOW - timedelta(seconds=301))


def test_flower_allows_what_is_said_of_clocks() -> None:
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert (preflight.AHEAD, preflight.BEHIND) == (SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE)
