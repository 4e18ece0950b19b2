"""Environments of optional packages, and what agents see of them."""

import sys
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Sequence, Tuple

from models.control.dqn import QLearning
from models.control.dqn_figures import draw_frames
from models.control.frame_replay import FrameReplay
from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.environments import open_environments


def load(name: str) -> Dataset:
    return load_dataset(TaskConfig(dataset=name, num_clients=2, partitioner="natural"))


class Shows(gymnasium.Env[Any, int]):
    """Shows samples of a space."""

    action_space = Discrete(2)

    def __init__(self, of: str = "dict") -> None:
        self.observation_space = SPACES[of]

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**options)
        return self.observation_space.sample(), {}


FIRST_TO_LAST = (0, 3, 5, 8, 11, 14, 16, 19)
SPACES: dict[str, gymnasium.Space[Any]] = {
    "dict": Dict(a=Discrete(3), b=Box(-1, 1, (2, 2))),
    "tuple": Tuple((MultiBinary(4), Box(-1, 1, (2,)))),
    "matrix": Box(-1, 1, (2, 5)),
    "line": Box(0, 255, (2, 40), np.uint8),
    "picture": Box(0, 255, (8, 9, 3), np.uint8),
    "grey": Box(0, 100, (8, 9), np.uint8),
    "bits": Box(0, 1, (8, 9, 2), np.bool_),
    "colours first": Box(0, 255, (3, 9, 8), np.uint8),
    "few rows": Box(0, 255, (4, 9, 2), np.uint8),
    "sequence": Sequence(Discrete(3)),
}
gymnasium.register("Shows-v0", Shows, max_episode_steps=5)


@pytest.mark.parametrize(
    ("of", "size"),
    [("dict", 3 + 4), ("tuple", 4 + 2), ("matrix", 10), ("line", 80), ("dict&frame_stack=3", 21)],
)
def test_what_is_no_picture_is_flattened_by_gymnasium(of: str, size: int) -> None:
    dataset = load(f"gym:Shows-v0?of={of}&envs=1")
    assert dataset.info["observation_size"] == size
    assert "frame_height" not in dataset.info
    with closing(open_environments(dataset, dataset.train)) as environments:
        assert environments.reset(seed=1)[0].shape == (2, size)


@pytest.mark.parametrize(
    ("of", "sizes"),
    [
        ("picture", (1, 8, 9, 3, 255.0)),
        ("grey", (1, 8, 9, 1, 100.0)),
        ("few rows", (1, 4, 9, 2, 255.0)),
        ("bits&frame_stack=4", (4, 8, 9, 2, 1.0)),
        ("grey&frame_stack=2", (2, 8, 9, 1, 100.0)),
    ],
)
def test_pictures_stay_pictures(of: str, sizes: tuple[int, ...]) -> None:
    dataset = load(f"gym:Shows-v0?of={of}&envs=1")
    frames = QLearning(dataset, hidden_size=4).frames
    assert frames is not None
    assert (frames.stack, *frames.shape, frames.white) == sizes
    with closing(open_environments(dataset, dataset.train)) as environments:
        shown = torch.from_numpy(environments.reset(seed=1)[0])
    assert frames.stacked(shown).shape == (2, *sizes[:4])


@pytest.mark.parametrize(("channels", "drawn"), [(1, (3, 4)), (3, (3, 4, 3)), (4, (3, 4))])
def test_an_episode_of_pictures_is_drawn(channels: int, drawn: tuple[int, ...]) -> None:
    frames = torch.zeros(20, 3, 4, channels, dtype=torch.uint8)
    frames[19, 1, 2] = 1
    figure = draw_frames(frames, torch.arange(40.0).reshape(20, 2))
    *pictures, values = figure.axes
    assert [panel.get_title() for panel in pictures] == [f"step {1 + step}" for step in FIRST_TO_LAST]
    last = pictures[-1].images[0].get_array()
    assert last.shape == drawn
    assert last[1, 2].max() == (channels if channels == 4 else 1)  # the number of the last plane that is set
    assert [line.get_ydata().tolist()[:2] for line in values.lines] == [[0, 2], [1, 3]]


def test_what_gymnasium_cannot_flatten_is_refused() -> None:
    with pytest.raises(UserError) as error:
        load("gym:Shows-v0?of=sequence")
    assert str(error.value).startswith(
        "Shows-v0 must have observations that gymnasium flattens to numbers, or "
    )


def test_channels_that_come_first_are_refused() -> None:
    with pytest.raises(UserError) as error:
        load("gym:Shows-v0?of=colours first")
    assert str(error.value) == (
        "Shows-v0 must show pictures (H, W, C), and shows (3, 9, 8), with channels first: wrap it by "
        "gymnasium.wrappers.TransformObservation"
    )


