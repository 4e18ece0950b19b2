"""Sends a node messages that no server of polyfed sends, and watches what the node does of them.

A process of its own, as what watches it cannot be taken away again: `hostile_server.py FOLDER NUMBER`
prints as JSON what came of each. FOLDER/home is the node's home, FOLDER/secret what no server may read.
"""

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from hostile_messages import CONFIG, EITHER, FOLDER, HOME, MUTATIONS, SECRET, STATE, Sent

from clients.app import app
from clients.worker import load_worker
from models.core.config import TaskConfig, read
from strategies.wire.identity import let_messages_be_made
from strategies.wire.reply import NodeReply


class Watch:
    """Notes what this process writes, reads of what is secret, starts and imports."""

    WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    STARTS = (
        "subprocess.",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "pty.",
        "socket.",
    )
    CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
    CHANGES = (*CHANGES, "os.chmod", "os.chown", "os.utime", "shutil.", "os.listdir", "os.scandir")

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.on = False
        self.known = {name.partition(".")[0] for name in sys.modules}
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on:
            self.on = False
            try:
                self.noted += self.of(event, arguments)
            finally:
                self.on = True

    def of(self, event: str, arguments: tuple[Any, ...]) -> Iterator[str]:
        """Yield what is worth a note."""
        if event.startswith(self.STARTS) or event in ("webbrowser.open", "urllib.Request"):
            yield f"{event} {arguments}"
        if event == "import" and arguments[0].partition(".")[0] not in self.known:
            yield f"import {arguments[0]}"
        if event == "open" or event.startswith(self.CHANGES):
            path = os.path.abspath(os.fsdecode(arguments[0])) if not isinstance(arguments[0], int) else ""
            reads = event in ("os.listdir", "os.scandir") or (
                event == "open" and not (isinstance(arguments[2], int) and arguments[2] & self.WRITES)
            )
            if path.startswith(str(SECRET)) if reads else path and not path.startswith(f"{STATE}/"):
                yield f"{event} {path}"


def snapshot(folder: Path) -> dict[str, tuple[int, int] | None]:
    """Return every file with its size and time, and every folder."""
    return {
        str(path): None if path.is_dir() else (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def answer(sent: Sent, action: str, server_round: int) -> str:
    """Return why the clients of a message have failed; "" where they have not."""
    node = {"partition-id": 0, "num-partitions": 2, "state-path": str(STATE)}
    context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config=sent.config)
    message = Message(sent.content(server_round), 1, action)
    message.metadata.__dict__["_message_id"] = "1"
    try:
        reply = NodeReply.unpack(app(message, context).content)
    except Exception as error:  # which Flower tells the server
        return f"{type(error).__name__}: {error}"
    assert len(reply.replies) + len(reply.failures) in (1, 2)
    return reply.failures[0].error if reply.failures else ""


def main() -> None:
    """Send them."""
    let_messages_be_made()
    worker = load_worker(read(TaskConfig, CONFIG), "")
    initial = {name: worker.initial[name].numpy() for name in worker.federated.parameters}
    assert answer(Sent(dict(initial)), "train", 1) == ""
    assert answer(Sent(dict(initial)), "evaluate", 1) == ""
    (STATE / "linked-0123abcd").symlink_to(SECRET)
    watch, before = Watch(), snapshot(FOLDER)
    found = []
    for number in range(int(sys.argv[2])):
        draw, sent = random.Random(number), Sent(dict(initial))
        mutate = MUTATIONS[number % len(MUTATIONS)]
        why = mutate(draw, sent)
        watch.noted, watch.on = [], True
        action = draw.choice(["train", "evaluate"]) if mutate in EITHER else "train"
        said = answer(sent, action, 2)
        watch.on = False
        after = snapshot(FOLDER)
        changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
        named = any(word in said for word in why.split("|"))
        found.append(
            {"mutation": f"{number}: {mutate.__name__}", "said": said[:300], "named": named}
            | {"noted": watch.noted[:5], "changed": changed[:5]}
        )
        before = after
    watch.noted, watch.on = [], True
    said = answer(Sent(dict(initial)), "train", 2)
    (HOME / "written").write_text("the watch sees it", encoding="utf-8")
    watch.on = False
    written = sorted(str(Path(path).relative_to(STATE)) for path in snapshot(STATE).keys() - before.keys())
    print(json.dumps({"found": found, "last": said, "written": written, "noted": watch.noted}))


if __name__ == "__main__":
    main()
