"""One client, in a federation of one or by itself among others, is a plain PyTorch loop, bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from models.core.config import TaskConfig, Value, read
from models.core.seeds import generator_for, seed_torch
from models.data.dataset import Examples
from models.data.datasets import load_dataset
from models.data.partition import make_partition
from models.images.networks import ConvNet
from simulations.runs.reader import read_run
from simulations.runtime.in_process import run_in_process

pytestmark = pytest.mark.rounding

ROUNDS, EPOCHS, BATCH = 3, 2, 32


def plain_pytorch(keep_optimizer: bool, train: Examples, client: int = 0) -> dict[str, torch.Tensor]:
    """Train for the same rounds, epochs and shuffles, without anything of the federation."""
    rows = torch.arange(len(train))
    seed_torch(torch.device("cpu"), 42, "build")
    model = ConvNet(1, 8, 8, 10, "none")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for server_round in range(1, ROUNDS + 1):
        if not keep_optimizer:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        generator = generator_for(42, "train", server_round, client)
        for _ in range(EPOCHS):
            for chosen in rows[torch.randperm(len(rows), generator=generator)].split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(model(train["image"][chosen].float() / 16), train["label"][chosen]).backward()
                optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("keep_optimizer", [pytest.param(False, marks=pytest.mark.slow), True])
def test_one_client_equals_plain_pytorch(
    tiny: Callable[..., dict[str, Value]], keep_optimizer: bool, one_thread: None
) -> None:
    config = tiny(
        num_clients=1,
        partitioner="iid",
        num_server_rounds=ROUNDS,
        local_epochs=EPOCHS,
        batch_size=BATCH,
        keep_optimizer=keep_optimizer,
    )
    run_in_process(config)
    train = load_dataset(TaskConfig(dataset="digits")).train
    assert_equal(config, plain_pytorch(keep_optimizer, train))


@pytest.mark.parametrize("num_nodes", [1, 3])
def test_a_client_by_itself_equals_plain_pytorch(
    tiny: Callable[..., dict[str, Value]], num_nodes: int, one_thread: None
) -> None:
    config = tiny(
        num_clients=4,
        strategy="LocalOnly",
        strategy_options="client = 2",
        num_server_rounds=ROUNDS,
        local_epochs=EPOCHS,
        batch_size=BATCH,
        keep_optimizer=True,
    )
    run_in_process(config, num_nodes)
    rounds = read_run(Path(str(config["run-dir"]))).rounds
    assert [line.clients for line in rounds] == [(), (2,), (2,), (2,)]
    dataset = load_dataset(read(TaskConfig, config))
    its_own = dataset.train.take(make_partition(dataset, read(TaskConfig, config))[2])
    assert_equal(config, plain_pytorch(True, its_own, client=2))


def assert_equal(config: dict[str, Value], expected: dict[str, torch.Tensor]) -> None:
    """Compare the run's final weights."""
    weights = load_file(Path(str(config["run-dir"])) / "models" / "last.safetensors")
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(weights[name], weight), name
