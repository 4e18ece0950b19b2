"""A dataset on its way to the nodes of a Ray cluster."""

from typing import Any

import numpy as np
import pytest
import torch

from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.dataset_file import dataset_of
from simulations.runtime import ray_cluster
from simulations.runtime.ray_cluster import arrays_to_send


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
