"""Keeps what a SuperLink or a SuperNode serves from everybody but its own user and registered nodes.

Flower serves three interfaces on one port. SuperNodes need one of them, and prove who they are. The other two
start runs, which execute code on the server and on every node, and hand out the work of runs; Flower asks
nobody who they are there.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from simulations.deploy.peers import is_own
from simulations.deploy.pushed import PUSH, Receive, is_its_own, replayed, whole_body

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

HEALTH = "/health"
"""Says nothing but that the server is there."""
FOR_NODES = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "confirm-message-received",
        "deactivate-node",
        "get-fab",
        "get-run",
        "pull-messages",
        "pull-object",
        "push-messages",
        "push-object",
        "send-node-heartbeat",
    )
)
"""What a SuperNode with a registered key asks of a SuperLink; each request is signed with that key."""
ACTIVATE = "/v1/fleet/activate-node"
"""What a node asks first. Flower's answer to a key that it does not know is what such a node understands."""
LONGEST_ACTIVATION = 2**16
"""Bytes of what it asks then: a key, and a number."""
READ = (ACTIVATE, PUSH)
"""What is read before Flower does: a stranger may ask the first, and Flower would wait for it without end."""
BODY_WAIT = 60.0
"""Seconds that a node has for that."""
LONGEST = 2**27
"""Bytes of any request of a node: Flower sends arrays in parts of 5 MiB, and JSON is at most 64 MiB."""
PAUSE = 1.0
"""Seconds, at least, between two lines of the log on what was refused."""
UNSIGNED = "Invalid SuperNode authentication"
"""As Flower says it."""
UNFINISHED = f"a request comes whole within {BODY_WAIT:g} s"
NOT_ITS_OWN = "a node answers what it was asked, in its own name"
REFUSAL = "open only to the user who started this server, on its own machine: run the command there"


class Gate:
    """Lets registered nodes ask for `node_paths` alone; everything else is for processes of this user, here.

    Who asks is known before anything of what they send is read.
    """

    def __init__(
        self, app: App, node_paths: frozenset[str], of_node: Callable[[Scope], bool] = lambda _: False
    ) -> None:
        self._app = app
        self._node_paths = node_paths
        self._of_node = of_node
        """Whether a request is of a registered node; may wait for a database."""
        self._said = -PAUSE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or answer it with 403; with 401 where a registered node would be served."""
        if scope["type"] == "lifespan" or await self._admits(scope):
            if scope.get("path") in self._node_paths and _length(scope) > LONGEST:
                await self._refuse(scope, send, 413, f"a node sends at most {LONGEST} bytes at once")
                return
            if scope.get("path") in READ:
                body = await whole_body(receive, BODY_WAIT)
                if body is None:
                    await self._refuse(scope, send, 408, UNFINISHED)
                    return
                if scope["path"] == PUSH and not await asyncio.to_thread(is_its_own, body):
                    await self._refuse(scope, send, 403, NOT_ITS_OWN)
                    return
                receive = replayed(body, receive)
            await self._app(scope, receive, send)
        elif scope.get("path") in self._node_paths:
            await self._refuse(scope, send, 401, UNSIGNED)
        else:
            await self._refuse(scope, send, 403, REFUSAL)

    async def _refuse(self, scope: Scope, send: Send, status: int, detail: str) -> None:
        """Say why a request is not served, to whoever asks and in the log."""
        if time.monotonic() - self._said >= PAUSE:
            self._said = time.monotonic()
            log.warning("refused %.100r to %s", scope.get("path"), scope.get("client"))
        if scope["type"] == "http":
            body = json.dumps({"detail": detail}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _admits(self, scope: Scope) -> bool:
        if scope["type"] == "http":
            path = scope["path"]
            if path == HEALTH:
                return True
            if path in self._node_paths:
                if path == ACTIVATE and _length(scope) <= LONGEST_ACTIVATION:
                    return True
                if await asyncio.to_thread(self._of_node, scope):
                    return True
        client, server = scope.get("client"), scope.get("server")
        return client is not None and server is not None and is_own(tuple(client), tuple(server))


def _length(scope: Scope) -> float:
    """Return how long a request's body is, which the server sees to; without end where it does not say it."""
    lengths = [value for name, value in scope.get("headers", ()) if name == b"content-length"]
    return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else float("inf")
