"""Run folders as the ServerApp writes them, with made-up numbers."""

import json
from pathlib import Path
from typing import Any

import tomli_w

CONFIG = {
    "task": "cnn",
    "dataset": "mnist-5k",
    "num-clients": 20,
    "strategy": "FedAvg",
    "strategy-options": "",
    "learning-rate": 0.05,
    "num-server-rounds": 3,
    "download": False,
    "run-dir": "",
}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><circle id="a" cx="5" cy="5" r="4"/></svg>'


def metrics_line(server_round: int, **changes: Any) -> dict[str, Any]:
    """Round 2 has accuracy 0.9312, loss 0.5; each round trains for 1.5 of its 2.25 s.

    Its messages hold 2 and 4 MB, its clients receive 6 MB and send 3.
    """
    central = {"accuracy": 0.8912 + 0.02 * server_round, "loss": 1 / server_round if server_round else 2.5}
    if server_round == 0:
        return {"server_round": 0, "central": central, "seconds": {"evaluation": 0.5}} | changes
    return {
        "server_round": server_round,
        "train": {"loss": 2 / server_round, "num-examples": 2000},
        "evaluate": {"accuracy": 0.75},
        "central": central,
        "clients": [3, 5, 9],
        "failures": [],
        "seconds": {"sampling": 0.25, "training": 1.5, "evaluation": 0.25, "total": 2.25},
        "bytes": {"down": 2_000_000, "up": 4_000_000, "clients_down": 6_000_000, "clients_up": 3_000_000},
    } | changes


RESULT = {
    "status": "completed",
    "reason": "",
    "server_round": 3,
    "metric": "accuracy",
    "maximize": True,
    "best_round": 2,
    "best": {"accuracy": 0.9876},
    "final": {"accuracy": 0.9512, "loss": 0.3333},
    "weights_sha256": "0123456789abcdef" * 4,
    "num_parameters": 421_642,
    "seconds": 61.2,
    "versions": {"polyfed": "0.1.0", "torch": "2.9.1"},
}


def write_run(
    path: Path,
    config: dict[str, Any] | None = None,
    rounds: list[dict[str, Any]] | None = None,
    result: dict[str, Any] | None = None,
    partition: dict[str, Any] | None = None,
    figures: dict[str, str] | None = None,
) -> Path:
    """Write a run of three rounds; `config` adds to CONFIG, `result` to RESULT ({} for none)."""
    path.mkdir(parents=True)
    (path / "config.toml").write_text(tomli_w.dumps(CONFIG | (config or {})), encoding="utf-8")
    lines = [metrics_line(number) for number in range(4)] if rounds is None else rounds
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if result != {}:
        (path / "result.json").write_text(json.dumps(RESULT | (result or {})), encoding="utf-8")
    if partition is not None:
        (path / "partition.json").write_text(json.dumps(partition), encoding="utf-8")
    for name, svg in (figures or {}).items():
        (path / "figures").mkdir(exist_ok=True)
        (path / "figures" / f"{name}.svg").write_text(svg, encoding="utf-8")
    return path
