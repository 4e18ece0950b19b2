"""What clients found on their own examples: merged, and client by client."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from flwr.app import Message, RecordDict

from models.task import Metrics, Task, merge_metrics
from strategies.rule import PERSONAL
from strategies.wire.reply import SUMS
from strategies.wire.reply_metrics import drop_partial_metrics, metrics_of

NAMED = 10
"""Clients that a line names."""


def client_metrics(task: Task, contents: Collection[RecordDict]) -> dict[str, float]:
    """Return the metrics over all these clients' examples; those of personal models have their prefix.

    A client is left out of a metric that its examples leave undefined; a metric that no client has is absent.
    """
    metrics: dict[str, float] = {}
    for prefix in ("", PERSONAL):
        parts = [_sums(content, prefix + SUMS) for content in contents if prefix + SUMS in content]
        if parts:
            ratios = task.ratios(merge_metrics(parts))
            metrics |= {prefix + name: value for name, value in ratios.items()}
    return metrics


def metrics_by_client(task: Task, contents: Mapping[int, RecordDict]) -> dict[str, list[float | None]]:
    """Return a column of client numbers, and one a metric, to six digits; None where a client has it not."""
    found = {client: client_metrics(task, [content]) for client, content in contents.items()}
    names = dict.fromkeys(name for metrics in found.values() for name in metrics)
    columns: dict[str, list[float | None]] = {"client": list(found)}
    for name in names:
        values = (metrics.get(name) for metrics in found.values())
        columns[name] = [
            None if value is None or not math.isfinite(value) else float(f"{value:.6g}") for value in values
        ]
    return columns


def as_flower_wants(replies: Sequence[Message], weight_keys: Iterable[str]) -> list[Message]:
    """Return what a strategy may aggregate of the replies to an evaluation.

    Flower wants the same metrics of all clients, and the metric by which the strategy weights training among
    them. What counts here is the number of examples that a client has evaluated on, whatever that metric is
    called; a client without one is left out, and so is a metric that some clients do not have.
    """
    evaluated = [each for each in replies if each.has_error() or each.content.config_records[SUMS]]
    contents = [each.content for each in evaluated if each.has_content()]
    drop_partial_metrics(contents, "num-examples")
    for metrics in map(metrics_of, contents):
        for key in weight_keys:
            if key not in metrics:
                metrics[key] = metrics["num-examples"]
    return evaluated


def undefined(columns: Mapping[str, Sequence[float | None]]) -> dict[str, list[int]]:
    """Return metric -> the clients that have it not, of the columns of `metrics_by_client`."""
    clients = [int(client) for client in columns.get("client", ()) if client is not None]
    return {
        name: [client for client, value in zip(clients, values, strict=True) if value is None]
        for name, values in columns.items()
        if None in values
    }


def named(clients: Sequence[int]) -> str:
    """Return the numbers of clients, of many only the first."""
    first = ", ".join(map(str, clients[:NAMED]))
    return first if len(clients) <= NAMED else f"{first} and {len(clients) - NAMED} more"


def _sums(content: RecordDict, key: str) -> Metrics:
    sums = content.config_records[key]
    return {str(name): (pair[0], pair[1]) for name, pair in sums.items()}  # type: ignore[index,misc]
