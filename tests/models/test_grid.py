"""The picture of many small pictures."""

import pytest
import torch
from torchvision.utils import make_grid

from models.images.grid import GREY, in_rows


@pytest.mark.parametrize(("number", "columns"), [(6, 3), (5, 3), (2, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_torchvisions_grid(number: int, columns: int, channels: int) -> None:
    images = torch.rand(number, channels, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(in_rows(images, columns), make_grid(images, columns, padding=1, pad_value=GREY))
