"""A last batch of one example, which BatchNorm1d cannot train on: a stated rule, in both engines."""

import json
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from norms import Norm1d
from torch import nn

from clients.worker import load_worker
from models.core.config import TaskConfig, Value, read
from models.data.dataset import Dataset, Examples
from models.images.cnn import ImageClassification
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


def images(count: int) -> Dataset:
    columns = {
        "image": torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8),
        "label": torch.arange(count) % 2,
    }
    rows = Examples(columns)
    return Dataset("toy", "images", rows, rows, "label", ("even", "odd"), info={"max_value": 255})


def batches(task: ImageClassification, count: int, batch_size: int) -> list[list[int]]:
    """Return the first pixel of each image, batch by batch."""
    rows = images(count).train
    drawn = task.batches(task.build(), rows, torch.Generator().manual_seed(3), batch_size)
    return [batch["image"][:, 0, 0, 0].mul(255).round().int().tolist() for batch in drawn]


def test_a_last_batch_of_one_is_joined_to_the_one_before() -> None:
    plain, normed = ImageClassification(images(7)), Norm1d(images(7))
    assert [len(batch) for batch in batches(plain, 7, 3)] == [3, 3, 1]
    assert [len(batch) for batch in batches(normed, 7, 3)] == [3, 4]
    # In the same order, and with all other remainders nothing changes.
    assert list(chain(*batches(plain, 7, 3))) == list(chain(*batches(normed, 7, 3)))
    for count in (6, 8):
        assert batches(plain, count, 3) == batches(normed, count, 3)


def test_other_norms_train_on_one() -> None:
    for norm in ("batch", "group"):
        task = ImageClassification(images(7), norm=norm)
        assert [len(batch) for batch in batches(task, 7, 3)] == [3, 3, 1]


@pytest.mark.parametrize(("count", "batch_size"), [(1, 3), (4, 1)])
def test_one_example_alone_says_why_it_cannot_be(count: int, batch_size: int) -> None:
    line = (
        "the model has a BatchNorm, which cannot train on one example alone (the client has "
        f"{count}, batch-size is {batch_size}): use more, or a LayerNorm or GroupNorm"
    )
    with pytest.raises(ValueError, match=re.escape(line)):
        batches(Norm1d(images(count)), count, batch_size)


class OverSequences(Norm1d):
    """Says that its norm has more than one value of an example."""

    def trains_on_one(self, model: nn.Module) -> bool:
        return True


def test_a_task_may_say_otherwise() -> None:
    assert [len(batch) for batch in batches(OverSequences(images(7)), 7, 3)] == [3, 3, 1]


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_every_client_trains_whatever_remains_of_its_examples(tiny: Make, engine: str) -> None:
    config = tiny(
        task="norms:Norm1d",
        partitioner="iid",
        num_clients=10,
        batch_size=11,
        engine=engine,
        evaluate_every=0,
        validation_fraction=0.0,
    )
    worker = load_worker(read(TaskConfig, config), "")
    remainders = [len(worker.examples(client)[0]) % 11 for client in range(10)]
    assert 1 in remainders
    run_in_process(config)
    lines = (Path(str(config["run-dir"])) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert [(row["clients"], row["failures"]) for row in rows] == [(list(range(10)), [])] * 2
