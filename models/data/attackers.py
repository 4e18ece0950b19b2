"""Which clients attack, in research on strategies that withstand them, and what turned labels are."""

import random
from copy import deepcopy

import torch
from torch import nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.core.seeds import derive_seed, generator_for
from models.data.dataset import Dataset, Examples
from models.task import Batch, Task


def attackers(config: TaskConfig) -> tuple[int, ...]:
    """Return the clients that attack in every round that they take part in, drawn from the run's seed."""
    if not config.attack:
        return ()
    number = round(config.attack_fraction * config.num_clients)
    draw = random.Random(derive_seed(config.seed, "attackers"))
    return tuple(sorted(draw.sample(range(config.num_clients), number)))


def check_attack(config: TaskConfig, dataset: Dataset) -> None:
    """Raise UserError for an attack by nobody, or on labels that are not there."""
    if config.attack and not attackers(config):
        raise UserError(
            f"attack-fraction = {config.attack_fraction} of {config.num_clients} clients is nobody: "
            "raise it, or leave attack out"
        )
    if config.attack == "label-flip" and not dataset.label:
        raise UserError(f"attack label-flip needs labels, and dataset {dataset.name!r} has none")


def check_label_flip(config: TaskConfig, task: Task, model: nn.Module) -> None:
    """Raise UserError where attackers would turn labels that the task does not learn from.

    A GAN's dataset may have labels, too: whether they reach the loss, only a batch can tell.
    """
    dataset = task.dataset
    if config.attack != "label-flip" or not dataset.label:
        return
    few = dataset.train.take(torch.arange(min(len(dataset.train), 2)))
    alike = Examples({**few.columns, dataset.label: torch.zeros_like(few[dataset.label])})

    def batch(examples: Examples) -> Batch:
        mine = deepcopy(model)  # which a batch stream may act with, and change
        return next(iter(task.batches(mine, examples, generator_for(0, "label-flip"), len(few))))

    one, other = batch(alike), batch(flipped(alike, dataset))
    if all(torch.equal(one[name], other[name]) for name in one):
        raise UserError(
            f"attack label-flip turns labels, and task {config.task} does not learn from those of dataset "
            f"{dataset.name!r}: set attack to sign-flip or gaussian"
        )


def flipped(examples: Examples, dataset: Dataset) -> Examples:
    """Return the examples with the label y turned into C - 1 - y.

    This is the label flipping of Fang et al. 2020 (arXiv:1911.11815, section 5.1), for C classes.
    """
    assert dataset.label
    last = len(dataset.classes) - 1
    return Examples({**examples.columns, dataset.label: last - examples[dataset.label]})
