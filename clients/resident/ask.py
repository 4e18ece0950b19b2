"""The ClientApp's half: it hands a message to the node's resident worker, and says where it cannot."""

import os
import socket
from logging import INFO, WARNING

from flwr.app import Context, RecordDict
from flwr.common.logger import log

from clients.node_config import NodeConfig
from clients.resident import frames
from clients.resident.place import Place
from clients.resident.start import APP, start
from models.core.errors import UserError
from models.core.tracebacks import line_of

PATIENCE = 60.0
"""Seconds that a worker has to take a message: one that hangs would take every later one with it."""


def ask(content: RecordDict, message_type: str, context: Context) -> RecordDict | None:
    """Return the worker's answer; None where the node wants no worker, or none has answered.

    What the app keeps in the context's state comes back with it.
    """
    try:
        node = NodeConfig.from_flower(context.node_config)
    except UserError:  # who answers without a worker reports it
        return None
    if not node.resident:
        return None
    try:
        with _line_to_worker(os.getppid(), context.run_id, node.resident_idle) as line:
            frames.send_head(line, type=message_type)
            frames.send_context(line, context)
            frames.send_records(line, content)
            answer = frames.receive_records(line)
            context.state = frames.receive_records(line)
            return answer
    except Exception as error:  # whatever befalls it: the message can be answered without it
        log(WARNING, "No resident worker (%s): this process does the work itself", line_of(error))
        return None


def _line_to_worker(owner: int, run_id: int, idle: float) -> socket.socket:
    """Return a connection to a worker that serves this run, which is started where there is none."""
    place = Place.of(owner)
    tried = place.inode
    line = place.connect()
    if line and _serves(line, run_id):
        return line
    with place.locked():
        # Another ClientApp may have been here first. Behind the one that was tried nobody serves this run.
        line = place.connect() if place.inode != tried else None
        if line is None:
            start(place, owner, idle)
            line = place.connect()
    if line is None or not _serves(line, run_id):
        raise ConnectionError(f"it has ended, or not taken the message within {PATIENCE:g} s")
    return line


def _serves(line: socket.socket, run_id: int) -> bool:
    """Return whether the worker takes this run's message; it ends where it may not. Closes the line then.

    A worker that has a message takes this one after it, if that is soon.
    """
    line.settimeout(PATIENCE)
    try:
        frames.send_head(line, app=str(APP), run=run_id)
        if frames.receive_head(line, {"serves": bool})["serves"]:
            line.settimeout(None)  # the work takes what it takes
            return True
        log(INFO, "A new resident worker is started, as the code has changed")
    except TimeoutError:
        log(WARNING, "The resident worker has not taken a message within %g s: another is started", PATIENCE)
    except (OSError, EOFError, frames.FrameError):  # it was ended a moment ago, or is another version's
        pass
    except BaseException:
        line.close()
        raise
    line.close()
    return False
