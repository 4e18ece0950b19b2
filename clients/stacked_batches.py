"""The batches of clients that step together: drawn for each by itself, and made for all of them at once.

What a client draws is what it draws in the loop, from its own generator. Where a task makes batches by row,
only the places of the examples are drawn, and the examples of all clients are copied out in one go.
"""

from collections.abc import Hashable, Iterator, Sequence

import torch

from clients.loop import local_batches, over_epochs
from clients.transfer import promises
from clients.worker import Worker
from models.data.dataset import Examples, Rows
from models.task import Batch, Task

Drawn = Batch | Examples
"""A client's next batch, or the examples that it is still to be made of."""
Group = tuple[list[int], Batch]
"""Places of clients whose batches have the same shapes, and these batches (R, B, ...)."""


def draw_batches(
    worker: Worker, examples: Examples, generator: torch.Generator, batch_size: int, local_epochs: float
) -> Iterator[Drawn]:
    """Return a client's batches, or the examples of each where they are made with those of others."""
    task, model = worker.task, worker.model
    if not _makes_together(worker, examples):
        return local_batches(task, model, examples, generator, batch_size, local_epochs)
    return over_epochs(
        lambda: task.shuffled(model, examples, generator, batch_size),
        lambda: task.num_batches(examples, batch_size),
        local_epochs,
    )


def make_alone(task: Task, drawn: Drawn, generator: torch.Generator) -> Batch:
    """Return one client's batch."""
    return task.batch(drawn, generator) if isinstance(drawn, Examples) else drawn


def make_together(task: Task, drawn: Sequence[Drawn], generator: torch.Generator) -> list[Group]:
    """Return the batches of all, by their shapes; from `generator` nothing is drawn."""
    columns = [each.columns for each in drawn if isinstance(each, Examples)]
    rows = [each for each in columns if isinstance(each, Rows)]
    if len(rows) < len(drawn):
        return _stack([make_alone(task, each, generator) for each in drawn])
    groups: list[Group] = []
    for places in _alike([len(each.index) for each in rows]):
        index = torch.cat([rows[place].index for place in places])
        batch = task.batch(Examples(Rows(rows[0].source, index)), generator)
        # (R * B, ...) -> (R, B, ...)
        shape = len(places), len(rows[places[0]].index)
        groups.append((places, {name: column.unflatten(0, shape) for name, column in batch.items()}))
    return groups


def _stack(batches: Sequence[Batch]) -> list[Group]:
    # By name too: a batch may lack a column that another client's has.
    shapes = [tuple((name, column.shape) for name, column in batch.items()) for batch in batches]
    return [
        (
            places,
            {name: torch.stack([batches[place][name] for place in places]) for name in batches[places[0]]},
        )
        for places in _alike(shapes)
    ]


def _alike(shapes: Sequence[Hashable]) -> list[list[int]]:
    """Return the places of equal shapes, together."""
    places: dict[Hashable, list[int]] = {}
    for place, shape in enumerate(shapes):
        places.setdefault(shape, []).append(place)
    return list(places.values())


def _makes_together(worker: Worker, examples: Examples) -> bool:
    """Return whether these are rows of the dataset itself, and batches are made example by example."""
    of_dataset = isinstance(examples.columns, Rows) and examples.source is worker.dataset.train.source
    return of_dataset and type(worker.task).batches is Task.batches and promises(worker.task, "batch_by_row")
