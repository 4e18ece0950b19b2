"""A round of ResNet-18 with GroupNorm on files of CIFAR10, by both engines; what a node builds by name."""

from collections.abc import Callable
from pathlib import Path

import pytest
from raw_files import write_cifar10
from rounding import distance
from safetensors.torch import load_file

from clients.belief import believed
from clients.node_config import NodeConfig
from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.data.datasets import load_dataset
from models.registry import load_task
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


@pytest.mark.rounding
def test_a_round_of_resnet18_is_the_same_by_both_engines(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path, monkeypatch)
    weights = {}
    for engine in ("loop", "stacked"):
        config = tiny(
            task="cnn",
            task_options="network = 'resnet18', norm = 'group'",
            dataset="cifar10",
            data_dir=str(tmp_path),
            num_clients=2,
            num_server_rounds=1,
            partitioner="iid",
            batch_size=5,
            checkpoint_every=0,
            engine=engine,
            run_dir=str(tmp_path / engine),
        )
        run_in_process(config)
        weights[engine] = load_file(tmp_path / engine / "models" / "last.safetensors")
    assert len(weights["loop"]) == 62
    assert distance(weights["loop"], weights["stacked"]) < 1e-5


@pytest.mark.parametrize("name", ["/servers/own.pth", "../own.pth", "~/own", "https://own/resnet18.pth"])
def test_a_node_refuses_a_network_that_is_a_place(name: str) -> None:
    with pytest.raises(UserError, match="task-options must name no path and no address"):
        believed(TaskConfig(dataset="digits", task_options=f"network = '{name}'"), NodeConfig(0, 2))


@pytest.mark.parametrize("name", ["own.pth", "subprocess:Popen", "torchvision.models:resnet18"])
def test_a_node_builds_what_torchvision_lists_alone(name: str) -> None:
    config = TaskConfig(dataset="digits", task_options=f"network = '{name}'")
    with pytest.raises(UserError, match=f"^unknown network '{name}': "):
        load_task(believed(config, NodeConfig(0, 2)), load_dataset(config))


def test_no_option_names_a_file_of_weights() -> None:
    """They are `init-from`'s, which the server alone reads."""
    config = TaskConfig(dataset="digits", task_options="network = 'resnet18', weights = 'own.pth'")
    with pytest.raises(UserError, match=r"^unknown option of task cnn 'weights'"):
        load_task(config, load_dataset(config))
