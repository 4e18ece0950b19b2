"""Environments as rows: what is asked for, what is refused, and physics that environments really have."""

from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.environments import open_environments
from models.data.partition import make_partition
from models.data.worlds import EPISODES


def load(name: str, num_clients: int = 4) -> Dataset:
    return load_dataset(TaskConfig(dataset=name, num_clients=num_clients, partitioner="natural"))


def test_a_client_has_four_environments_unless_more_are_asked_for() -> None:
    dataset = load("gym:CartPole-v1")
    assert dataset.info == {
        "id": "CartPole-v1",
        "physics": (),
        "arguments": {},
        "observation_size": 4,
        "num_actions": 2,
        "first_action": 0,
    }
    assert (len(dataset.train), len(dataset.test)) == (16, EPISODES)
    deal = make_partition(dataset, TaskConfig(num_clients=4, partitioner="natural"))
    assert [deal[client].tolist() for client in (0, 3)] == [[0, 1, 2, 3], [12, 13, 14, 15]]
    fewer = load("gym:CartPole-v1?worlds=3&envs=5&episodes=7", num_clients=1)
    assert (len(fewer.train), len(fewer.test)) == (15, 7)


def test_worlds_split_the_ranges_evenly_and_their_rows_share_physics() -> None:
    dataset = load("gym:CartPole-v1?length=0.3..0.7&gravity=10&envs=2")
    assert dataset.info["physics"] == ("length", "gravity")
    physics = dataset.train["physics"]
    assert torch.equal(physics[0::2], physics[1::2])
    assert sorted(physics[0::2, 0].tolist()) == pytest.approx([0.35, 0.45, 0.55, 0.65])
    assert physics[:, 1].tolist() == [10.0] * 8
    held_out = sorted(dataset.test["physics"][:, 0].tolist())
    assert held_out == pytest.approx([0.31 + 0.02 * row for row in range(EPISODES)])


def test_environments_have_the_physics_of_their_rows() -> None:
    dataset = load("gym:CartPole-v1?length=0.3..0.7&masspole=0.2")
    rows = dataset.train.take(torch.tensor([0, 15]))
    with closing(open_environments(dataset, rows)) as environments:
        lengths = rows["physics"][:, 0].tolist()
        bare = [env.unwrapped for env in environments.envs]
        assert [env.length for env in bare] == lengths
        assert [env.total_mass for env in bare] == [1.2, 1.2]
        assert [env.polemass_length for env in bare] == [0.2 * length for length in lengths]


def test_physics_reach_a_constructor_that_takes_them() -> None:
    dataset = load("gym:CartPole-v1?sutton_barto_reward=1")
    with closing(open_environments(dataset, dataset.test)) as environments:
        environments.reset(seed=0)
        _, reward, *_ = environments.step(np.zeros(EPISODES, dtype=np.int64))
        assert reward.tolist() == [0.0] * EPISODES  # that rule pays -1 at the end, and else nothing


class Endless(gymnasium.Env[np.ndarray, int]):
    observation_space = Box(-1, 1, (2,))
    action_space = Discrete(2)


