"""A main metric that is undefined on the held-out examples: no best model, no early end, and one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from models.core.config import Value
from models.data.dataset import Examples
from models.images.cnn import ImageClassification
from models.task import Metrics
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


class SometimesUndefined(ImageClassification):
    """Has an accuracy in every second evaluation, from the second on; never, with `never`."""

    evaluations = 0

    def __init__(self, dataset: object, never: bool = False) -> None:
        super().__init__(dataset)  # type: ignore[arg-type]
        self.never = never

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        metrics = super().evaluate(model, data, generator)
        self.evaluations += 1
        if self.never or self.evaluations % 2:
            metrics["accuracy"] = (0.0, 0.0)
        return metrics


@pytest.mark.parametrize("never", [False, True])
def test_a_round_without_the_metric_is_neither_better_nor_worse(
    tiny: Make, caplog: pytest.LogCaptureFixture, never: bool
) -> None:
    options = f"never = {str(never).lower()}"
    task = "test_undefined_metric:SometimesUndefined"
    config = tiny(task=task, task_options=options, num_server_rounds=3, patience=1, learning_rate=0.0001)
    run_in_process(config)
    folder = Path(str(config["run-dir"]))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    defined = [] if never else [1, 3]
    assert [row["server_round"] for row in rows if "accuracy" in row["central"]] == defined
    assert all("loss" in row["central"] for row in rows)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["server_round"]) == ("completed", 3)
    assert result["best_round"] in (defined or [0])
    assert ("accuracy" in result["best"]) is not never
    assert (folder / "models" / "best.safetensors").exists() is not never
    said = "Round 0: accuracy is undefined on the validation examples: it is neither better nor worse"
    assert [text for text in caplog.messages if "undefined on the validation" in text] == [said]
