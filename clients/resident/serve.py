"""The resident worker's half: it answers one message after the other, as long as there is somebody to answer.

It works as the ClientApp would, in the same folder and environment. A second message waits for the first.
"""

import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from logging import INFO, WARNING
from pathlib import Path
from typing import NoReturn

from flwr.common.logger import log

from clients.resident import frames
from clients.resident.place import Place, same_user
from clients.resident.start import APP
from clients.resident.used_code import UsedCode
from models.core.tracebacks import line_of

PATIENCE = 60.0
"""Seconds that a ClientApp has for each part of what it says."""


def main() -> None:
    """Serve with what `start` gives on the command line."""
    listener, owner, path, inode, idle = sys.argv[1:]
    leave = partial(Place(Path(path)).remove, int(inode))
    watch = _Watch(int(owner), leave)
    try:
        _Worker(socket.socket(fileno=int(listener)), watch, float(idle)).serve()
    except _EndError as error:
        log(INFO, "The resident worker (process %d) ends: %s", os.getpid(), error)
    finally:
        leave()


class _EndError(Exception):
    """Why the worker is to end."""


class _Worker:
    """Answers the messages that come to a socket."""

    def __init__(self, listener: socket.socket, watch: "_Watch", idle: float) -> None:
        self.listener, self.watch, self.idle = listener, watch, idle
        self.code = UsedCode()
        self.run_id = -1

    def serve(self) -> NoReturn:
        """Answer messages until _EndError."""
        import clients.answers  # noqa: F401  (torch, for which no message need wait twice)

        self.code.note()
        log(INFO, "A resident worker has started (process %d), with the code in %s", os.getpid(), APP)
        while True:
            self.listener.settimeout(self.idle)
            try:
                line, _ = self.listener.accept()
            except TimeoutError:
                raise _EndError(f"no message for {self.idle:g} s (resident-idle)") from None
            with line:
                if not same_user(line):
                    log(WARNING, "The resident worker turned away a process of another user")
                    continue
                try:
                    self._answer(line)
                except _EndError:
                    raise
                except Exception as error:  # of this message alone
                    log(WARNING, "The resident worker gave a message up: %s", line_of(error))

    def _answer(self, line: socket.socket) -> None:
        from clients.answers import answer

        line.settimeout(PATIENCE)
        said = frames.receive_head(line, {"app": str, "run": int})
        stale = self._stale(**said)
        frames.send_head(line, serves=not stale)
        if stale:
            raise _EndError(stale)
        message_type = frames.receive_head(line, {"type": str})["type"]
        context = frames.receive_context(line)
        content = frames.receive_records(line)
        with self.watch.over(line):
            found = answer(content, message_type, context)
        self.code.note()
        frames.send_records(line, found)
        frames.send_records(line, context.state)

    def _stale(self, app: str, run: int) -> str:
        """Return why this process may not answer a message; "" where it may.

        Within a run everything stays as it was when the run began. A new run finds nothing of an earlier one,
        neither its data nor code that has changed.
        """
        from clients.answers import forget

        if app != str(APP):
            return f"a run comes with the code in {app}"
        if run != self.run_id:
            if changed := self.code.changed():
                return f"{changed} has changed"
            forget()
            self.run_id = run
        return ""


class _Watch:
    """Ends this process, whatever it is at, once nobody is left who would wait for it."""

    def __init__(self, owner: int, leave: Callable[[], None]) -> None:
        self.owner, self.leave = owner, leave
        self.events = select.epoll()
        self.events.register(owner, select.EPOLLIN)  # a process that has ended can be "read"
        threading.Thread(target=self._wait, name="watch", daemon=True).start()

    @contextmanager
    def over(self, line: socket.socket) -> Iterator[None]:
        """End, too, where the other end of the line is closed meanwhile."""
        self.events.register(line, select.EPOLLRDHUP)
        try:
            yield
        finally:
            self.events.unregister(line)

    def _wait(self) -> None:
        ((ended, _), *_) = self.events.poll()
        who = "its SuperNode" if ended == self.owner else "who waited for its answer"
        try:
            log(INFO, "The resident worker (process %d) ends: %s has ended", os.getpid(), who)
            self.leave()
        finally:
            os._exit(0)  # the main thread may be within a batch; a state is written as a whole or not at all
