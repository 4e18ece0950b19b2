"""Keeps what a SuperLink or a SuperNode serves from everybody but its own user and registered nodes.

Flower serves three interfaces on one port. SuperNodes need one of them, and prove who they are. The other two
start runs, which execute code on the server and on every node, and hand out the work of runs; Flower asks
nobody who they are there.
"""

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from simulations.deploy.peers import is_own

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
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
REFUSAL = "open only to the user who started this server, on its own machine: run the command there"


class Gate:
    """Lets strangers ask for `open_paths` alone; everything else is for processes of this user, here."""

    def __init__(self, app: App, open_paths: frozenset[str]) -> None:
        self._app = app
        self._open = open_paths | {HEALTH}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or answer it with 403."""
        if scope["type"] == "lifespan" or self._admits(scope):
            await self._app(scope, receive, send)
            return
        log.warning("refused %s to %s", scope.get("path"), scope.get("client"))
        if scope["type"] == "http":
            body = json.dumps({"detail": REFUSAL}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _admits(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["path"] in self._open:
            return True
        client, server = scope.get("client"), scope.get("server")
        return client is not None and server is not None and is_own(tuple(client), tuple(server))
