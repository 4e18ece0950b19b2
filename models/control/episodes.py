"""Acting in several environments at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from models.task import Batch

if TYPE_CHECKING:
    from gymnasium.vector import SyncVectorEnv

Policy = Callable[[Tensor], Tensor]
"""Observations (E, ...) -> the index of an action for each environment (E,)."""


@dataclass(frozen=True)
class Step:
    """One step in each of E environments."""

    transitions: Batch
    """Column of a replay buffer -> (E, ...)."""
    acted: Tensor
    """(E,), False where the step only started another episode."""
    ended: Tensor
    """(E,), whether an episode ended, at a terminal state or at its time limit."""


def play(
    environments: "SyncVectorEnv", policy: Policy, first_action: int, generator: torch.Generator
) -> Iterator[Step]:
    """Start an episode in each environment, seeded by the generator, and step for ever."""
    seeds = torch.randint(2**63 - 1, (environments.num_envs,), generator=generator).tolist()
    observation = _read(environments.reset(seed=seeds)[0])
    acted = torch.ones(environments.num_envs, dtype=torch.bool)
    while True:
        action = policy(observation)
        seen, reward, terminated, truncated, _ = environments.step(action.numpy() + first_action)
        following = _read(seen)
        transitions = {
            "observation": observation,
            "action": action,
            "reward": torch.from_numpy(reward),
            "following": following,
            "terminated": torch.from_numpy(terminated),
        }
        ended = torch.from_numpy(terminated | truncated)
        yield Step(transitions, acted, ended)
        observation, acted = following, ~ended


def play_once(
    environments: "SyncVectorEnv",
    policy: Policy,
    first_action: int,
    generator: torch.Generator,
    shown: int = 0,
) -> tuple[Tensor, Tensor]:
    """Play one episode in each of E environments.

    Returns the undiscounted returns (E,) in float64, and the first `shown` observations of the first
    environment's episode (T, ...).
    """
    returns = torch.zeros(environments.num_envs, dtype=torch.float64)
    running = torch.ones(environments.num_envs, dtype=torch.bool)
    observations: list[Tensor] = []
    for step in play(environments, policy, first_action, generator):
        if running[0] and len(observations) < shown:
            observations.append(step.transitions["observation"][0].clone())  # else it keeps those of all
        returns += step.transitions["reward"] * running
        running = running & ~step.ended
        if not running.any():
            break
    return returns, torch.stack(observations) if observations else torch.zeros(0)


def _read(seen: NDArray[Any]) -> Tensor:
    """Return what environments show: lists of numbers (E, O) in float32, pictures in a byte a pixel."""
    return torch.from_numpy(seen).float() if seen.ndim == 2 else torch.from_numpy(seen).byte()
