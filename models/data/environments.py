"""Environments to act in, as examples: any gymnasium id with discrete actions.

An example is one environment that a client acts in. The examples of a world share its physics: numbers
between the bounds asked for, which the worlds split evenly. Worlds are the natural clients, one a client
unless `worlds` says otherwise, so that a single client can be given all of them. A held-out example is one
episode. Texts and truths are arguments of the environment's constructor, the same in all worlds.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.core.config import TaskConfig
from models.core.errors import UserError, shown
from models.core.paths import names_a_place
from models.core.plugins import check_module
from models.data.dataset import Dataset, Examples
from models.data.made_environments import check_spaces, make, with_limit
from models.data.worlds import names, parse, spread

if TYPE_CHECKING:
    from gymnasium import Env
    from gymnasium.vector import SyncVectorEnv

# gymnasium is imported where it is used, so that a worker of another family does without.

_PHYSICS_SEED = 0
"""Worlds are the same whatever the seed of the run, so that runs compare."""


def load_environments(config: TaskConfig) -> Dataset:
    """Return the environments that `config.dataset` asks for, with column "physics" (N, num_physics).

    Raises UserError for an id that gymnasium cannot make or whose package is not installed, actions or
    observations that Q-values do not fit, episodes without an end, and physics that the environment has not.
    """
    wanted = parse(config)
    wanted = replace(wanted, arguments=with_limit(wanted.id, wanted.arguments))
    lowest = {name: low for name, (low, _) in wanted.bounds.items()}
    highest = {name: high for name, (_, high) in wanted.bounds.items()}
    sizes = check_spaces(wanted, lowest)
    if wanted.bounds:
        check_spaces(wanted, highest)
    info = {"id": wanted.id, "physics": tuple(wanted.bounds), "arguments": wanted.arguments, **sizes}
    rng = np.random.default_rng(_PHYSICS_SEED)
    owners = np.repeat(np.arange(wanted.worlds), wanted.envs)
    worlds = spread(wanted.worlds, wanted.bounds, rng)
    return Dataset(
        name=config.dataset,
        kind="environments",
        train=_rows(worlds[owners]),
        test=_rows(spread(wanted.episodes, wanted.bounds, rng)),
        validation=_rows(spread(wanted.episodes, wanted.bounds, rng)),
        client=owners,
        client_names=names(wanted, worlds),
        info=info,
    )


def check_environments(config: TaskConfig, modules: Sequence[str]) -> None:
    """Raise UserError for an id in a package that none of these modules is, and for a path as an argument.

    Gymnasium imports the package that stands before an id.
    """
    wanted = parse(config)
    package, colon, _ = wanted.id.rpartition(":")
    if colon:
        check_module(f"dataset {shown(config.dataset)}", package, modules)
    for name, value in wanted.arguments.items():
        if isinstance(value, str) and (names_a_place(value) or "/" in value):
            raise UserError(f"{name} of {wanted.id} must be no path, got {shown(value)}")


def open_environments(dataset: Dataset, rows: Examples) -> "SyncVectorEnv":
    """Return the environments of these examples, to be stepped together and closed after use.

    One that has ended an episode spends its next step on starting another.
    """
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    id_, names = dataset.info["id"], dataset.info["physics"]
    arguments = dataset.info.get("arguments", {})

    def maker(values: list[float]) -> "Env[Any, Any]":
        return make(id_, arguments, dict(zip(names, values, strict=True)))

    makers = [lambda values=values: maker(values) for values in rows["physics"].tolist()]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)


def _rows(physics: NDArray[Any]) -> Examples:
    return Examples({"physics": torch.from_numpy(physics)})
