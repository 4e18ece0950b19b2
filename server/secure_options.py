"""What secure aggregation cannot go together with, refused before the run."""

from flwr.serverapp.strategy import Strategy

from models.core.config import TaskConfig, require
from models.core.errors import UserError
from server.config import ServerConfig
from strategies.declaration import declaration_of

ALONE = "when secure-aggregation is true: each client's answer would be its own"
AS_LONG = "when secure-aggregation is true: a masked sum is as long whatever it is a sum of"


def check_secure(strategy: Strategy, config: ServerConfig, task_config: TaskConfig) -> None:
    """Raise UserError for what needs to see single replies, or gains nothing."""
    if not declaration_of(strategy).weighted_mean:
        raise UserError(
            f"strategy {type(strategy).__name__} looks at what single clients reply, which "
            "secure-aggregation hides: take one that needs their mean alone, such as FedAvg or FedAdam"
        )
    require(config.fraction_evaluate == 0, "fraction-evaluate", f"0 {ALONE}", config.fraction_evaluate)
    require(config.buffer_size == 0, "buffer-size", f"0 {ALONE}", config.buffer_size)
    require(not task_config.compression, "compression", f'"" {AS_LONG}', task_config.compression)
    allowed = "1 when secure-aggregation is true: a round waits for its nodes"
    require(config.oversample == 1, "oversample", allowed, config.oversample)


def check_secure_nodes(nodes: int) -> None:
    """Raise UserError where there is nothing to add up."""
    if nodes < 2:
        raise UserError(
            f"secure-aggregation adds up what at least 2 nodes reply, and there is {nodes}: it is for real "
            "nodes; to try it, let several nodes run in one process (--in-process -c num-nodes=4) or in "
            "Flower's simulation (--runtime flower)"
        )
