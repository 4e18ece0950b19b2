"""Tasks by name."""

from collections.abc import Mapping

from models.cnn import ImageClassification
from models.config import TaskConfig, parse_options
from models.data.dataset import Dataset
from models.errors import UserError
from models.plugins import check_options, find
from models.task import Task

TASKS: Mapping[str, type[Task]] = {
    "cnn": ImageClassification,
}
ENTRY_POINTS = "polyfed.tasks"


def load_task(config: TaskConfig, dataset: Dataset) -> Task:
    """Build the task that the run config names, for its dataset.

    Raises UserError for an unknown task, options that it does not take, or data of another kind.
    """
    cls = find(config.task, "task", TASKS, ENTRY_POINTS)
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise UserError(f"task {config.task!r} must be a subclass of models.task.Task")
    options = parse_options("task-options", config.task_options)
    check_options(f"task {config.task}", cls, options, given=("dataset",))
    if dataset.kind != cls.kind:
        raise UserError(
            f"task {config.task} learns from {cls.kind}, and dataset {dataset.name} holds {dataset.kind}"
        )
    task: Task = cls(dataset, **options)
    return task
