"""A memory of pictures: it gives what environments have shown, and takes a byte a pixel."""

from contextlib import closing
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from models.control.dqn import QLearning
from models.control.episodes import Step, play
from models.control.frame_replay import FrameReplay
from models.control.frames import Frames, frames_of
from models.control.priorities import Priorities
from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.environments import open_environments
from models.task import Batch


class Film(gymnasium.Env[np.ndarray, int]):
    """Shows another picture each time, and ends after `length` steps."""

    observation_space = Box(0, 255, (3, 4, 2), np.uint8)
    action_space = Discrete(5)

    def __init__(self, length: int = 4) -> None:
        self.length = length

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(**options)
        self.place = 0
        return self.picture(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place += 1
        return self.picture(), float(action), self.place == self.length, False, {}

    def picture(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (3, 4, 2), np.uint8)


gymnasium.register("Film-v0", Film, max_episode_steps=50)


def films(stack: int) -> Dataset:
    """Three environments, with episodes of 1, 3 and 5 steps."""
    name = f"gym:Film-v0?worlds=3&envs=1&length=0..6&frame_stack={stack}"
    return load_dataset(TaskConfig(dataset=name, num_clients=1))


def remember(replay: FrameReplay, dataset: Dataset, epochs: int, steps: int) -> list[list[Batch]]:
    """Act for some epochs; return the transitions of each time, as the environments have shown them."""
    generator = torch.Generator().manual_seed(3)
    seen: list[list[Batch]] = []

    def policy(observation: torch.Tensor) -> torch.Tensor:
        return torch.randint(5, (len(observation),), generator=generator)

    def kept(step: Step) -> list[Batch]:
        rows = step.acted.nonzero().flatten().tolist()
        return [{name: column[row] for name, column in step.transitions.items()} for row in rows]

    for _ in range(epochs):
        with closing(open_environments(dataset, dataset.train)) as environments:
            replay.begin(environments.num_envs)
            for _, step in zip(range(steps), play(environments, policy, 0, generator), strict=False):
                replay.keep(step)
                seen.append(kept(step))
        seen.append([])  # the frame behind an epoch has its place too
    return seen[:-1]


@pytest.mark.parametrize("stack", [1, 2, 4])
@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (1, 12), (3, 7), (2, 40)])
def test_it_gives_what_environments_have_shown(stack: int, epochs: int, steps: int) -> None:
    dataset = films(stack)
    frames = frames_of(dataset.info)
    assert frames == Frames(stack, 3, 4, 2, white=255.0)
    replay = FrameReplay(50, frames)  # 16 times of three environments
    seen = remember(replay, dataset, epochs, steps)
    # One place is for the frame to come, and the oldest frames are there for the stacks after them alone.
    expected = [transition for time in seen[-(16 - stack) :] for transition in time]
    assert len(replay) == len(expected)
    assert int(replay.added) == sum(map(len, seen))
    slots = (int(replay.dropped) + torch.arange(len(replay))) % replay.capacity
    found = replay.transitions(slots)
    for name in ("observation", "following"):
        shown = torch.stack([transition[name] for transition in expected])
        assert torch.equal(found[name], frames.stacked(shown)), name
    for name in ("action", "reward", "terminated"):
        shown = torch.stack([transition[name] for transition in expected])
        assert torch.equal(found[name], shown.to(found[name])), name


def test_every_transition_that_is_there_is_drawn_and_no_other() -> None:
    replay = FrameReplay(50, Frames(2, 3, 4, 2, 255.0), Priorities(50, 0.6, 0.4, 10))
    remember(replay, films(2), epochs=2, steps=30)
    there = {(int(replay.dropped) + place) % 50 for place in range(len(replay))}
    assert set(replay._any(2_000, torch.Generator().manual_seed(1)).tolist()) == there
    drawn = replay.sample(2_000, torch.Generator().manual_seed(1))
    assert set(drawn["slot"].tolist()) == there
    assert drawn["weight"].tolist() == [1.0] * 2_000


def test_every_frame_is_kept_once() -> None:
    replay = FrameReplay(1_000, Frames(4, 84, 84, 1, 255.0))
    taken = sum(buffer.nbytes for buffer in replay.buffers())
    assert taken == 1_000 * (84 * 84 + 2 + 4 + 1 + 1 + 2 + 4) + 4 * 8


def test_a_memory_need_hold_one_clients_environments_alone() -> None:
    agent = QLearning(films(4), capacity=10, warmup=5, hidden_size=4).build()
    assert isinstance(agent.replay, FrameReplay)
    agent.replay.begin(1)
    with pytest.raises(
        UserError, match=r"capacity must be >= 12, 6 frames of each environment of a client, got 10"
    ):
        agent.replay.begin(2)


def test_other_environments_than_it_remembers_are_refused() -> None:
    replay = FrameReplay(50, Frames(1, 3, 4, 2, 255.0))
    replay.begin(2)
    replay.begin(3)  # nothing is remembered yet
    replay.times += 1
    with pytest.raises(ValueError, match="remembers 3 environments, and acts in 2"):
        replay.begin(2)
