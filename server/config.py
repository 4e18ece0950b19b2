"""What the server decides: rounds, sampling, strategy, checkpoints."""

from dataclasses import dataclass
from pathlib import Path

from models.core.config import require


@dataclass(frozen=True)
class ServerConfig:
    """The run-config keys that only the ServerApp reads."""

    num_server_rounds: int = 20
    """Rounds of training."""
    init_from: str = ""
    """Absolute folder of an earlier run whose weights to begin with, or a .safetensors file; "" is none."""
    strategy: str = "FedAvg"
    """A Flower strategy, one of ours, an entry point, or "module:Class"."""
    strategy_options: str = ""
    """Inline TOML for the strategy's constructor."""
    clients_per_round: int = 0
    """Clients that train in a round; 0 leaves it to `fraction_train`."""
    fraction_train: float = 1.0
    """Fraction of the clients that train in a round, in (0, 1]."""
    fraction_evaluate: float = 0.0
    """Fraction of the clients that evaluate the new model on their own rows, in [0, 1]."""
    evaluate_every: int = 1
    """Rounds between central evaluations; 0 is only after the last round."""
    draw_every: int = 0
    """Rounds between the task's figures; 0 is only after the last round."""
    patience: int = 0
    """Central evaluations without improvement before the run stops; 0 is never."""
    checkpoint_every: int = 1
    """Rounds between checkpoints; 0 is none."""
    run_dir: str = ""
    """Absolute folder of the run; "" is a new one under ~/.polyfed/runs."""
    resume: bool = False
    """Go on from the newest checkpoint in `run_dir`."""
    round_timeout: float = 3600.0
    """Seconds to wait for a round's replies."""
    node_timeout: float = 300.0
    """Seconds to wait at the start for every node to answer."""

    def __post_init__(self) -> None:
        require(self.num_server_rounds >= 1, "num-server-rounds", ">= 1", self.num_server_rounds)
        require(self.clients_per_round >= 0, "clients-per-round", ">= 0", self.clients_per_round)
        require(0 < self.fraction_train <= 1, "fraction-train", "in (0, 1]", self.fraction_train)
        require(0 <= self.fraction_evaluate <= 1, "fraction-evaluate", "in [0, 1]", self.fraction_evaluate)
        require(self.evaluate_every >= 0, "evaluate-every", ">= 0", self.evaluate_every)
        require(self.draw_every >= 0, "draw-every", ">= 0", self.draw_every)
        require(self.patience >= 0, "patience", ">= 0", self.patience)
        can_stop = self.patience == 0 or self.evaluate_every > 0
        require(can_stop, "evaluate-every", "> 0 when patience is", self.evaluate_every)
        require(self.checkpoint_every >= 0, "checkpoint-every", ">= 0", self.checkpoint_every)
        absolute = not self.init_from or Path(self.init_from).is_absolute()
        require(absolute, "init-from", "an absolute folder or .safetensors file", self.init_from)
        absolute = not self.run_dir or Path(self.run_dir).is_absolute()
        require(absolute, "run-dir", "an absolute folder", self.run_dir)
        require(not self.resume or bool(self.run_dir), "run-dir", "given when resume is true", self.run_dir)
        require(self.round_timeout > 0, "round-timeout", "> 0", self.round_timeout)
        require(self.node_timeout > 0, "node-timeout", "> 0", self.node_timeout)