gymnasium.register("Endless-v0", Endless)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gym:Pendulum-v1", "Pendulum-v1 must have discrete actions, one Q-value each; its actions are Box"),
        ("gym:Endless-v0", "Endless-v0 must end its episodes: "),
        ("gym:Cartpool-v1", "gymnasium cannot make 'Cartpool-v1': Environment `Cartpool` doesn't exist. Did"),
        ("gym:nowhere:X-v0", "gymnasium cannot make 'nowhere:X-v0': No module named 'nowhere'."),
        ("gym:CartPole-v1?lenght=1", "unknown physics of CartPole-v1 'lenght': did you mean length"),
        (
            "gym:CartPole-v1?length=2..1",
            "dataset must be like 'gym:CartPole-v1?worlds=4&envs=4&length=0.3..0",
        ),
        ("gym:CartPole-v1?length", "dataset must be like 'gym:CartPole-v1?worlds=4"),
        (
            "gym:CartPole-v1?envs=0",
            "worlds, envs and max_episode_steps must be >= 1 in dataset 'gym:CartPole-v1",
        ),
        (
            "gym:CartPole-v1?envs=8&envs=4",
            "envs must be given once in dataset 'gym:CartPole-v1?envs=8&envs=4'",
        ),
        ("gym:CartPole-v1?envs=two", "envs must be a whole number, got 'two' in dataset 'gym:CartPole-v1?e"),
        ("gym:CartPole-v1?worlds=1.5", "worlds must be a whole number, got '1.5' in dataset"),
        ("gym:CartPole-v1?max_episode_steps=-1", "worlds, envs and max_episode_steps must be >= 1 in"),
        ("gym:CartPole-v1?length=0", "CartPole-v1 cannot be stepped with length = 0 (its observation is not"),
        ("gym:CartPole-v1?length=0..1", "CartPole-v1 cannot be stepped with length = 0 (its observation is"),
        ("gym:CartPole-v1?length=", "dataset must be like 'gym:CartPole-v1?worlds=4"),
        ("gym:CartPole-v1?length=nan", "dataset must be like 'gym:CartPole-v1?worlds=4"),
        (
            "gym:CartPole-v1?length=long",
            "length of CartPole-v1 must be a number or a range LOW..HIGH, got 'long'",
        ),
        (
            "gym:FrozenLake-v1?map_nam=8x8",
            "unknown argument of FrozenLake-v1 'map_nam': did you mean map_name?",
        ),
        (
            "gym:FrozenLake-v1?map_name=9x9",
            "gymnasium cannot make 'FrozenLake-v1', map_name = 9x9: KeyError: ",
        ),
        ("gym:NS/X-v0", "gymnasium cannot make 'NS/X-v0': Namespace NS not found."),
        ("gym:", "dataset must be 'gym:ID', got 'gym:'"),
        ("gym", "dataset must be 'gym:ID', got 'gym'"),
    ],
)
def test_environments_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load(name)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_texts_and_truths_are_arguments_of_every_environment() -> None:
    dataset = load("gym:FrozenLake-v1?is_slippery=false&map_name=8x8&envs=2")
    assert dataset.info["arguments"] == {"is_slippery": False, "map_name": "8x8"}
    assert (dataset.info["physics"], dataset.train["physics"].shape) == ((), (8, 0))
    with closing(open_environments(dataset, dataset.train)) as environments:
        assert environments.envs[0].unwrapped.desc.shape == (8, 8)
        seen, _ = environments.reset(seed=1)
        assert seen.tolist() == [[1] + [0] * 63] * 8  # numbered states are one-hot
        seen, *_ = environments.step(np.full(8, 2))  # to the right, where ice never slips
        assert seen.argmax(1).tolist() == [1] * 8


def test_a_limit_of_steps_ends_what_would_not_end() -> None:
    dataset = load("gym:Endless-v0?max_episode_steps=3")
    assert dataset.info["arguments"] == {"max_episode_steps": 3}
    with closing(open_environments(dataset, dataset.train)) as environments:
        assert environments.envs[0].spec.max_episode_steps == 3


class Counted(gymnasium.Env[np.ndarray, int]):
    observation_space = Box(0, 1, (1,))
    action_space = Discrete(2)

    def __init__(self, skip: int = 4, fast: bool = False, gravity: float = 9.8) -> None:
        self.given = (skip, fast, gravity)


gymnasium.register("Counted-v0", Counted, max_episode_steps=5)


def test_numbers_reach_a_constructor_in_the_type_that_it_declares() -> None:
    dataset = load("gym:Counted-v0?skip=5&fast=1&gravity=3")
    with closing(open_environments(dataset, dataset.train)) as environments:
        given = environments.envs[0].unwrapped.given
    assert [(type(value), value) for value in given] == [(int, 5), (bool, True), (float, 3.0)]


def test_a_package_that_registers_environments_is_named_with_the_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "arcade_of_mine.py").write_text(
        "import gymnasium\n"
        "pole = 'gymnasium.envs.classic_control:CartPoleEnv'\n"
        "gymnasium.register('Mine/Pole-v0', pole, max_episode_steps=9)\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError, match=r"name that too: 'gym:PACKAGE:Mine/Pole-v0'"):
        load("gym:Mine/Pole-v0")
    monkeypatch.syspath_prepend(tmp_path)
    dataset = load("gym:arcade_of_mine:Mine/Pole-v0?length=0.7")
    assert dataset.info["id"] == "arcade_of_mine:Mine/Pole-v0"
    with closing(open_environments(dataset, dataset.train)) as environments:
        assert environments.envs[0].unwrapped.length == 0.7


class Broken(gymnasium.Env):  # type: ignore[type-arg]
    def __init__(self) -> None:
        raise TypeError("a mistake of its author")


gymnasium.register("Broken-v0", Broken)


def test_a_fault_in_an_environments_code_shows_itself() -> None:
    with pytest.raises(TypeError, match="a mistake of its author"):
        load("gym:Broken-v0")


def test_as_many_clients_as_worlds() -> None:
    dataset = load("gym:CartPole-v1?worlds=3")
    with pytest.raises(UserError, match="num-clients must be 3, the natural clients of dataset"):
        make_partition(dataset, TaskConfig(num_clients=4, partitioner="natural"))
