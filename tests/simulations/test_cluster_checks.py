"""What is told of a Ray cluster before a run: addresses, versions, a disk that is not shared."""

import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
import torch
from ray.exceptions import GetTimeoutError

from models.core.errors import UserError
from simulations.config import SimulationConfig, resolve
from simulations.doctor.places import ray_address
from simulations.runtime import cluster_checks
from simulations.runtime.cluster_checks import check_address, check_nodes, check_shared, knock, packages_of
from simulations.scenario import defaults


class Answer:
    """A method of an actor, as Ray's handles have it."""

    def __init__(self, answer: Any) -> None:
        self.remote = lambda *asked: answer(*asked) if callable(answer) else answer


class Actor:
    """A worker on a node."""

    def __init__(self, node: str, versions: Mapping[str, str], sees: bool = True) -> None:
        self.node = Answer(node)
        self.versions = Answer(lambda names: {name: versions.get(name, "") for name in names})
        self.sees = Answer(lambda file: sees and Path(file).is_file())


@pytest.fixture(autouse=True)
def answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda answers, timeout=None: answers)


@pytest.mark.parametrize(
    "address",
    ["ray://10.0.0.1:10001", "10.0.0.1", ":6379", "local", "10.0.0.1:port", "10.0.0.1:65536", "10.0.0.1:0"],
)
def test_what_is_no_address_of_a_cluster(address: str) -> None:
    with pytest.raises(UserError, match="ray-address must be"):
        check_address(address)
    (finding,) = ray_address(address)
    assert finding.level == "wrong"


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "auto", "head.example.org:6379", "[::1]:6379"])
def test_what_is_one(address: str) -> None:
    check_address(address)


@contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """Give the address of a server that says the same to everybody; b"" is one that never says a word."""
    server, heard = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()

    def serve() -> None:
        while True:
            try:
                heard.append(server.accept()[0])
            except OSError:  # it is closed
                return
            if answer:
                heard[-1].sendall(answer)
                heard[-1].close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
        for each in heard:
            each.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b""])
def test_what_listens_and_is_no_ray_is_told_at_once(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_checks, "PATIENCE", 0.5)
    with listening(answer) as address, pytest.raises(UserError, match="is no head of a Ray cluster"):
        knock(address)


@pytest.mark.parametrize(
    ("code", "is_ray"), [("UNIMPLEMENTED", False), ("UNAUTHENTICATED", True), ("PERMISSION_DENIED", True)]
)
def test_a_head_that_wants_a_token_is_one(code: str, is_ray: bool) -> None:
    class Refusing(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
        def service(self, _: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(getattr(grpc.StatusCode, code), "")
            )

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Refusing()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with nullcontext() if is_ray else pytest.raises(UserError, match=f"cluster \\({code}\\)"):
            knock(f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()


def test_nodes_have_the_drivers_packages_and_plugins() -> None:
    mine = packages_of(defaults())
    assert mine["torch"] == version("torch")
    assert check_nodes([Actor("a", mine), Actor("b", mine), Actor("a", mine)], defaults(), 1.0) == 2
    with pytest.raises(UserError, match=f"the driver has torch {torch.__version__.partition('+')[0]}"):
        check_nodes([Actor("a", mine), Actor("b", mine | {"torch": "1.0"})], defaults(), 1.0)
    with pytest.raises(UserError, match="a node of the cluster has none"):
        check_nodes([Actor("a", {**mine, "flwr": ""})], defaults(), 1.0)


def test_a_cluster_that_has_no_free_cpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(answers: Any, timeout: float | None = None) -> None:
        raise GetTimeoutError("late")

    monkeypatch.setattr(ray, "get", late)
    with pytest.raises(UserError, match="not all of 1 workers began within 5 s"):
        check_nodes([Actor("a", {})], defaults(), 5.0)


def test_a_run_folder_that_a_node_does_not_see(tmp_path: Path) -> None:
    check_shared([Actor("a", {})], tmp_path / "run")
    with pytest.raises(UserError, match="cluster-states is 'shared', and a node does not see"):
        check_shared([Actor("a", {}), Actor("b", {}, sees=False)], tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_cluster_carries_what_it_has() -> None:
    assert resolve(SimulationConfig(), 48, 0, "the cluster").num_workers == 48
    assert resolve(SimulationConfig(client_gpus=0.25), 48, 4, "the cluster").num_workers == 16
    with pytest.raises(UserError, match="at most 48, the CPUs of the cluster"):
        resolve(SimulationConfig(num_workers=49), 48, 0, "the cluster")
