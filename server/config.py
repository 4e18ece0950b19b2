"""What the server decides: rounds, sampling, strategy, checkpoints."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.core.config import AtLeastOne, Config, Count, Share, require

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=True)]


class ServerConfig(Config):
    """The run-config keys that only the ServerApp reads."""

    num_server_rounds: AtLeastOne = 20
    """Rounds of training."""
    init_from: str = ""
    """Absolute folder of an earlier run whose weights to begin with, also as RUN:best or RUN:last, or a
    .safetensors or .pth file; "" = none."""
    strategy: str = "FedAvg"
    """A Flower strategy, one of ours, an entry point, or "module:Class"."""
    strategy_options: str = ""
    """Inline TOML for the strategy, e.g. "weighted_by_key = 'num-examples'"."""
    clients_per_round: Count = 0
    """Clients that train in a round; 0 = fraction-train decides."""
    fraction_train: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the clients that train in a round."""
    fraction_evaluate: Share = 0.0
    """Fraction of the clients that evaluate the new model on their own examples."""
    evaluate_every: Count = 1
    """Rounds between central evaluations; 0 = only at the end."""
    draw_every: Count = 0
    """Rounds between the task's figures; 0 = only at the end."""
    patience: Count = 0
    """Central evaluations without improvement before the run stops; 0 = never."""
    checkpoint_every: Count = 1
    """Rounds between checkpoints; 0 = none."""
    keep_checkpoints: AtLeastOne = 2
    """Checkpoints that are kept, with the states of clients that each needs; with 2, one may be damaged."""
    run_dir: str = ""
    """Absolute folder of the run; "" = a new one under ~/.polyfed/runs."""
    trackers: str = "tensorboard"
    """Where rounds are written beside metrics.jsonl: "tensorboard", "wandb", "mlflow", with commas between;
    "" = nowhere."""
    callbacks: str = ""
    """What else follows the rounds: entry points or "module:Class", with commas between."""
    resume: bool = False
    """Go on from the newest checkpoint in run-dir."""
    round_timeout: Seconds = 3600.0
    """Seconds that the clients have for all that they are asked in a round's training, and again for its
    evaluation; nodes then answer for those that are done."""
    round_grace: Annotated[float, Field(ge=0, allow_inf_nan=True)] = 60.0
    """Seconds beyond round-timeout to wait for a node's answer; it must cover the start of its ClientApp."""
    buffer_size: Count = 0
    """Updates of which the server makes a new model, in asynchronous rounds (FedBuff); clients-per-round is
    then how many clients train at any time. 0 = rounds end when all of their clients have answered."""
    staleness_exponent: Annotated[float, Field(ge=0)] = 0.5
    """An update that began S models ago counts 1 / (1 + S) to this power, in asynchronous rounds."""
    client_speeds: str = ""
    """Inline TOML: simulated seconds that clients take, e.g. "seconds = 0.01, slow = 0.2, times = 10"; see
    docs/time.md. "" = time is not simulated, or all clients are equally fast."""
    availability: str = ""
    """Inline TOML: when clients are there in simulated time, e.g. "share = 0.5, period = 86400"; "" =
    always."""
    client_timeout: Annotated[float, Field(ge=0)] = 0.0
    """Seconds that one client may take for what it is asked; one that takes longer is stopped and tried once
    more, and has then failed. On Ray its worker is ended, whatever it does; 0 = as long as there is time."""
    node_timeout: Seconds = 300.0
    """Seconds to wait for nodes that are away: at the start for all of them, and in a round, once for each
    time that they leave, where the others are too few to sample from; then the run goes on without them."""
    node_silence: Annotated[float, Field(ge=25)] = 35.0
    """Seconds without a heartbeat after which a real node counts as gone; nodes send one every 18 to 23, and
    Flower's own limit is 60."""
    unfit_nodes: Literal["refuse", "stop"] = "refuse"
    """What becomes of a real node that cannot take part, as when its data does not fit: it is left out, or
    it ends the run, if that has not begun."""
    expected_nodes: Count = 0
    """Real nodes that there are, the num-partitions of their --node-config; others are refused. 0 = what the
    most of those say that are there at the start."""
    min_clients: AtLeastOne = 1
    """Clients whose nodes must be there, at the start and in every round, or the run ends after
    node-timeout."""
    min_replies: AtLeastOne = 1
    """Clients that must answer to a round's training, or the round is short."""
    short_rounds: Literal["stop", "skip"] = "stop"
    """What becomes of a short round: it ends the run, or leaves the model as it was, which three in a row
    may not."""
    oversample: Annotated[float, Field(ge=1)] = 1.0
    """Times as many clients are asked to train as clients-per-round or fraction-train say; on real nodes a
    round ends when these have answered. Above 1 for real nodes only."""
    secure_aggregation: bool = False
    """Whether nodes mask what they reply in training, so that the server sees the sum of all nodes alone; see
    docs/secure-aggregation.md."""
    secure_threshold: Annotated[float, Field(gt=0.5, le=1)] = 0.6
    """Share of a round's nodes that must stay until its end, or its sum cannot be opened and the round is
    short, with secure-aggregation."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        comes_first = self.client_timeout < self.round_timeout
        require(comes_first, "client-timeout", "less than round-timeout", self.client_timeout)
        can_stop = self.patience == 0 or self.evaluate_every > 0
        require(can_stop, "evaluate-every", "> 0 when patience is", self.evaluate_every)
        absolute = not self.init_from or Path(self.init_from).is_absolute()
        require(absolute, "init-from", "an absolute folder or file of weights", self.init_from)
        absolute = not self.run_dir or Path(self.run_dir).is_absolute()
        require(absolute, "run-dir", "an absolute folder", self.run_dir)
        require(not self.resume or bool(self.run_dir), "run-dir", "given when resume is true", self.run_dir)
        alone = self.oversample == 1 or not self.buffer_size
        require(alone, "oversample", "1 with buffer-size, which waits for no more either", self.oversample)
        return self
