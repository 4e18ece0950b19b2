"""The schema of a run folder: its file names, and what its JSON files hold; for writers and readers alike.

Older folders still load: what their version did not write has a default here.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

CONFIG = "config.toml"
"""The run config."""
METRICS = "metrics.jsonl"
"""A RoundRecord a line."""
RESULT = "result.json"
"""A RunResult: while a run is under way, and after it was killed, that it is unfinished."""
PARTITION = "partition.json"
"""PartitionCounts."""
LABELS = "labels.json"
"""AgreedLabels, where nodes have data of their own with other labels than the server's."""
OPENED_SUMS = "opened-sums.jsonl"
"""Of whom each sum was that secure aggregation has opened."""
TRANSFER = "transfer.json"
"""A TransferSummary, where the run began with the weights of another."""
ERRORS = "errors.log"
"""Every failure with its whole traceback."""
RUN_LOG, FLOWER_LOG, WORKERS_LOG = "run.log", "flower.log", "workers.log"
"""What polyfed said, and what Flower's processes said."""
REPORT = "report.html"
LOCK, TOKEN = "lock", "token"
LAUNCHER = "launcher.lock"
"""Held by the process that shows a run at a terminal: it must be that of its own run."""
CHECKPOINTS, CLIENTS, FIGURES = "checkpoints", "clients", "figures"
EXPLANATIONS = "explanations"
"""What `polyfed explain` found: METHOD.json (an ExplanationSummary), METHOD.csv and METHOD.png."""
TENSORBOARD, MLRUNS = "tensorboard", "mlruns"
BEST_MODEL, LAST_MODEL = Path("models", "best.safetensors"), Path("models", "last.safetensors")
START_MODEL = Path("models", "start.safetensors")
"""What the run itself began with. A resumed run reads this: the earlier run may have changed, or be gone."""

SCHEMA = 4
"""Of result.json. The first had no number, and no `git_commit`, `lock_sha256` and `machine`; the second said
nothing of a run that was under way, had no `used`, `packages`, `nodes`, `lost_states` and `disk`, and less of
`machine`; the third had no `tested`, as the test examples chose the best round."""

Number = int | float
Metrics = dict[str, Annotated[Number, BeforeValidator(lambda value: math.nan if value is None else value)]]
"""Name -> value. JSON has no numbers that are not finite: they are written as null, which is read as nan."""


