"""What strangers reach of a SuperLink and of a SuperNode."""

import asyncio
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from flwr.common.constant import SUPERLINK_NODE_ID, TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Metadata
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from simulations.deploy import gate, gated, peers, punctual
from simulations.deploy.gate import FOR_NODES, Gate
from simulations.deploy.pushed import PUSH
from simulations.runtime import superlink

HERE, SERVER = ("127.0.0.1", 40000), ("127.0.0.1", 8000)
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(local: str, remote: str, user: int, state: str = "01") -> str:
    return (
        f"   7: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 {user:5d}        0 13447 1\n"
    )


def tables(tmp_path: Path, four: str = "", six: str = "") -> tuple[Path, ...]:
    paths = (tmp_path / "tcp", tmp_path / "tcp6")
    for path, rows in zip(paths, (four, six), strict=True):
        path.write_text(HEAD + rows, encoding="ascii")
    return paths


def test_the_user_of_a_socket_is_read_from_its_own_row(tmp_path: Path) -> None:
    server_side = row("0100007F:1F40", "0100007F:9C40", 33)
    client_side = row("0100007F:9C40", "0100007F:1F40", 1001)
    assert peers.user_of(HERE, SERVER, tables(tmp_path, server_side + client_side)) == 1001
    assert peers.user_of(HERE, SERVER, tables(tmp_path, server_side)) is None, (
        "the server's side is no client"
    )
    assert peers.user_of(("127.0.0.1", 40001), SERVER, tables(tmp_path, client_side)) is None


def test_a_socket_without_an_owner_is_nobodys(tmp_path: Path) -> None:
    """Linux shows user 0 for a socket that waits for its end: its owner may have been anybody."""
    for state in ("04", "05", "06"):
        rows = row("0100007F:9C40", "0100007F:1F40", 0, state)
        assert peers.user_of(HERE, SERVER, tables(tmp_path, rows)) is None


def test_addresses_of_ipv6_and_mapped_ones(tmp_path: Path) -> None:
    one = "00000000000000000000000001000000"
    rows = row(f"{one}:9C40", f"{one}:1F40", 5)
    assert peers.user_of(("::1", 40000), ("::1", 8000), tables(tmp_path, six=rows)) == 5
    mapped = "0000000000000000FFFF00000100007F"
    rows = row(f"{mapped}:9C40", f"{mapped}:1F40", 6)
    assert peers.user_of(HERE, SERVER, tables(tmp_path, six=rows)) == 6
    four = row("0100007F:9C40", "0100007F:1F40", 7)
    assert peers.user_of(("::ffff:127.0.0.1", 40000), ("::ffff:127.0.0.1", 8000), tables(tmp_path, four)) == 7


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_real_connection_of_this_process_is_its_own(family: int, host: str) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip("no IPv6 here")
        listener.listen()
        address = listener.getsockname()[:2]
        with socket.create_connection(address) as client:
            peer = client.getsockname()[:2]
            assert peers.user_of(peer, address) == os.geteuid()
            assert peers.is_own(peer, address)
        assert not peers.is_own(peer, address), "the client is gone"


def test_root_is_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forwarder that runs as root hands on requests of others."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for user, own in ((0, False), (1001, False), (1000, True), (None, False)):
        monkeypatch.setattr(peers, "user_of", lambda *_, user=user: user)
        assert peers.is_own(HERE, SERVER) is own


def test_where_the_system_hides_its_sockets_the_loopback_is_let_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peers, "TABLES", (tmp_path / "tcp", tmp_path / "tcp6"))
    assert peers.is_own(HERE, SERVER)
    assert not peers.is_own(("192.0.2.7", 40000), SERVER)


def ask(
    app: Any, path: str, kind: str = "http", *, body: tuple[bytes, ...] = (), **headers: str
) -> list[dict[str, Any]]:
    """Return what an application answers to a request of a client that nobody here knows."""
    parts = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    parts.append({"type": "http.request", "body": b""})
    headers = {"content_length": str(sum(map(len, body))), **headers}

    async def receive() -> dict[str, Any]:
        return parts.pop(0)

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": kind,
        "path": path,
        "client": ("192.0.2.7", 40000),
        "server": ("192.0.2.1", 8000),
    }
    scope["headers"] = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(app(scope, receive, send))
    return sent


