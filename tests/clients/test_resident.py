"""A node's resident worker: who answers a message, when it ends, and what happens without it.

The worker is a real process, of an app whose answers need no torch: tests/support/stub_answers.py.
"""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_answers
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from places import ROOT, SUPPORT

from clients.app import train
from clients.resident import frames
from clients.resident.ask import _serves
from clients.resident.place import Place, same_user
from simulations.runtime.staging import copy_code
from strategies.wire.identity import let_messages_be_made_anywhere


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_records_and_context_arrive_as_they_were_sent(line: tuple[socket.socket, socket.socket]) -> None:
    near, far = line
    arrays = ArrayRecord({"w": Array(np.arange(6, dtype=np.float32).reshape(2, 3))})
    records = RecordDict({"b": arrays, "a": MetricRecord({"loss": 0.1}), "c": ConfigRecord({"x": b"\x00"})})
    context = Context(
        7, 2**63 + 1, {"resident": True}, RecordDict({"s": ConfigRecord({"n": 1})}), {"lr": 0.5}
    )
    frames.send_context(near, context)
    frames.send_records(near, records)
    assert frames.receive_context(far) == context
    arrived = frames.receive_records(far)
    assert arrived == records
    assert list(arrived) == ["b", "a", "c"]
    assert arrived.array_records["b"]["w"].data == arrays["w"].data


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (frames.LENGTH.pack(2**31), "one of 2147483648 is announced"),
        (frames.LENGTH.pack(2) + b"{}", r"must say records \(int\), got \{\}"),
        (frames.LENGTH.pack(16) + b'{"records":true}', "must say records"),
        (frames.LENGTH.pack(2) + b"no", "no JSON"),
        (frames.LENGTH.pack(14) + b'{"records":-1}', "0 to 1048576 records, got -1"),
    ],
)
def test_what_polyfed_does_not_send_is_refused(
    line: tuple[socket.socket, socket.socket], sent: bytes, said: str
) -> None:
    near, far = line
    near.sendall(sent)
    with pytest.raises(frames.FrameError, match=said):
        frames.receive_records(far)


def test_a_frame_that_is_cut_off_is_the_end_and_costs_no_memory(
    line: tuple[socket.socket, socket.socket],
) -> None:
    near, far = line
    near.sendall(frames.LENGTH.pack(frames.LONGEST) + b"abc")
    near.close()
    with pytest.raises(EOFError):
        frames.receive(far)


def test_a_frame_that_is_too_long_is_not_sent(
    line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "LONGEST", 3)
    with pytest.raises(frames.FrameError, match="at most 3 bytes, got 4"):
        frames.send(line[0], b"four")


@pytest.fixture
def runtime_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder for sockets; its path is short, as theirs must be."""
    folder = Path(tempfile.mkdtemp(prefix="polyfed-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_the_socket_is_the_users_alone(runtime_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place.of(os.getpid())
    assert place == Place.of(os.getpid()) != Place.of(1)
    assert place.connect() is None
    with place.locked(), place.listen() as listener:
        assert stat.S_IMODE(place.path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(place.path.stat().st_mode) == 0o600
        line = place.connect()
        assert line
        answered, _ = listener.accept()
        with line, answered:
            assert same_user(line)
            assert same_user(answered)
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
            assert not same_user(answered)
            with pytest.raises(PermissionError, match="belongs to another user"):
                place.connect()
    assert place.connect() is None  # the file is there, and nobody listens


def test_a_folder_that_others_may_enter_is_refused(runtime_folder: Path, tmp_path: Path) -> None:
    (runtime_folder / "polyfed").mkdir(mode=0o755)
    with pytest.raises(PermissionError, match=r"chmod 700.* drwxr-xr-x"):
        Place.of(os.getpid())
    (runtime_folder / "polyfed").rmdir()
    tmp_path.chmod(0o700)
    (runtime_folder / "polyfed").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="chmod 700"):
        Place.of(os.getpid())


@dataclass
class Node:
    """A SuperNode, which this process stands for."""

    use: Callable[[Path], None]
    """Lets messages come with the app in this folder."""
    app: Path
    owner: int = field(default_factory=os.getpid)
    """Process that starts ClientApps."""
    said: list[str] = field(default_factory=list)
    """Lines that ClientApps have written to the log."""
    workers: set[int] = field(default_factory=set)

    def ask(self, run: int = 1, idle: int = 60, *, resident: bool = True, **asked: Any) -> dict[str, Any]:
        """Return who has answered a message."""
        given = {"resident": resident, "resident-idle": idle}
        context = Context(run, 0, given, RecordDict(), {})
        message = Message(RecordDict({"asked": ConfigRecord(asked)}), dst_node_id=0, message_type="train")
        reply = train(message, context)
        who = dict(reply.content.config_records["who"])
        assert context.state.config_records["seen"]["run"] == run
        assert reply.content.config_records["asked"] == asked
        assert who["type"] == "train"
        if who["process"] != os.getpid():
            self.workers.add(int(str(who["process"])))
        return who

    def until_ended(self, worker: int) -> None:
        """Wait until a worker's process has ended, and can no longer be asked."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if os.waitpid(worker, os.WNOHANG) != (0, 0):
                self.workers.discard(worker)
                return
            time.sleep(0.01)
        raise TimeoutError(f"worker {worker} has not ended")