class RunFile(BaseModel):
    """What one of the JSON files holds; a value of another type, or an unknown key, is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, ser_json_inf_nan="null")


LEAVES = {
    "updates": "what single clients have trained, and what a strategy has them reply beside it",
    "sums": "what the clients of a node have trained, added up",
    "statistics": "what no optimizer trains, such as BatchNorm's means, added up",
    "masked": "what secure aggregation adds up over all nodes: noise, until it is the sum of all",
    "metrics": "losses, metrics and numbers of examples, of each client",
    "failures": "why clients failed: a line and a traceback",
    "lists": "which record is whose, shapes, seconds, hashes of what clients keep, keys and shares of masks",
    "descriptions": "what nodes say of themselves: shapes and names of labels, numbers of examples, machine",
}
"""Kind of what leaves nodes -> what that is."""


class FailureRecord(RunFile):
    """A client that failed in a round."""

    client: int
    error: str


class Traffic(RunFile):
    """Bytes of arrays in a round: what the messages of nodes held, and what clients moved.

    Clients of one node share its messages. `down` and `up` are of this packing, so they depend on the number
    of nodes; what clients moved is as if each had messages of its own, as real devices have.
    """

    down: int = 0
    """In messages from the server to the nodes."""
    up: int = 0
    """In messages from the nodes to the server."""
    clients_down: int | None = None
    """What all clients that were asked received; null where an older polyfed did not count it."""
    clients_up: int | None = None
    """What all clients that answered sent, compressed where they compress."""
    left: dict[str, int] = {}
    """What has left the nodes, of LEAVES -> bytes: arrays as in `up`, and what messages say beside them."""


class RoundRecord(RunFile):
    """One line of metrics.jsonl; round 0 is the evaluation of the initial model."""

    server_round: int
    train: Metrics = {}
    """Weighted means over the clients that trained."""
    evaluate: Metrics = {}
    """Metrics merged over the clients that evaluated; empty where none did."""
    by_client: dict[str, list[Number | None]] = {}
    """A column of client numbers, "client", and one a metric, of what each found on its own examples."""
    central: Metrics = {}
    """Metrics on the server's validation examples, or on its test examples where there are none; empty in
    rounds without."""
    lists: dict[str, list[Number]] = {}
    """Lists that the strategy's own aggregation returned, by names such as "train/losses"."""
    clients: tuple[int, ...] = ()
    """Those that trained; one that the strategy asked several times stands here as often."""
    failures: tuple[FailureRecord, ...] = ()
    simulated_seconds: Number | None = None
    """Simulated seconds since the run began, at the round's end; null where time is not simulated."""
    seconds: dict[str, Number] = {}
    """Phase -> seconds since the line before, and "total"."""
    bytes: Traffic = Traffic()

    @model_validator(mode="after")
    def _columns_are_of_one_length(self) -> Self:
        if self.by_client and len({len(column) for column in self.by_client.values()}) > 1:
            raise ValueError("by_client must have columns of one length")
        if self.by_client and not all(isinstance(client, int) for client in self.by_client["client"]):
            raise ValueError("by_client must have whole numbers in its column client")
        return self

    def as_line(self) -> str:
        """Return the line, with what was given to it and nothing else."""
        return self.model_dump_json(exclude_unset=True) + "\n"

    def scalars(self) -> dict[str, Number]:
        """Return all numbers of the round by names such as "central/accuracy", as trackers show them."""
        groups = {
            "train": self.train,
            "evaluate": self.evaluate,
            "central": self.central,
            "seconds": self.seconds,
            "bytes": self.bytes.model_dump(exclude={"left"}, exclude_unset=True, exclude_none=True),
            "simulated": {} if self.simulated_seconds is None else {"seconds": self.simulated_seconds},
        }
        return {f"{group}/{name}": value for group, found in groups.items() for name, value in found.items()}

    @property
    def total_seconds(self) -> float:
        """Seconds of the whole round; where no total was written, of its phases."""
        return self.seconds["total"] if "total" in self.seconds else sum(self.seconds.values())

    @property
    def client_metrics(self) -> dict[str, dict[int, float]]:
        """Metric -> client -> what it found on its own examples; empty where none evaluated."""
        return {
            name: {
                int(client): value
                for client, value in zip(self.by_client["client"], column, strict=True)
                if client is not None and value is not None
            }
            for name, column in self.by_client.items()
            if name != "client"
        }


class Machine(RunFile):
    """What decides how floats are rounded, beside the versions."""

    cpu: str
    """The model's name."""
    instruction_set: str
    """The best that torch uses here, such as "AVX2"."""
    threads: int
    """CPU threads that a model is computed with."""
    features: list[str] = []
    """The processor's vector instructions, as Linux names them."""
    settings: dict[str, str] = {}
    """Environment variables that are set of those that choose kernels, such as ATEN_CPU_CAPABILITY."""
    system: str = ""
    """The operating system and the architecture, such as "Linux x86_64, glibc 2.36"."""
    device: str = ""
    """What the server computed on: "cpu", or the GPU's model with the versions of CUDA and cuDNN."""


class OptimizerUsed(RunFile):
    """How clients train an objective, unless a strategy says otherwise for a round."""

    objective: str
    optimizer: str
    """A class of torch.optim."""
    learning_rate: float
    options: dict[str, Any] = {}
    """Its other options, defaults too; a list of values where groups of parameters differ."""
    max_grad_norm: float | None = None
    """Norm to which gradients are clipped; null where they are not."""
    warmup_steps: int = 0
    """Steps of a round over which the learning rate grows to its full size."""


