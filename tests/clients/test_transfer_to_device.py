"""How a client's examples get to where it trains, and how a model lies there."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import clients.transfer
from clients.reply import array_of
from clients.transfer import at_hand, makes_batches_anywhere
from models.core.config import TaskConfig, Value, read
from models.core.device import moved, place
from models.core.errors import UserError
from models.data.dataset import Examples
from models.data.datasets import load_dataset
from models.images.cnn import ImageClassification
from models.images.vae import ImageVae
from models.registry import load_task
from models.task import Batch
from simulations.runs.reader import read_run
from simulations.runtime.in_process import run_in_process

CPU = torch.device("cpu")
GPU = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees")
)


class Redrawn(ImageClassification):
    """Has batches of its own, and does not say that they may be of examples on a GPU."""

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        return super().batch(examples, generator)


class Epochs(ImageClassification):
    """The same for whole epochs."""

    def batches(self, *arguments: object) -> Iterator[Batch]:
        raise NotImplementedError


class Silent(ImageClassification):
    """Changes nothing."""


def test_only_a_class_that_says_so_of_its_own_batches_gets_them_on_a_gpu() -> None:
    dataset = load_dataset(TaskConfig(dataset="digits"))
    said = {
        cls.__name__: makes_batches_anywhere(cls(dataset))
        for cls in (ImageClassification, Silent, Redrawn, Epochs)
    }
    assert said == {"ImageClassification": True, "Silent": True, "Redrawn": False, "Epochs": False}
    assert makes_batches_anywhere(ImageVae(dataset))
    assert not makes_batches_anywhere(ImageVae(dataset, likelihood="binarised"))


def test_on_a_cpu_nothing_is_copied() -> None:
    task = load_task(config := TaskConfig(dataset="digits"), dataset := load_dataset(config))
    examples = dataset.train.take(torch.arange(8))
    assert at_hand(task, examples, CPU) is examples
    here = moved(examples.columns, CPU)
    assert all(here[name] is column for name, column in examples.columns.items())


def test_the_bytes_of_examples() -> None:
    examples = Examples({"image": torch.zeros(3, 2, dtype=torch.uint8), "label": torch.zeros(3).long()})
    assert examples.num_bytes == 6 + 24
    assert examples.device == CPU
    assert Examples({}).num_bytes == 0


@pytest.mark.parametrize("task", ["cnn", "contrastive", "gan", "masked-pixels", "vae"])
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_batches_of_moved_examples_have_the_same_rows(task: str, device: str) -> None:
    config = TaskConfig(task=task, dataset="digits")
    dataset = load_dataset(config)
    built = load_task(config, dataset)
    examples, place_ = dataset.train.take(torch.arange(20)), torch.device(device)
    ours, theirs = (
        list(built.batches(nn.Module(), each, torch.Generator().manual_seed(7), 8))
        for each in (examples, examples.to(place_))
    )
    assert [len(batch[next(iter(batch))]) for batch in theirs] == [8, 8, 4]
    for one, other in zip(ours, theirs, strict=True):
        for name, column in one.items():
            # A GPU may round the division by full white in another way.
            assert torch.allclose(column.float(), other[name].float().cpu(), atol=1e-6), name


@pytest.mark.parametrize("device", [GPU])
def test_examples_that_are_too_large_stay(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task(config := TaskConfig(dataset="digits"), dataset := load_dataset(config))
    place_ = torch.device(device)
    assert at_hand(task, dataset.train, place_).device.type == "cuda"
    monkeypatch.setattr(clients.transfer, "LARGEST", dataset.train.num_bytes - 1)
    assert at_hand(task, dataset.train, place_) is dataset.train


def test_channels_last_is_a_layout_of_what_has_four_axes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv3d(3, 8, 3), nn.BatchNorm2d(8))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert place(model, CPU, channels_last=True) is model
    kernel = model[0].weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()
    assert model[1].weight.is_contiguous()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert place(model, CPU)[0].weight is kernel


def test_a_reply_has_its_numbers_in_the_order_of_axes() -> None:
    tensor = torch.arange(24.0).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    array = array_of(tensor)
    assert array.flags.c_contiguous
    assert array.ravel().tolist() == [float(number) for number in range(24)]
    plain = torch.zeros(2)
    array_of(plain)[0] = 5.0  # the same memory, as before
    assert plain[0] == 5.0


def test_channels_last_trains_the_same_up_to_rounding(tiny: Callable[..., dict[str, Value]]) -> None:
    results = {}
    for wanted in (False, True):
        config = tiny(channels_last=wanted, run_dir=f"{tiny()['run-dir']}-{wanted}")
        run_in_process(config)
        run = read_run(Path(str(config["run-dir"])))
        assert run.result is not None
        assert run.config["channels-last"] is wanted
        results[wanted] = run.result.final["loss"]
    assert results[True] == pytest.approx(results[False], rel=1e-3)


def test_channels_last_is_not_for_a_stack() -> None:
    with pytest.raises(UserError, match='channels-last must be false when engine is "stacked", got True'):
        read(TaskConfig, {"channels-last": True, "engine": "stacked"})
