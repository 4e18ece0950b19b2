"""Whether what a node pushes is its own answer.

Flower looks who pushes a message, and not whom the message says it is from: a registered node could answer in
the name of another, or send another a message of the server's.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PushMessagesRequest
from google.protobuf.message import DecodeError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

PUSH = "/v1/fleet/push-messages"
"""Where a node says which messages it has; their arrays come after that, by their hashes."""
LONGEST = 2**26
"""Bytes of what it says: some hundred for each array of a model."""


async def whole_body(receive: Receive, patience: float) -> bytes | None:
    """Return a request's body; None where it is too long, takes too many seconds, or its client has gone."""
    body = bytearray()
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while True:
                part = await receive()
                body += part.get("body", b"")
                if part["type"] != "http.request" or len(body) > LONGEST:
                    return None
                if not part.get("more_body"):
                    return bytes(body)
    return None


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return what gives an application a body that has been read, and then what else comes."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_part() -> MutableMapping[str, Any]:
        return parts.pop() if parts else await receive()

    return next_part


def is_its_own(body: bytes) -> bool:
    """Whether a node answers what it was asked, to the server, in its own name.

    Flower compares that name with the key by which the request is signed.
    """
    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        return False
    said = [message.metadata for message in request.messages_list]
    return bool(said) and all(
        each.src_node_id == request.node.node_id
        and each.dst_node_id == SUPERLINK_NODE_ID
        and each.reply_to_message_id
        for each in said
    )
