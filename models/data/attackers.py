"""Which clients attack, in research on strategies that withstand them."""

import random

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.core.seeds import derive_seed
from models.data.dataset import Dataset


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
