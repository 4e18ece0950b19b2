"""A SuperNode: its server, its key and its data are looked at, then it starts."""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence

from clients.node_config import (
    DATA_DIR,
    DATA_PATH,
    KEEP_STATE_DAYS,
    NUM_PARTITIONS,
    OWNERS,
    PARTITION_ID,
    STATE_PATH,
    NodeConfig,
)
from models.core.config import Value
from models.core.errors import UserError, unknown
from models.core.user_code import FOLDER
from simulations.deploy.folder import Folder
from simulations.deploy.gated import PATIENCE
from simulations.deploy.program import Program, flower

CUDA = "CUDA_VISIBLE_DEVICES"


def node_config(
    folder: Folder,
    partition_id: int,
    num_partitions: int,
    data_path: str = "",
    state_path: str = "",
    keep_state_days: int | None = None,
    more: Sequence[str] = (),
) -> dict[str, Value]:
    """Return what the node is told about itself; UserError for numbers or folders that cannot be."""
    if not 0 <= partition_id < num_partitions:
        raise UserError(f"--partition-id must be from 0 to {num_partitions - 1}, got {partition_id}")
    if data_path and not os.access(data_path, os.R_OK):
        raise UserError(f"--data-path {data_path} is not there, or cannot be read")
    config: dict[str, Value] = {PARTITION_ID: partition_id, NUM_PARTITIONS: num_partitions}
    config |= {DATA_PATH: os.path.abspath(data_path)} if data_path else {}
    config[STATE_PATH] = os.path.abspath(state_path) if state_path else str(folder.states)
    config |= {} if keep_state_days is None else {KEEP_STATE_DAYS: keep_state_days}
    for word in more:
        key, value = _read(word)
        if key in config:
            raise UserError(f"-c {word}: {key} has an option of its own")
        if key not in OWNERS:
            raise unknown("key of a node config", key, OWNERS)
        # Flower starts the node's processes in other folders.
        config[key] = os.path.abspath(value) if key == DATA_DIR and isinstance(value, str) else value
    for client, place in NodeConfig.from_flower(config).folders:  # as the node will read it
        if not os.access(place, os.R_OK):
            raise UserError(f"{place}, the folder of client {client}, is not there, or cannot be read")
    return config


def _read(word: str) -> tuple[str, Value]:
    """Return the key and the value of KEY=VALUE; what TOML does not know is text."""
    key, equals, text = word.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+", key):
        raise UserError(f"-c takes KEY=VALUE, got {word!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if not isinstance(value, bool | int | float | str):
        raise UserError(f"-c {word}: a node config holds texts, numbers, true and false")
    return key, value


def in_words(config: Mapping[str, Value]) -> str:
    """Return a node config as `flower-supernode --node-config` takes it."""
    for key, value in config.items():
        if isinstance(value, str) and ("'" in value or "\n" in value):
            raise UserError(
                f"{key} may hold no quote and no line break, got {value!r}: Flower cannot take it"
            )
    # In single quotes nothing has a meaning of its own, in TOML too.
    return " ".join(f"{key}={_in_toml(value)}" for key, value in config.items())


def _in_toml(value: Value) -> str:
    if isinstance(value, str):
        return f"'{value}'"
    return str(value).lower() if isinstance(value, bool) else str(value)


def devices(given: str) -> dict[str, str]:
    """Return the variable that shows the node's processes the device that it may use, and no other."""
    if given == "auto":
        return {}
    if given == "cpu":
        return {CUDA: ""}
    kind, _, number = given.partition(":")
    if kind != "cuda" or not number.isdecimal():
        raise UserError(f"--device is auto, cpu or cuda:N, got {given!r}")
    return {CUDA: number}


def supernode(
    folder: Folder,
    server: str,
    port: int,
    config: Mapping[str, Value],
    patience: float,
    device: str,
    code: str,
) -> Program:
    """Return the SuperNode's command; its own interface is on the loopback alone."""
    arguments = ["--superlink", server, "--root-certificates", str(folder.ca)]
    arguments += [
        "--auth-supernode-private-key",
        str(folder.node_key),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    arguments += ["--node-config", in_words(config)]
    variables = {PATIENCE: f"{patience:g}", **devices(device), **({FOLDER: code} if code else {})}
    return flower("flower-supernode", arguments, folder, **variables)