class DataFile(RunFile):
    """A file that the server read its data from."""

    name: str
    """Its path below the dataset's folder."""
    num_bytes: int
    sha256: str | None
    """Null where the files are too large to be hashed at every start."""


class Used(RunFile):
    """What a run really used, where its config leaves the choice to others."""

    optimizers: list[OptimizerUsed] = []
    """One an objective of the task."""
    engine: Literal["", "loop", "stacked"] = ""
    """How clients were trained; "" in a run of an earlier polyfed."""
    data_sha256: str = ""
    """Of the shapes and a sample of the examples that the server loaded, whatever files they came from."""
    data_files: list[DataFile] = []
    """[] for data that comes with a package, whose version is in `packages`."""
    validation_examples: int = 0
    """Of the server, by which rounds are chosen; 0 where the test examples choose."""


class Tested(RunFile):
    """What two models are worth on the test examples, by which nothing was chosen."""

    best: Metrics = {}
    """Of the best model by the validation examples; empty where none was kept."""
    final: Metrics = {}
    """Of the last model."""
    num_examples: int = 0
    """Test examples at the server; those that chose are `Used.validation_examples`."""


class RunResult(RunFile):
    """result.json: how the run ended."""

    schema_number: int = Field(default=1, le=SCHEMA)
    status: Literal["completed", "stopped", "failed", "unfinished"]
    """ "unfinished" is that it is under way, was interrupted or was killed."""
    reason: str = ""
    """Why it is not completed."""
    server_round: int = 0
    """The last round that was done."""
    metric: str = ""
    """What the best model goes by; "" where the run failed too early to know."""
    maximize: bool = True
    best_round: int | None = None
    best: Metrics = {}
    """Central metrics of the best round, by which it was chosen."""
    final: Metrics = {}
    """The newest central metrics."""
    tested: Tested | None = None
    """Null where the test examples themselves chose, and where the run did not end well."""
    num_parameters: int = 0
    weights_sha256: str = ""
    """"" where the run failed."""
    lost_states: list[int] = []
    """Clients that had lost what they remembered, and began anew: the run is not what it would have been."""
    refused_nodes: list[str] = []
    """Real nodes that could not take part, and why, a line each."""
    disk: dict[str, int] = {}
    """Bytes that the run folder takes, by what lies in it; what clients keep on nodes is not among them."""
    remarks: list[str] = []
    """What its strategy would have a reader know, such as that its noise does not repeat."""
    seconds: float = 0.0
    """Wall-clock seconds, over all legs of a resumed run."""
    versions: dict[str, str] = {}
    """Python's, polyfed's and those of the packages that its pyproject.toml names, as installed."""
    packages: dict[str, str] = {}
    """The version of every package that is installed."""
    git_commit: str | None = None
    """Of the checkout that the run's code is from, with "-dirty" where that was changed; null without one."""
    lock_sha256: str | None = None
    """Of the lock file of the dependencies; null without one."""
    machine: Machine | None = None
    """Where the server ran; workers may run elsewhere."""
    nodes: list[str] = []
    """What the nodes computed with, a line for each kind of them."""
    streams: int = 1
    """How random numbers were derived from the seed (`models.core.seeds.STREAMS`)."""
    used: Used | None = None
    """Null where the run failed before it was known."""

    @property
    def test_scalars(self) -> dict[str, Number]:
        """The last model's metrics on test examples, by names such as "test/accuracy", for trackers."""
        return {f"test/{name}": value for name, value in (self.tested.final if self.tested else {}).items()}

    @property
    def ended_well(self) -> bool:
        """Whether there is a final model."""
        return self.status in ("completed", "stopped")


