"""Typed reading of Flower's flat run-config, which checks neither names nor types by itself."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from models.core.errors import UserError, unknown

T = TypeVar("T")
Value = bool | int | float | str
RunConfig = Mapping[str, Value]

PARTITIONERS = ("iid", "dirichlet", "shards", "quantity", "natural")
PRECISIONS = ("float32", "bfloat16")
ENGINES = ("loop", "stacked")
ATTACKS = ("label-flip", "sign-flip", "gaussian")


def key_of(field_name: str) -> str:
    """Return the run-config key of a dataclass field: `num_clients` is `num-clients`."""
    return field_name.replace("_", "-")


def read(cls: type[T], run_config: RunConfig) -> T:
    """Build the config dataclass `cls` from the keys of `run_config` that it declares.

    Raises UserError for a value of another type than the field's; a whole number passes for a float.
    """
    values = {}
    for field in fields(cls):  # type: ignore[arg-type]
        key = key_of(field.name)
        if key in run_config:
            values[field.name] = checked(key, run_config[key], field.type)
        elif field.default is MISSING:
            raise UserError(f"{key} is missing from the run config")
    return cls(**values)


def check_keys(run_config: RunConfig, *classes: type) -> None:
    """Raise UserError for a key that none of the config `classes` declares."""
    known = {key_of(field.name) for cls in classes for field in fields(cls)}
    for key in run_config:
        if key not in known:
            raise unknown("run-config key", key, known)


def parse_options(key: str, text: str) -> dict[str, Any]:
    """Read the inline TOML of an option string, such as `"mu = 0.1, norm = 'group'"`."""
    if not text:
        return {}
    try:
        options: dict[str, Any] = tomllib.loads(f"options = {{{text}}}")["options"]
    except tomllib.TOMLDecodeError as error:
        raise UserError(
            f"{key} must be inline TOML such as \"name = 1, other = 'text'\", got {text!r} ({error})"
        ) from error
    return options


def require(condition: bool, key: str, allowed: str, given: Any) -> None:
    """Raise UserError `KEY must be ALLOWED, got GIVEN` unless `condition` holds."""
    if not condition:
        raise UserError(f"{key} must be {allowed}, got {given!r}")


def checked(key: str, value: Any, declared: Any) -> Any:
    """Return the value of a key whose type is declared; a whole number passes for a float.

    Raises UserError for a value of another type.
    """
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if declared is float and type(value) is int:
        return float(value)
    if type(value) is not declared:  # bool is an int to isinstance
        raise UserError(f"{key} must be {words[declared]}, got {value!r}")
    return value


@dataclass(frozen=True)
class TaskConfig:
    """What is learned, from whose data and how: all that a client needs to know."""

    task: str = "cnn"
    """Task name, or "module:Class"."""
    task_options: str = ""
    """Inline TOML for the task's constructor."""
    dataset: str = "mnist-5k"
    """Dataset name."""
    data_dir: str = ""
    """Absolute folder of raw files, for datasets that need one."""
    download: bool = False
    """Fetch a dataset that `data_dir` does not hold."""
    num_clients: int = 20
    """Owners of data, numbered 0 to num_clients - 1."""
    partitioner: str = "dirichlet"
    """One of PARTITIONERS."""
    alpha: float = 0.5
    """Concentration of the Dirichlet distribution of "dirichlet" and "quantity"; small is skewed."""
    shards_per_client: int = 2
    """Label shards that a client holds under "shards"."""
    examples_per_client: int = 0
    """Rows that each client draws, rows shared between clients; 0 deals every row to one client."""
    local_test_fraction: float = 0.0
    """Part of a client's rows, in [0, 1), that it keeps for its own evaluation."""
    attack: str = ""
    """One of ATTACKS, by a part of the clients, to judge strategies by; "" is none."""
    attack_fraction: float = 0.2
    """Part of the clients that attack, in [0, 1]; drawn from the seed."""
    attack_scale: float = 1.0
    """How many times "sign-flip" sends the update back; the standard deviation of "gaussian"."""
    local_epochs: int = 1
    """Passes over the client's rows in a round."""
    batch_size: int = 32
    """Examples a step."""
    optimizer: str = ""
    """A torch.optim class in lower case; "" is the task's own."""
    learning_rate: float = 0.0
    """Step size; 0 is the task's own."""
    optimizer_options: str = ""
    """Inline TOML for the optimizer's constructor."""
    keep_optimizer: bool = False
    """Whether a client goes on with its optimizer state of the round before."""
    engine: str = "loop"
    """One of ENGINES: clients train one after the other, or "stacked", side by side in one computation."""
    precision: str = "float32"
    """One of PRECISIONS; "bfloat16" computes under torch.autocast and keeps float32 weights."""
    device: str = "auto"
    """"auto" (the GPU that the worker was given, else the CPU), or a torch device."""
    threads: int = 1
    """CPU threads a worker computes with; another number adds floats in another order."""
    compression: str = ""
    """How clients compress what they send up, one of strategies.wire.compression.CODECS; "" is not at all."""
    compression_ratio: float = 0.01
    """Part of a tensor's entries that "top-k" sends, in (0, 1]."""
    seed: int = 42
    """Every random number follows from (seed, round, client)."""

    def __post_init__(self) -> None:
        require(self.num_clients >= 1, "num-clients", ">= 1", self.num_clients)
        if self.partitioner not in PARTITIONERS:
            raise unknown("partitioner", self.partitioner, PARTITIONERS)
        require(0 < self.alpha < math.inf, "alpha", "> 0", self.alpha)
        require(self.shards_per_client >= 1, "shards-per-client", ">= 1", self.shards_per_client)
        require(self.examples_per_client >= 0, "examples-per-client", ">= 0", self.examples_per_client)
        in_range = 0 <= self.local_test_fraction < 1
        require(in_range, "local-test-fraction", "in [0, 1)", self.local_test_fraction)
        if self.attack and self.attack not in ATTACKS:
            raise unknown("attack", self.attack, ATTACKS)
        require(0 <= self.attack_fraction <= 1, "attack-fraction", "in [0, 1]", self.attack_fraction)
        require(0 <= self.attack_scale < math.inf, "attack-scale", ">= 0", self.attack_scale)
        require(self.local_epochs >= 1, "local-epochs", ">= 1", self.local_epochs)
        require(self.batch_size >= 1, "batch-size", ">= 1", self.batch_size)
        require(self.learning_rate >= 0, "learning-rate", ">= 0", self.learning_rate)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)
        one_by_one = self.engine == "loop" or not self.keep_optimizer
        require(one_by_one, "keep-optimizer", 'false when engine is "stacked"', self.keep_optimizer)
        in_range = 0 < self.compression_ratio <= 1
        require(in_range, "compression-ratio", "in (0, 1]", self.compression_ratio)
        require(self.threads >= 1, "threads", ">= 1", self.threads)
        require(self.seed >= 0, "seed", ">= 0", self.seed)
