"""What clients found on their own examples: merged, and client by client."""

import math
from collections.abc import Collection, Mapping

from flwr.app import RecordDict

from models.task import Metrics, Task, merge_metrics
from strategies.rule import PERSONAL
from strategies.wire.reply import SUMS


def client_metrics(task: Task, contents: Collection[RecordDict]) -> dict[str, float]:
    """Return the metrics over all these clients' examples; those of personal models have their prefix."""
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


def _sums(content: RecordDict, key: str) -> Metrics:
    sums = content.config_records[key]
    return {str(name): (pair[0], pair[1]) for name, pair in sums.items()}  # type: ignore[index,misc]
