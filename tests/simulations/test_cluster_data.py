"""A dataset on its way to the nodes of a Ray cluster, and on them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch

from models.core.config import TaskConfig, read
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.dataset_file import dataset_of
from models.data.datasets import load_dataset
from simulations.runtime import ray_cluster
from simulations.runtime.cluster_worker import ClusterWorker
from simulations.runtime.ray_cluster import arrays_to_send
from simulations.scenario import load_scenario
from strategies.wire.reply import NodeReply


def toy(column: torch.Tensor, **info: Any) -> Dataset:
    """Return a dataset of three examples, of two natural clients, with an empty column."""
    train = Examples({"x": column, "nothing": torch.zeros(3, 0)})
    return Dataset("toy", "toys", train, train.take([0]), client=np.array([0, 1, 1]), info=info)


def test_a_dataset_comes_as_it_was_sent() -> None:
    sent = toy(torch.arange(6.0).reshape(3, 2).T[:, :3].T, said="text", shape=(1, "x"), none=None)
    came = dataset_of({name: torch.from_numpy(array) for name, array in arrays_to_send(sent, "toy").items()})
    assert torch.equal(came.train["x"], sent.train["x"])
    assert came.train["nothing"].shape == (3, 0)
    assert came.client is not None
    assert came.client.tolist() == [0, 1, 1]
    assert came.info == sent.info


def test_what_is_not_to_be_sent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"'toy' cannot be sent to nodes .*BFloat16"):
        arrays_to_send(toy(torch.zeros(3, dtype=torch.bfloat16)), "toy")
    with pytest.raises(UserError, match=r"'toy' cannot be sent to nodes .info holds a object"):
        arrays_to_send(toy(torch.zeros(3), thing=object()), "toy")
    arrays_to_send(toy(torch.zeros(3, 64)), "toy")
    monkeypatch.setattr(ray_cluster, "MOST_BYTES", 1023)  # it has 4 rows of 256 bytes
    with pytest.raises(UserError, match=r"'toy' has 0\.0 GiB, and at most"):
        arrays_to_send(toy(torch.zeros(3, 64)), "toy")


def test_a_task_that_writes_to_what_workers_share_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In shared memory the write would reach the others' clients, at whatever moment it comes."""
    run_config = load_scenario("cnn-digits", [])
    config = read(TaskConfig, run_config)
    monkeypatch.setattr(ray, "get", lambda sent: sent)
    worker = ClusterWorker(run_config, [arrays_to_send(load_dataset(config), "digits")], None)
    work: Any = SimpleNamespace(do=lambda _, reply: reply)
    reply = NodeReply()
    dataset = worker.load(config, "").dataset
    dataset.train.take([0, 1])["image"].zero_()  # a copy, as every batch is
    assert worker.work(work, (0,), reply) is reply
    dataset.train["image"][:1].mul_(1)
    with pytest.raises(UserError, match="written to column 'image' of the dataset"):
        worker.work(work, (0,), reply)