@pytest.mark.parametrize(
    ("id_", "module", "extra"),
    [
        ("MinAtar/Breakout-v1", "minatar", "minatar"),
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("ALE/Pong-v5", "cv2", "atari"),
        ("LunarLander-v3", "Box2D", "box2d"),
    ],
)
def test_a_package_that_is_missing_is_one_line(
    id_: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ale_py", "cv2", "minatar", "Box2D", "pygame"):
        if name == module:
            monkeypatch.setitem(sys.modules, name, None)
    if module == "cv2":
        pytest.importorskip("ale_py")
    with pytest.raises(UserError) as error:
        load(f"gym:{id_}")
    line = f"environment '{id_}' needs a package that is not here: pip install 'polyfed[{extra}]'"
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gym:CartPole-v1?frame_stack=0",
            "frame_stack must be >= 1 in dataset 'gym:CartPole-v1?frame_stack=0'",
        ),
        ("gym:CartPole-v1?episodes=0", "episodes must be >= 1 in dataset 'gym:CartPole-v1?episodes=0'"),
        ("gym:ALE/Pong-v5?noop_max=-1", "noop_max must be >= 0 in dataset 'gym:ALE/Pong-v5?noop_max=-1'"),
        ("gym:CartPole-v1?frame_skip=2", "unknown physics of CartPole-v1 'frame_skip'"),
        (
            "gym:ALE/Pong-v5?frameskip=2",
            "frameskip of ALE/Pong-v5 is not heeded where its screen is shown: say frame_skip, one whole "
            "number for all clients, got 2",
        ),
        ("gym:ALE/Pong-v5?frameskip=1..8", "frameskip of ALE/Pong-v5 is not heeded where its screen is"),
        (
            "gym:ALE/Pong-v5?obs_type=rgb",
            "obs_type of ALE/Pong-v5 must be grayscale or ram, got 'rgb': its screen is shown in grey",
        ),
        ("gym:ALE/Pong-v5?screen_size=big", "screen_size must be a whole number, got 'big' in dataset"),
    ],
)
def test_names_that_are_refused(name: str, message: str) -> None:
    if "ALE/" in name:
        pytest.importorskip("ale_py")
        pytest.importorskip("cv2")
    with pytest.raises(UserError) as error:
        load(name)
    assert str(error.value).startswith(message)


def test_minatar_is_there_by_its_id() -> None:
    pytest.importorskip("minatar")
    dataset = load("gym:MinAtar/Breakout-v1?envs=2&sticky_action_prob=0..0.4")
    assert dataset.info["arguments"] == {"max_episode_steps": 1_000}
    assert dataset.client_names == ("sticky_action_prob 0.1", "sticky_action_prob 0.3")
    task = QLearning(dataset, capacity=100, warmup=10)
    assert task.frames is not None
    assert (task.frames.stack, task.frames.shape, task.frames.white) == (1, (10, 10, 4), 1.0)
    with closing(open_environments(dataset, dataset.train)) as environments:
        sticky = [env.unwrapped.game.sticky_action_prob for env in environments.envs]
        seen = [environments.reset(seed=[2**62 + start] * 4)[0].copy() for start in (0, 0, 1)]
        shown = [environments.step(np.full(4, 2))[0] for _ in range(2)]
    assert sticky == pytest.approx([0.1, 0.1, 0.3, 0.3])
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(shown[0], shown[1])


def test_atari_shows_stacks_of_small_grey_frames() -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    dataset = load("gym:ALE/Pong-v5?envs=1&max_episode_steps=3&difficulty=1&noop_max=0&frame_skip=2")
    task = QLearning(dataset, capacity=20, warmup=4, steps=4, train_every=2, hidden_size=8)
    assert task.frames is not None
    assert (task.frames.stack, task.frames.shape, dataset.info["num_actions"]) == (4, (84, 84, 1), 6)
    with closing(open_environments(dataset, dataset.train)) as environments:
        bare = environments.envs[0].unwrapped
        assert (bare._frameskip, bare._game_difficulty) == (1, 1)
        environments.reset(seed=[3, 3])
        ends = [environments.step(np.zeros(2, int))[2:4] for _ in range(3)]
        assert [truncated.tolist() for _, truncated in ends] == [[False] * 2, [False] * 2, [True] * 2]
        assert bare.ale.getEpisodeFrameNumber() == 3 * 2
    agent = task.build()
    batches = list(task.batches(agent, dataset.train, torch.Generator().manual_seed(0), 3))
    assert [batch["following"].shape for batch in batches] == [(3, 4, 84, 84, 1)] * len(batches)
    assert isinstance(agent.replay, FrameReplay)
    assert len(batches) > 0


def test_an_atari_games_memory_is_a_list_of_numbers() -> None:
    pytest.importorskip("ale_py")
    dataset = load("gym:ale_py:ALE/Pong-v5?obs_type=ram&max_episode_steps=20")
    assert dataset.info["observation_size"] == 128
    assert "frame_height" not in dataset.info
