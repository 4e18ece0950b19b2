"""The list of a run's callbacks, and the order that they are called in."""

import inspect
from collections.abc import Sequence
from importlib.util import find_spec

from models.core.errors import UserError, unknown
from models.core.plugins import find, offers
from server.callbacks.best_model import BestModel
from server.callbacks.callback import HOOKS, Callback
from server.callbacks.checkpointing import Checkpointing
from server.callbacks.early_stopping import EarlyStopping
from server.callbacks.figures import Figures
from server.callbacks.log_line import LogLine
from server.callbacks.mlflow import MLflow
from server.callbacks.sequence import Callbacks
from server.callbacks.tensorboard import TensorBoard
from server.callbacks.tracker import Tracker
from server.callbacks.wandb import WeightsAndBiases
from server.config import ServerConfig

ENTRY_POINTS = "polyfed.callbacks"
TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def in_order(guests: Sequence[Callback]) -> Callbacks:
    """Return polyfed's own callbacks and the guests, the run's trackers and its user's callbacks.

    When a round ends, the loop has written its line. Then the best model is kept, since the checkpoint
    remembers which it is. Whatever else records the round comes before its checkpoint too: a run that is
    killed in between does the round again, so nothing lacks it. Last it is seen whether to go on.
    """
    return Callbacks([BestModel(), Figures(), *guests, Checkpointing(), EarlyStopping(), LogLine()])


def make_guests(config: ServerConfig) -> list[Callback]:
    """Return the trackers and the callbacks that the run config names.

    Raises UserError for a name that nothing goes by, a package that is missing, or what is no callback.
    """
    trackers = [_tracker(name) for name in _names(config.trackers)]
    return [*trackers, *(_callback(name) for name in _names(config.callbacks))]


def _tracker(name: str) -> Callback:
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    if find_spec(TRACKERS[name].package) is None:
        raise UserError(f"the tracker {name} needs a package that is missing: pip install 'polyfed[{name}]'")
    return TRACKERS[name]()


def _callback(name: str) -> Callback:
    if ":" not in name and not offers({}, ENTRY_POINTS):
        raise UserError(
            f"unknown callback {name!r}: no installed package brings one (entry point {ENTRY_POINTS}); "
            'install it, or give "module:Class"'
        )
    cls = find(name, "callback", {}, ENTRY_POINTS)
    if not (isinstance(cls, type) and issubclass(cls, Callback)):
        raise UserError(
            f"callback {name!r} must be a subclass of server.callbacks.Callback, and it is {cls!r}"
        )
    for attribute in dir(cls):
        if attribute.startswith("on_") and attribute not in HOOKS:  # it would never be called
            raise unknown(f"hook of callback {name!r}", attribute, HOOKS)
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        raise UserError(f"callback {name!r} must be made without arguments: {error}") from error
    return cls()


def _names(text: str) -> list[str]:
    """Return the names in a text such as "tensorboard, wandb", each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