@pytest.fixture
def node(runtime_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    let_messages_be_made_anywhere()

    def use(app: Path) -> None:
        monkeypatch.setattr("clients.resident.start.MAIN", app / "clients" / "resident" / "__main__.py")
        monkeypatch.setattr("clients.resident.ask.APP", app)

    node = Node(use, _app_in(tmp_path / "app"))
    use(node.app)
    monkeypatch.setattr(os, "getppid", lambda: node.owner)
    monkeypatch.setitem(sys.modules, "clients.answers", stub_answers)  # of work without a worker
    monkeypatch.setattr("clients.resident.ask.log", lambda _, line, *given: node.said.append(line % given))
    yield node
    for worker in node.workers.copy():
        os.kill(worker, signal.SIGKILL)
        node.until_ended(worker)


def _app_in(folder: Path) -> Path:
    copy_code(ROOT, ("clients", "models"), folder)
    shutil.copyfile(SUPPORT / "stub_answers.py", folder / "clients" / "answers.py")
    return folder


def test_one_process_answers_message_after_message(node: Node) -> None:
    asked_at_once: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: asked_at_once.append(node.ask(seconds=0.1))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    third = node.ask()
    assert {who["process"] for who in [*asked_at_once, third]} == {third["process"]} != {os.getpid()}
    assert third["spent"] == 0.0
    assert node.said == []


def test_a_worker_that_takes_no_message_is_left_alone(
    line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hang in native code, and would take every later message with it."""
    monkeypatch.setattr("clients.resident.ask.PATIENCE", 0.05)
    near, far = line
    frames.send_head(far, serves=True)
    assert _serves(near, 1)
    assert near.gettimeout() is None
    assert not _serves(near, 1)
    assert near.fileno() == -1


def test_without_a_worker_the_client_app_does_the_work(node: Node, runtime_folder: Path) -> None:
    assert node.ask(resident=False)["process"] == os.getpid()
    assert node.said == []
    (runtime_folder / "polyfed").mkdir(mode=0o755)
    assert node.ask()["process"] == os.getpid()
    (line,) = node.said
    assert line.startswith("No resident worker (PermissionError: ")


def test_a_worker_that_is_killed_is_replaced_and_its_message_answered(node: Node) -> None:
    first = node.ask()["process"]
    os.kill(first, signal.SIGKILL)
    node.until_ended(first)
    second = node.ask()["process"]
    assert second not in (first, os.getpid())
    assert node.said == []

    instead = node.ask(survivor=os.getpid(), seconds=0.2)
    assert instead["process"] == os.getpid()
    assert instead["spent"] >= 0.2  # of the round's time
    assert node.said == [
        "No resident worker (EOFError: the other end has closed the connection): "
        "this process does the work itself"
    ]
    node.until_ended(second)
    assert node.ask()["process"] not in (first, second, os.getpid())


def test_a_run_finds_no_data_and_no_changed_code_of_an_earlier_one(node: Node, tmp_path: Path) -> None:
    first = node.ask(run=1)
    again = node.ask(run=1)
    other = node.ask(run=2)
    assert [who["forgotten"] for who in (first, again, other)] == [1, 1, 2]
    assert first["process"] == again["process"] == other["process"]

    module = node.app / "clients" / "answers.py"
    module.write_text(module.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert node.ask(run=2)["process"] == first["process"]  # not within a run
    changed = node.ask(run=3)["process"]
    assert changed != first["process"]
    node.until_ended(first["process"])

    node.use(_app_in(tmp_path / "next-app"))
    assert node.ask(run=3)["process"] not in (changed, os.getpid())
    node.until_ended(changed)
    assert node.said == ["A new resident worker is started, as the code has changed"] * 2


def test_a_worker_ends_after_a_time_without_messages(node: Node, runtime_folder: Path) -> None:
    node.until_ended(node.ask(idle=1)["process"])
    assert [file.name for file in (runtime_folder / "polyfed").iterdir()] == ["lock"]


def test_a_worker_ends_when_nobody_waits_for_it(node: Node, runtime_folder: Path, tmp_path: Path) -> None:
    """The ClientApp has ended in mid-message, or what starts ClientApps has."""
    worker, begun = node.ask()["process"], tmp_path / "begun"
    line = Place.of(os.getpid()).connect()
    assert line
    with line:
        frames.send_head(line, app=str(node.app), run=1)
        assert frames.receive_head(line, {"serves": bool}) == {"serves": True}
        frames.send_head(line, type="train")
        frames.send_context(line, Context(1, 0, {}, RecordDict(), {}))
        asked = ConfigRecord({"seconds": 60.0, "begun": str(begun)})
        frames.send_records(line, RecordDict({"asked": asked}))
        while not begun.exists():
            time.sleep(0.01)
    node.until_ended(worker)

    with subprocess.Popen(["sleep", "60"]) as owner:
        node.owner = owner.pid
        worker = node.ask()["process"]
        socket_of_worker = Place.of(owner.pid).path
        assert socket_of_worker.exists()
        owner.kill()
    node.until_ended(worker)
    assert not socket_of_worker.exists()
