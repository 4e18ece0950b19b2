"""Where Flower's programs are, and what they find in their environment wherever polyfed starts them."""

import socket
import sys
from pathlib import Path

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""What keeps Flower from talking to other servers, and from installing what an app asks for."""
POLLING = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}
"""Seconds between two looks for work; Flower's own second is spent in every round, on each node."""


def scripts() -> Path:
    """Return the folder of this environment's commands; PATH may name another environment's first."""
    return Path(sys.executable).parent


def free_port() -> int:
    """Return a port of the loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
