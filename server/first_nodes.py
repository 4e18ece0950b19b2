"""Waiting for nodes at the start of a run."""

import time
from logging import INFO, WARNING
from typing import TYPE_CHECKING

from flwr.serverapp import Grid

from models.core.log import log
from server.errors import RunFailedError
from server.exchange import LONGEST_PAUSE, PART_OF_WAIT, SHORTEST_PAUSE

if TYPE_CHECKING:
    from server.node_registry import NodeRegistry

SAID_EVERY = 10.0
"""Seconds between two lines that say who is waited for."""
SHOWN, MOST = 3, 10
"""Nodes that a line names, and numbers of nodes that it lists."""


def wait_for_nodes(registry: "NodeRegistry", grid: Grid, timeout: float, min_clients: int = 0) -> None:
    """Ask nodes as they appear until all of them have answered, or were refused.

    After `timeout` seconds those that are there must do, where they host `min_clients` (0 = all).
    Raises RunFailedError where they do not, and for a node that cannot take part where that ends the run.
    """
    started, said = time.monotonic(), 0.0
    while True:
        waited = time.monotonic() - started
        registry.update(grid, max(timeout - waited, 0.1))
        enough = len(registry.hosts()) >= max(min_clients, 1)
        if enough and not registry.awaited:
            break
        if waited > timeout:
            if not registry.num_partitions:
                registry.choose(complete=False)
            _check(registry, timeout, min_clients)
            break
        if waited - said > SAID_EVERY:
            # Real nodes are started by people, who look at a terminal; simulated ones come by themselves.
            log(INFO if registry.interchangeable else WARNING, "Waiting for nodes: %s", situation(registry))
            said = waited
        time.sleep(min(max(waited * PART_OF_WAIT, SHORTEST_PAUSE), LONGEST_PAUSE))
    registry.begin(timeout)


def situation(registry: "NodeRegistry") -> str:
    """Return who is there, who is missing, and why as far as it is known."""
    parts = []
    if missing := registry.awaited:
        more = f" and {len(missing) - MOST} more" if len(missing) > MOST else ""
        parts.append(f"partition-ids {missing[:MOST]}{more} are missing")
    elif not registry.accepted and not registry.unanswered and not registry.refusals.now:
        parts.append("none has connected")
    if unanswered := registry.unanswered:
        verb = "have" if len(unanswered) > 1 else "has"
        parts.append(f"{', '.join(unanswered[:SHOWN])} {verb} connected and not answered yet who it is")
    parts += [refusal.line for refusal in list(registry.refusals.now.values())[:SHOWN]]
    return "; ".join(parts)


def _check(registry: "NodeRegistry", timeout: float, min_clients: int) -> None:
    """Raise RunFailedError unless those that are there will do."""
    there = len(registry.hosts())
    least = registry.num_clients if registry.interchangeable or not min_clients else min_clients
    everybody = registry.interchangeable and registry.missing
    if everybody or there < least:
        few = (
            f"; {there} clients are there, and min-clients is {min_clients}" if there and min_clients else ""
        )
        raise RunFailedError(
            f"not all nodes answered within {timeout:g} s: {situation(registry)}{few}; "
            "raise node-timeout or start them"
        )
    log(WARNING, "The run begins without some nodes: %s", situation(registry))