async def answers(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


@pytest.mark.parametrize("path", ["/health", "/v1/fleet/pull-messages", "/v1/fleet/activate-node"])
def test_nodes_reach_what_they_need(path: str) -> None:
    assert ask(Gate(answers, FOR_NODES, lambda _: True), path)[0]["status"] == 200


@pytest.mark.parametrize("path", sorted(FOR_NODES))
def test_strangers_send_nothing_to_where_nodes_do(path: str) -> None:
    """Flower would read all that they send, and look who they are then."""
    start, body = ask(Gate(answers, FOR_NODES), path, content_length="not told")
    assert (start["status"], json.loads(body["body"])["detail"]) == (401, "Invalid SuperNode authentication")


def test_a_key_that_is_not_registered_gets_flowers_answer() -> None:
    """A node tries again by what Flower says of it."""
    app = Gate(answers, FOR_NODES)
    for length, status in (("65536", 200), ("65537", 401), ("-1", 401), ("x", 401)):
        assert ask(app, "/v1/fleet/activate-node", content_length=length)[0]["status"] == status
        assert ask(app, "/v1/fleet/push-object", content_length=length)[0]["status"] == 401


def pushed(**changes: Any) -> bytes:
    """Return what node 7 pushes: its answer to what it was asked, but for the changes."""
    said = {"src_node_id": 7, "dst_node_id": SUPERLINK_NODE_ID, "reply_to_message_id": "ab", **changes}
    message = PushMessagesRequest(node=Node(node_id=7))
    message.messages_list.add().metadata.CopyFrom(Metadata(**said))
    return message.SerializeToString()


def test_a_node_answers_in_its_own_name_and_asks_nothing() -> None:
    """Flower would store the answer of another node, and hand on what the server has never asked."""
    heard = []

    async def hears(scope: Any, receive: Any, send: Any) -> None:
        heard.append((await receive())["body"])
        await answers(scope, receive, send)

    app = Gate(hears, FOR_NODES, lambda _: True)
    own = pushed()
    assert ask(app, PUSH, body=(own[:9], own[9:]))[0]["status"] == 200
    assert heard == [own]
    foreign = pushed(src_node_id=8)
    instruction = pushed(src_node_id=SUPERLINK_NODE_ID, dst_node_id=8, reply_to_message_id="")
    both = own + PushMessagesRequest.FromString(foreign).SerializeToString()  # read as one message of two
    for wrong in (
        foreign,
        instruction,
        pushed(dst_node_id=8),
        pushed(reply_to_message_id=""),
        both,
        b"",
        b"\xff",
    ):
        start, body = ask(app, PUSH, body=(wrong,))
        assert (start["status"], json.loads(body["body"])["detail"]) == (403, gate.NOT_ITS_OWN)
    assert heard == [own]


def test_a_node_sends_no_more_at_once_than_one_may() -> None:
    app = Gate(answers, FOR_NODES, lambda _: True)
    for length, status in ((str(gate.LONGEST), 200), (str(gate.LONGEST + 1), 413), ("x", 413)):
        assert ask(app, "/v1/fleet/push-object", content_length=length)[0]["status"] == status


def test_what_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger may ask to be let in, and could otherwise hold a connection for ever."""
    monkeypatch.setattr(gate, "BODY_WAIT", 0.05)
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def never() -> Any:
        await asyncio.sleep(60)

    scope = {"type": "http", "path": gate.ACTIVATE, "client": ("192.0.2.7", 1), "server": ("192.0.2.1", 8000)}
    asyncio.run(Gate(answers, FOR_NODES)(scope | {"headers": [(b"content-length", b"9")]}, never, send))
    assert sent[0]["status"] == 408


def test_a_connection_on_which_nothing_is_asked_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punctual, "WAIT", 0.2)
    monkeypatch.setattr(uvicorn.Config, "__init__", uvicorn.Config.__init__)
    gated.gate_servers(FOR_NODES)

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        await answers(scope, receive, send)
        await send({"type": "http.response.body", "body": b""})

    server = uvicorn.Server(uvicorn.Config(whole, host="127.0.0.1", port=0, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        address = server.servers[0].sockets[0].getsockname()
        for said in (b"", b"GET /health HTTP/1.1\r\nHost: x\r\n"):  # no request, and one without an end
            with socket.create_connection(address, timeout=10) as client:
                client.sendall(said)
                assert client.recv(1) == b""
        assert httpx.get(f"http://127.0.0.1:{address[1]}/health").status_code == 200
    finally:
        server.should_exit = True
        thread.join()


def test_a_node_is_known_by_the_headers_that_flowers_own_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = generate_key_pairs()
    key = public_key_to_bytes(public)
    request = httpx.Request("POST", "https://x")
    context = SimpleNamespace(request=request)
    NodeAuthHttpInterceptor(private, public).intercept(context, lambda _: httpx.Response(200))  # type: ignore[arg-type]
    headers = {name.replace("-", "_"): value for name, value in request.headers.items()}

    monkeypatch.setattr(uvicorn.Config, "__init__", uvicorn.Config.__init__)
    gated.gate_servers(FOR_NODES)

    class Superlink:
        state = SimpleNamespace(
            linkstate_factory=SimpleNamespace(
                state=lambda: SimpleNamespace(get_node_id_by_public_key={key: 7}.get)
            )
        )
        __call__ = staticmethod(answers)

    app = uvicorn.Config(Superlink(), host="127.0.0.1", port=1).app
    path = "/v1/fleet/push-object"
    assert ask(app, path, **headers)[0]["status"] == 200
    assert ask(app, "/v1/control/start-run", **headers)[0]["status"] == 403
    signature = FLEET_HTTP_SIGNATURE_HEADER.replace("-", "_")
    time = TIMESTAMP_HEADER.replace("-", "_")
    for changed in (
        {signature: headers[signature][::-1]},
        {signature: "AAAA"},
        {time: "2020-01-01T00:00:00+00:00"},
        {time: "now"},
        {"flwr_public_key": "AAAA"},
    ):
        assert ask(app, path, **{**headers, **changed})[0]["status"] == 401
    Superlink.state.linkstate_factory.state = lambda: SimpleNamespace(
        get_node_id_by_public_key=lambda _: None
    )
    assert ask(app, path, **headers)[0]["status"] == 401


def test_refusals_are_logged_once_a_second_and_as_text(caplog: pytest.LogCaptureFixture) -> None:
    app = Gate(answers, FOR_NODES)
    for _ in range(5):
        ask(app, "/x\n" + "y" * 1000)
    (record,) = caplog.records
    assert record.getMessage().startswith("refused '/x\\nyyy")
    assert len(record.getMessage()) < 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/pull-messages/",
        "//v1/control/start-run",
        "/V1/FLEET/PULL-MESSAGES",
        "/docs",
        "/openapi.json",
        "",
    ],
)
def test_strangers_reach_nothing_else(path: str) -> None:
    start, body = ask(Gate(answers, FOR_NODES), path)
    assert start["status"] == 403
    assert gate.REFUSAL.encode() in body["body"]


def test_strangers_reach_nothing_of_a_node() -> None:
    assert ask(Gate(answers, frozenset(), lambda _: True), "/v1/fleet/pull-messages")[0]["status"] == 403
    assert ask(Gate(answers, FOR_NODES), "/v1/fleet/pull-messages", "websocket") == [
        {"type": "websocket.close", "code": 1008}
    ]


def test_a_client_without_an_address_is_a_stranger() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(
        Gate(answers, FOR_NODES)(
            {"type": "http", "path": "/docs", "client": None, "server": None}, None, send
        )
    )
    assert sent[0]["status"] == 403


def test_every_server_of_uvicorn_is_behind_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn.Config, "__init__", uvicorn.Config.__init__)
    gated.gate_servers(FOR_NODES)
    config = uvicorn.Config(answers, host="127.0.0.1", port=1)
    assert isinstance(config.app, Gate)
    assert config.proxy_headers is False
    assert ask(config.app, "/v1/control/start-run")[0]["status"] == 403


def test_every_interface_of_flower_is_known() -> None:
    """A new version's further paths for nodes must be let in by name."""
    from flwr.superlink.routers.fleet.router import router

    there = {route.path for route in router.routes}
    assert there - FOR_NODES == {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert there >= FOR_NODES


def test_the_superlink_of_a_run_on_this_machine_is_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(superlink.subprocess, "Popen", lambda command, **_: started.append(command))
    superlink.SuperLink(tmp_path, 1)
    assert started[0][1:4] == ["-m", "simulations.deploy.gated", "flower-superlink"]