class PartitionCounts(RunFile):
    """partition.json: how many examples the first clients hold."""

    num_clients: int
    classes: tuple[str, ...]
    """Class names; empty for data without labels."""
    counts: list[list[int]]
    """Client -> class -> examples; a single number a client for data without labels."""
    names: tuple[str, ...] = ()
    """What the data calls each of its clients, such as a ticker or a file; () where it does not."""
    attackers: tuple[int, ...] = ()
    """Clients that attack."""

    @field_validator("counts", mode="before")
    @classmethod
    def _nest(cls, counts: Any) -> Any:
        """Take the plain numbers that were once written for data without labels."""
        plain = isinstance(counts, list) and all(isinstance(count, int) for count in counts)
        return [[count] for count in counts] if plain else counts

    @model_validator(mode="after")
    def _one_count_a_class(self) -> Self:
        wanted = len(self.classes) or 1
        if any(len(row) != wanted for row in self.counts):
            raise ValueError(f"each client needs {wanted} counts")
        return self


class AgreedLabels(RunFile):
    """labels.json: what all nodes call the numbers of labels by; a run that goes on keeps it."""

    labels: tuple[str, ...]
    """All names, in the order of their numbers."""
    by_node: dict[str, tuple[str, ...]] = {}
    """Node -> names that the server's own data has not."""


class TransferSummary(RunFile):
    """transfer.json: what a run began with."""

    source: str
    """The file of weights."""
    sha256: str
    """The hash of the weights in it."""
    entries: dict[str, dict[str, list[str]]]
    """What happened -> part of the model -> to which of its entries."""
    remarks: list[str] = []
    """What a person should know of these weights."""


class ExplainedRow(RunFile):
    """A held-out example that was explained."""

    row: int
    """Its place among the held-out examples."""
    answer: str
    """What was explained, such as a class."""
    truth: str
    said: str
    """What the model itself says."""
    score: Number | None
    """What the model gives for the answer; null, as all that follows, where it is no finite number."""
    start: Number | None
    """What it gives for the baseline; null where the method knows none."""
    gap: Number | None
    """How far the attributions are from adding up to score less start."""
    said_beside: str | None = None
    """What the model beside says."""


class Alike(RunFile):
    """How alike two models attribute: a number for each example, null where one of them has no ranking."""

    of: str
    """The other model."""
    rank_correlation: list[Number | None]
    """Spearman's, over the parts of an example that are not 0 for both."""
    shared_top: list[Number | None]
    """How much of the tenth with the largest attributions both have in common."""
    chance: list[Number | None] = []
    """How much of it they would share by chance: more than a tenth of few parts. [] of an older polyfed."""
    other_examples: list[Number | None]
    """The correlation with what the other attributes in the next example; null where their parts differ."""


class ExplanationSummary(RunFile):
    """METHOD.json: what a method tells of a run's model, and whether another model looks at the same."""

    method: str
    model: str
    """Which of the run's models, such as "best, of round 18"."""
    weights_sha256: str
    examples: list[ExplainedRow]
    shares: dict[str, Number | None] = {}
    """Feature -> its part of the mean size of all attributions; {} where examples have parts of their own."""
    untrained: Alike | None = None
    """Beside the model that training began with."""
    beside: Alike | None = None
    """Beside the model of another run; null where none was asked for."""


def whole_record(line: bytes) -> RoundRecord | None:
    """Return what a line of metrics.jsonl holds; None for half a line, written as the run was killed.

    Bytes, as the line may end inside a character.
    """
    try:
        return RoundRecord.model_validate_json(line)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            return None
        raise


def explain(error: ValidationError) -> str:
    """Return the first thing that is wrong with what was read, on one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("int", "float"))
    if first["type"] == "missing":
        return f"{where} is missing"
    if first["type"] == "extra_forbidden":
        return f"{where} is unknown to this version of polyfed"
    if where == "schema_number" and first["type"] == "less_than_equal":
        return f"it was written by a newer polyfed (schema {first['input']}, this one reads up to {SCHEMA})"
    said = first["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
    if first["type"] in ("json_invalid", "value_error"):
        return said
    given = repr(first["input"])
    return f"{where or 'it'} {said}, got {given if len(given) <= 80 else given[:77] + '...'}"
