"""Model families, and all that a plugin with a task or a dataset imports: `from models import Task`.

Nothing here knows of flwr or ray. A name is imported when it is first asked for, so that `models.core` alone
costs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.core.config import TaskConfig, parse_options, require
    from models.core.errors import UserError, unknown
    from models.core.seeds import derive_seed, generator_for
    from models.data.dataset import Dataset, Examples
    from models.data.labels import Labels
    from models.data.source import Source, source_path
    from models.explain.attribution import GRADIENTS, attribute
    from models.explain.explanation import FEATURES, IMAGE, WORDS, Explained, Explanation
    from models.task import Batch, Metrics, Objective, OptimizerChoice, State, Task

__all__ = [
    "FEATURES",
    "GRADIENTS",
    "IMAGE",
    "WORDS",
    "Batch",
    "Dataset",
    "Examples",
    "Explained",
    "Explanation",
    "Labels",
    "Metrics",
    "Objective",
    "OptimizerChoice",
    "Source",
    "State",
    "Task",
    "TaskConfig",
    "UserError",
    "attribute",
    "derive_seed",
    "generator_for",
    "parse_options",
    "require",
    "source_path",
    "unknown",
]

_PLACES = {
    "models.core.config": ("TaskConfig", "parse_options", "require"),
    "models.core.errors": ("UserError", "unknown"),
    "models.core.seeds": ("derive_seed", "generator_for"),
    "models.data.dataset": ("Dataset", "Examples"),
    "models.data.labels": ("Labels",),
    "models.data.source": ("Source", "source_path"),
    "models.explain.attribution": ("GRADIENTS", "attribute"),
    "models.explain.explanation": ("FEATURES", "IMAGE", "WORDS", "Explained", "Explanation"),
    "models.task": ("Batch", "Metrics", "Objective", "OptimizerChoice", "State", "Task"),
}
"""Module -> the names that it brings."""


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
