"""A row for each client: what it is called, what it holds, when it trained, and what it found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulations.runs.record import Run
from strategies.rule import PERSONAL

MOST_ROWS = 200
"""Clients that are listed."""
ATTACKER, HONEST = "attacker", "honest"


@dataclass(frozen=True)
class ClientRow:
    """What is known of one client."""

    client: int
    name: str
    """The data's own name of it; "" where it has none."""
    role: str
    """ATTACKER or HONEST; "" in a run without attackers."""
    examples: int | None
    """How many it holds; None where the server does not know."""
    rounds: int
    """In how many rounds it trained."""
    failures: int
    metrics: Mapping[str, float]
    """The run's metric, last found on its own examples, and that of its personal model."""


def client_table(run: Run) -> Sequence[ClientRow]:
    """Return the first clients; [] where nothing is known of any but how often it trained."""
    partition = run.partition
    trained = Counter(client for line in run.rounds for client in line.clients)
    failed = Counter(failure.client for failure in run.failures)
    found = _last_found(run)
    if partition is None and not found:
        return []
    number = partition.num_clients if partition else int(run.config["num-clients"])
    attackers = set(partition.attackers) if partition else set()

    def role(client: int) -> str:
        return "" if not attackers else ATTACKER if client in attackers else HONEST

    return [
        ClientRow(
            client,
            run.label(client) if partition and partition.names else "",
            role(client),
            sum(partition.counts[client]) if partition and client < len(partition.counts) else None,
            trained[client],
            failed[client],
            {name: values[client] for name, values in found.items() if client in values},
        )
        for client in range(min(number, MOST_ROWS))
    ]


def _last_found(run: Run) -> dict[str, dict[int, float]]:
    """Return metric -> client -> the last value that it found, in whatever round it evaluated."""
    found: dict[str, dict[int, float]] = {}
    for line in run.rounds:
        for name, values in line.client_metrics.items():
            if name in (run.metric, PERSONAL + run.metric):
                found.setdefault(name, {}).update(values)
    return found
