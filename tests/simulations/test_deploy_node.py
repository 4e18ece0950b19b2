import os
import stat
from pathlib import Path

import pytest
from command_line import polyfed
from flwr.common.config import parse_config_args
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

from clients.node_config import NodeConfig
from models.core.errors import UserError
from simulations.deploy import node
from simulations.deploy.folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.made(tmp_path / "node")


def test_what_a_node_is_told_comes_out_of_flowers_parser_as_it_went_in(
    folder: Folder, tmp_path: Path
) -> None:
    data = tmp_path / 'a folder with "quotes", = and \\n'
    data.mkdir()
    for client in (0, 3, 4):
        (data / f"client-{client}").mkdir()
    more = ["backbone=b c", "resident-idle=5", "resident=true", "data-dir=raw", "clients=0,3-4"]
    config = node.node_config(folder, 2, 3, str(data), keep_state_days=30, more=more)
    read = parse_config_args([node.in_words(config)])
    assert read == config
    assert {"backbone": "b c", "resident-idle": 5, "resident": True}.items() <= read.items()
    assert NodeConfig.from_flower(read) == NodeConfig(
        2, 3, str(data), folder.states, 30, str(Path("raw").absolute()), backbone="b c", resident=True,
        resident_idle=5, clients=(0, 3, 4),
    )  # fmt: skip


def test_states_lie_in_the_nodes_folder_unless_it_says_where(folder: Folder) -> None:
    assert node.node_config(folder, 0, 1)["state-path"] == str(folder.path / "state")
    assert node.node_config(folder, 0, 1, state_path="there")["state-path"] == str(Path("there").absolute())


def test_numbers_and_folders_that_cannot_be(folder: Folder) -> None:
    with pytest.raises(UserError, match="--partition-id must be from 0 to 2, got 3"):
        node.node_config(folder, 3, 3)
    with pytest.raises(UserError, match="--data-path /nowhere is not there"):
        node.node_config(folder, 0, 3, "/nowhere")
    for word, said in (
        ("x", "takes KEY=VALUE"),
        ("a b=1", "takes KEY=VALUE"),
        ("x=[1]", "holds texts, numbers"),
        ("resident-idel=5", "unknown key of a node config 'resident-idel': did you mean resident-idle"),
        ("simulated=true", "unknown key of a node config 'simulated'"),
        ("debug=true", "unknown key of a node config 'debug'"),
    ):
        with pytest.raises(UserError, match=said):
            node.node_config(folder, 0, 3, more=[word])
    with pytest.raises(UserError, match="partition-id has an option of its own"):
        node.node_config(folder, 0, 3, more=["partition-id=2"])
    data = folder.path / "data"
    data.mkdir()
    with pytest.raises(
        UserError, match="data/client-3, the folder of client 3, is not there, or cannot be read"
    ):
        node.node_config(folder, 0, 3, str(data), more=["clients=3"])
    with pytest.raises(UserError, match=r"data-path may hold no quote .*: Flower cannot take it"):
        node.in_words({"data-path": "it's"})


def test_devices() -> None:
    assert node.devices("auto") == {}
    assert node.devices("cpu") == {"CUDA_VISIBLE_DEVICES": ""}
    assert node.devices("cuda:1") == {"CUDA_VISIBLE_DEVICES": "1"}
    for wrong in ("gpu", "cuda", "cuda:", "cuda:-1"):
        with pytest.raises(UserError, match=r"--device is auto, cpu or cuda:N, got"):
            node.devices(wrong)


def test_flower_takes_the_command(folder: Folder) -> None:
    config = node.node_config(folder, 1, 3)
    program = node.supernode(folder, "fed.example.org:8000", 9100, config, 120, "cpu", "")
    assert program.arguments[1:4] == ("-m", "simulations.deploy.gated", "flower-supernode")
    read = _parse_args_run_supernode().parse_args(program.arguments[4:])
    assert (read.superlink, read.host, read.port) == ("fed.example.org:8000", "127.0.0.1", 9100)
    assert (read.insecure, read.runtime_dependency_install) == (False, False)
    assert read.auth_supernode_private_key == str(folder.node_key)
    assert parse_config_args([read.node_config]) == config
    wanted = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "CUDA_VISIBLE_DEVICES": ""}
    assert wanted.items() <= program.variables.items()
    assert program.variables["FLWR_HOME"] == str(folder.path / "flwr")


def test_a_node_without_a_key_is_told_so(tmp_path: Path) -> None:
    ended = polyfed("deploy", "node", tmp_path / "node", "--superlink", "127.0.0.1:1")
    assert "--partition-id" in ended.err, "0 of 1 would be a federation by itself"
    numbers = ("--partition-id", 0, "--num-partitions", 1)
    ended = polyfed("deploy", "node", tmp_path / "node", "--superlink", "127.0.0.1:1", *numbers)
    assert ended.code == 2
    assert "node.key, a private key, cannot be read" in ended.err


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        folder = Folder.made(tmp_path / "node")
    finally:
        os.umask(before)
    for path in (folder.path, folder.home, folder.empty):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
