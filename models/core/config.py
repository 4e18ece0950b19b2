"""Typed reading of Flower's flat run-config, which checks neither names nor types by itself."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.core.errors import UserError, shown, unknown
from models.core.refusal import WORDS, key_of, refusal
from models.core.toml import toml_value

T = TypeVar("T", bound="Config")
Value = bool | int | float | str
RunConfig = Mapping[str, Value]

EARLIER: RunConfig = {"validation-fraction": 0.0}
"""What a run did from before a key was there, where that is not what its default does."""

LARGEST = 2**63 - 1
"""Largest whole number that Flower's wire and torch can carry."""

Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]

Partitioner = Literal["iid", "dirichlet", "shards", "quantity", "natural"]
Attack = Literal["", "label-flip", "sign-flip", "gaussian"]
Engine = Literal["loop", "stacked", "auto"]
Precision = Literal["float32", "bfloat16"]
Compression = Literal["", "top-k", "int8", "bfloat16", "float32"]
PARTITIONERS: tuple[str, ...] = get_args(Partitioner)


class Config(BaseModel):
    """A part of the run config: typed, frozen and hashable, checked as it is made.

    A field's docstring says what it is to readers, to editors and in pyproject.toml. Nothing is converted,
    but that a whole number passes for a float. Raises UserError for what does not fit.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=key_of,
        validate_by_alias=True,
        validate_by_name=True,
        use_attribute_docstrings=True,
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise refusal(error, type(self).model_fields) from None
        for name in type(self).model_fields:
            given = getattr(self, name)
            fits = type(given) is not int or -LARGEST <= given <= LARGEST
            require(fits, key_of(name), f"at most {LARGEST}", given)

    @classmethod
    def defaults(cls) -> dict[str, Value]:
        """Return run-config key -> default, for every key that it reads."""
        return {key_of(name): field.default for name, field in cls.model_fields.items()}


def read(cls: type[T], run_config: RunConfig) -> T:
    """Build the config `cls` from the keys of `run_config` that it declares.

    Raises UserError for a value that does not fit.
    """
    return cls(**{key: run_config[key] for key in cls.defaults() if key in run_config})


def check_keys(run_config: RunConfig, *classes: type[Config]) -> None:
    """Raise UserError for a key that none of the config `classes` declares."""
    known = [key for cls in classes for key in cls.defaults()]
    for key in run_config:
        if key not in known:
            raise unknown("run-config key", key, known)


def parse_options(key: str, text: str) -> dict[str, Any]:
    """Read the inline TOML of an option string, such as `"mu = 0.1, norm = 'group'"`."""
    if not text:
        return {}
    try:
        options: dict[str, Any] = toml_value(f"{{{text}}}")
    except ValueError as error:
        raise UserError(
            f"{key} must be inline TOML such as \"name = 1, other = 'text'\", got {shown(text)} ({error})"
        ) from error
    # Whoever compares it with a bound may find that it fits.
    require(not _has_nan(options), key, "without nan, which is no number", text)
    return options


def _has_nan(value: object) -> bool:
    match value:
        case float():
            return math.isnan(value)
        case dict():
            return any(map(_has_nan, value.values()))
        case list():
            return any(map(_has_nan, value))
    return False


def require(condition: bool, key: str, allowed: str, given: Any) -> None:
    """Raise UserError `KEY must be ALLOWED, got GIVEN` unless `condition` holds."""
    if not condition:
        raise UserError(f"{key} must be {allowed}, got {shown(given)}")


def checked(key: str, value: Any, declared: Any) -> Any:
    """Return the value of a key whose type is declared; a whole number passes for a float.

    Raises UserError for a value of another type.
    """
    if declared is float and type(value) is int:
        require(abs(value) <= LARGEST, key, f"at most {LARGEST}", value)
        return float(value)
    if type(value) is not declared:  # bool is an int to isinstance
        raise UserError(f"{key} must be {WORDS[declared]}, got {shown(value)}")
    return value


class TaskConfig(Config):
    """What is learned, from whose data and how: all that a client needs to know."""

    task: str = "cnn"
    """Task name, or "module:Class"."""
    task_options: str = ""
    """Inline TOML for the task, e.g. "norm = 'group'"; polyfed takes a table too. Every task has local =
    [patterns], what stays with the client, and freeze = [patterns], what stays as it is."""
    dataset: str = "mnist-5k"
    """Dataset name."""
    dataset_options: str = ""
    """Inline TOML for the dataset, e.g. "word_column = 2"; polyfed takes a table too."""
    data_dir: str = ""
    """Absolute folder of raw files, for datasets that need one."""
    download: bool = False
    """Fetch a dataset that data-dir does not hold."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of the training examples that no client gets: they choose the best round, when to stop and among
    runs. Test examples are then read once, at the end. 0 = the test examples choose."""
    num_clients: AtLeastOne = 20
    """Owners of data, numbered 0 to num-clients - 1."""
    partitioner: Partitioner = "dirichlet"
    """How the examples are dealt to the clients."""
    alpha: Annotated[float, Field(gt=0)] = 0.5
    """Concentration of "dirichlet" and "quantity"; small is skewed."""
    shards_per_client: AtLeastOne = 2
    """Label shards that a client holds under "shards"."""
    examples_per_client: Count = 0
    """Examples that each client draws, shared between clients; 0 = deal each to one client."""
    local_test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of a client's examples that it keeps for its own evaluation."""
    attack: Attack = ""
    """What a part of the clients does; "" = nothing."""
    attack_fraction: Share = 0.2
    """Part of the clients that attack, drawn from the seed."""
    attack_scale: Annotated[float, Field(ge=0)] = 1.0
    """Times that "sign-flip" sends its update back; standard deviation of "gaussian"."""
    local_epochs: AtLeastOne = 1
    """Passes over the client's examples in a round."""
    batch_size: AtLeastOne = 32
    """Examples a step."""
    optimizer: str = ""
    """A torch.optim class ("sgd", "adamw"), in any case; "" = the task's own."""
    learning_rate: Annotated[float, Field(ge=0)] = 0.0
    """Step size; 0 = the task's own."""
    optimizer_options: str = ""
    """Inline TOML for the optimizer, e.g. "momentum = 0.9"."""
    keep_optimizer: bool = False
    """A client goes on with its optimizer state of the round before."""
    engine: Engine = "loop"
    """How a worker trains its clients, one by one or side by side; "auto" = side by side where the task can
    and a step is small."""
    stack_size: AtLeastOne = 50
    """Clients that are trained side by side at most; part of the result's identity where they are."""
    precision: Precision = "float32"
    """What networks compute in; "bfloat16" is mixed precision, whose weights stay float32."""
    channels_last: bool = False
    """Images and kernels of convolutions lie in memory with channels last, which GPUs and bfloat16 may like
    better; part of the result's identity."""
    device: str = "auto"
    """"auto" = the GPU that the worker was given, else the CPU; or "cpu", "cuda", "cuda:N"."""
    threads: AtLeastOne = 1
    """CPU threads a worker computes with; part of the result's identity."""
    seed: Count = 42
    """Every random number follows from (seed, round, client)."""
    compression: Compression = ""
    """How clients compress what they send up ("top-k" with error feedback; "bfloat16" and "float32" are the
    types of updates); "" = not at all."""
    compression_ratio: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Part of a tensor's entries that "top-k" sends."""

    max_update_norm: Annotated[float, Field(ge=0)] = 0.0
    """L2 norm that every client's update is clipped to before anybody averages it, by the server or by a
    node that adds up; 0 = not at all."""
    max_examples: Count = 0
    """Examples that a client may train on at most; one that has more, or says so, has failed. 0 = 2^53."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        one_by_one = self.engine != "stacked" or not self.keep_optimizer
        require(one_by_one, "keep-optimizer", 'false when engine is "stacked"', self.keep_optimizer)
        one_by_one = self.engine != "stacked" or not self.channels_last
        require(one_by_one, "channels-last", 'false when engine is "stacked"', self.channels_last)
        return self
