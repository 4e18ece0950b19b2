"""Tasks by name."""

import math
from collections.abc import Mapping

from models.control.dqn import QLearning
from models.core.config import TaskConfig, parse_options
from models.core.errors import UserError
from models.core.plugins import check_options, check_required, find
from models.data.dataset import Dataset
from models.images.cnn import ImageClassification
from models.images.contrastive import ContrastiveLearning
from models.images.detect import ObjectDetection
from models.images.gan import ImageGan
from models.images.masked_pixels import MaskedPixels
from models.images.vae import ImageVae
from models.multimodal.classification import MultimodalClassification
from models.multimodal.clip import PairContrast
from models.series.lstm_forecast import Forecasting
from models.task import Task
from models.text.dialogue import Dialogue
from models.text.lstm_text import TextGeneration
from models.text.masked_lm import MaskedLanguageModel
from models.text.masked_sentences import MaskedSentences
from models.text.ner import EntityRecognition
from models.text.seq2seq import Translation
from models.text.text_classify import TextClassification

TASKS: Mapping[str, type[Task] | tuple[type[Task], ...]] = {
    "clip": PairContrast,
    "cnn": ImageClassification,
    "contrastive": ContrastiveLearning,
    "detect": ObjectDetection,
    "dialogue": Dialogue,
    "dqn": QLearning,
    "gan": ImageGan,
    "lstm-forecast": Forecasting,
    "lstm-text": TextGeneration,
    "masked-lm": (MaskedLanguageModel, MaskedSentences),
    "masked-pixels": MaskedPixels,
    "multimodal": MultimodalClassification,
    "ner": EntityRecognition,
    "seq2seq": Translation,
    "text-classify": TextClassification,
    "vae": ImageVae,
}
"""A name stands for one task, or for several that learn the same from data of different kinds."""
ENTRY_POINTS = "polyfed.tasks"


def load_task(config: TaskConfig, dataset: Dataset) -> Task:
    """Build the task that the run config names, for its dataset.

    Every task takes the options `local`, patterns of state that stays with the client beside its own, and
    `freeze`, patterns of parameters that stay as they are.
    Raises UserError for an unknown task, options that it does not take, or data of another kind.
    """
    cls = find_task(config.task, dataset)
    options = parse_options("task-options", config.task_options)
    local = _patterns("local", options.pop("local", []))
    freeze = _patterns("freeze", options.pop("freeze", []))
    check_options(f"task {config.task}", cls, options, given=("dataset",))
    check_required(f"task {config.task}", cls, {"dataset", *options})
    task = cls(dataset, **options)
    task.local, task.freeze = (*task.local, *local), (*task.freeze, *freeze)
    if config.engine == "stacked":
        _check_stackable(config.task, task)
    return task


def _check_stackable(name: str, task: Task) -> None:
    """Raise UserError for a task whose clients cannot train side by side."""
    if why := why_not_stackable(task):
        raise UserError(f'engine = "stacked" does not fit task {name}, which {why}: set engine = "loop"')


def why_not_stackable(task: Task) -> str:
    """Return why a task's clients cannot train side by side; "" where they can."""
    if any(objective.max_grad_norm < math.inf for objective in task.objectives):
        return "clips each client's gradients"
    return "" if task.stackable else task.unstackable or "is not declared stackable"


def task_classes(name: str, found: object) -> tuple[type[Task], ...]:
    """Return what was found under `name`, a task or a tuple of them; UserError where it is neither."""
    classes = found if isinstance(found, tuple) else (found,)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, Task)):
            raise UserError(f"task {name!r} must be a subclass of models.Task, and it is {cls!r}")
    return classes


def find_task(name: str, dataset: Dataset) -> type[Task]:
    """Return the task of this name that learns from the dataset's kind of data; UserError where none does."""
    classes = task_classes(name, find(name, "task", TASKS, ENTRY_POINTS))
    for cls in classes:
        if cls.kind == dataset.kind:
            return cls
    kinds = " or ".join(cls.kind for cls in classes)
    raise UserError(f"task {name} learns from {kinds}, and dataset {dataset.name} holds {dataset.kind}")


def _patterns(option: str, given: object) -> list[str]:
    if not (isinstance(given, list) and all(isinstance(pattern, str) for pattern in given)):
        raise UserError(f"{option} must be a list of patterns such as ['features.*'], got {given!r}")
    return given
