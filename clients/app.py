"""The Flower ClientApp: one message carries the requests of all clients that live on this node.

It imports no torch. On real machines Flower starts a process for each message, and that process may hand the
message to one that is warm: see clients/resident.
"""

import time

from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

from clients.node_config import RESIDENT

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Tell the server which clients live here, and what task and data they have, or why they cannot be."""
    return _answered(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train every client that the message names."""
    return _answered(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate every client that the message names."""
    return _answered(message, context)


def _answered(message: Message, context: Context) -> Message:
    """Return the answer of the node's resident worker, or else of this process."""
    content, spent = None, 0.0
    if RESIDENT in context.node_config:
        from clients.resident.ask import ask

        started = time.monotonic()
        content = ask(message.content, message.metadata.message_type, context)
        spent = time.monotonic() - started
    if content is None and message.metadata.message_type.partition(".")[0] == MessageType.QUERY:
        from clients.secure_stages import answer_stage, is_secure  # without torch

        content = answer_stage(message.content, context) if is_secure(message.content) else None
    if content is None:
        from clients.answers import answer  # torch, and the task's libraries: seconds

        content = answer(message.content, message.metadata.message_type, context, spent)
    return Message(content, reply_to=message)
