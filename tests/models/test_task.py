"""What a task has without writing it."""

import pytest
import torch
from test_optimizers import TASK, Shrink
from torch import nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.registry import load_task


def test_an_epoch_is_every_row_once_in_an_order_that_is_drawn() -> None:
    rows = Examples({"x": torch.arange(5.0), "y": torch.arange(5) * 10})
    batches = list(TASK.batches(nn.Module(), rows, torch.Generator().manual_seed(1), batch_size=2))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    assert [len(batch["x"]) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([batch["x"] for batch in batches]), order.float())
    assert torch.equal(torch.cat([batch["y"] for batch in batches]), order * 10)


class Needy(Shrink):
    def __init__(self, dataset: Dataset, size: int) -> None:
        super().__init__(dataset)


def test_a_task_says_which_option_it_needs() -> None:
    with pytest.raises(UserError, match="task test_task:Needy needs the option 'size': set it"):
        load_task(TaskConfig(task="test_task:Needy"), TASK.dataset)


def test_a_model_is_looked_through_where_a_batch_may_be_of_one_alone() -> None:
    rows = Examples({"x": torch.arange(5.0)})
    normed = nn.Sequential(nn.BatchNorm1d(1))
    sizes = {
        batch_size: [
            len(batch["x"])
            for batch in TASK.batches(normed, rows, torch.Generator().manual_seed(1), batch_size)
        ]
        for batch_size in (2, 3, 4, 5)
    }
    assert sizes == {2: [2, 3], 3: [3, 2], 4: [5], 5: [5]}
    with pytest.raises(ValueError, match="cannot train on one example alone"):
        list(TASK.batches(normed, rows, torch.Generator().manual_seed(1), batch_size=1))
