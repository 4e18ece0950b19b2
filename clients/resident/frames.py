"""Frames: a length, and as many bytes, over a socket. Records of a message travel one a frame."""

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

from flwr.app import Context, RecordDict
from flwr.common.serde import context_from_proto, context_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Context as ProtoContext
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

LENGTH = struct.Struct("!Q")
LONGEST = 2**31 - 1
"""Bytes of a frame: a protobuf holds no more."""
LONGEST_HEAD = 2**16
"""Bytes of a frame of JSON, which says what comes."""
MOST_RECORDS = 2**20
"""Records of a message."""
PIECE = 2**20
"""Bytes that are read at once: a length is a claim, and memory is for what has come."""


class FrameError(Exception):
    """What came is not what polyfed sends."""


def send(line: socket.socket, frame: bytes) -> None:
    """Send a frame; FrameError for one that is too long."""
    if len(frame) > LONGEST:
        raise FrameError(f"a frame must hold at most {LONGEST} bytes, got {len(frame)}")
    line.sendall(LENGTH.pack(len(frame)))
    line.sendall(frame)


def receive(line: socket.socket, longest: int = LONGEST) -> bytes:
    """Return the next frame; FrameError for one that is too long, EOFError where the other end has closed."""
    (length,) = LENGTH.unpack(_read(line, LENGTH.size))
    if length > longest:
        raise FrameError(f"a frame must hold at most {longest} bytes, and one of {length} is announced")
    return _read(line, length)


def _read(line: socket.socket, length: int) -> bytes:
    content = bytearray()
    while len(content) < length:
        piece = line.recv(min(length - len(content), PIECE))
        if not piece:
            raise EOFError("the other end has closed the connection")
        content += piece
    return bytes(content)


def send_head(line: socket.socket, **said: object) -> None:
    """Send a few words in JSON."""
    send(line, json.dumps(said).encode())


def receive_head(line: socket.socket, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Return the words of `send_head`, which have these names and types; FrameError for any others."""
    frame = receive(line, LONGEST_HEAD)
    try:
        said = json.loads(frame)
    except ValueError as error:
        raise FrameError(f"a frame is no JSON: {error}") from error
    if not isinstance(said, dict) or {name: type(value) for name, value in said.items()} != dict(kinds):
        wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
        raise FrameError(f"a frame must say {wanted}, got {said!r:.200}")
    return said


def send_records(line: socket.socket, records: RecordDict) -> None:
    """Send how many records there are, and each of them."""
    send_head(line, records=len(records))
    for name, record in records.items():
        send(line, recorddict_to_proto(RecordDict({name: record})).SerializeToString())


def receive_records(line: socket.socket) -> RecordDict:
    """Return the records of `send_records`."""
    count = receive_head(line, {"records": int})["records"]
    if not 0 <= count <= MOST_RECORDS:
        raise FrameError(f"a message must have 0 to {MOST_RECORDS} records, got {count}")
    records = RecordDict()
    for _ in range(count):
        for name, record in recorddict_from_proto(ProtoRecordDict.FromString(receive(line))).items():
            records[name] = record
    return records


def send_context(line: socket.socket, context: Context) -> None:
    """Send what Flower tells an app beside a message."""
    send(line, context_to_proto(context).SerializeToString())


def receive_context(line: socket.socket) -> Context:
    """Return the context of `send_context`."""
    return context_from_proto(ProtoContext.FromString(receive(line)))
