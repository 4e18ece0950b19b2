"""Environments as rows: what is asked for, what is refused, and physics that environments really have."""

from contextlib import closing

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.environments import EPISODES, open_environments
from models.data.partition import make_partition


def load(name: str, num_clients: int = 4) -> Dataset:
    return load_dataset(TaskConfig(dataset=name, num_clients=num_clients, partitioner="natural"))


def test_a_client_has_four_environments_unless_more_are_asked_for() -> None:
    dataset = load("gym:CartPole-v1")
    assert dataset.info == {
        "id": "CartPole-v1",
        "physics": (),
        "observation_size": 4,
        "num_actions": 2,
        "first_action": 0,
    }
    assert (len(dataset.train), len(dataset.test)) == (16, EPISODES)
    deal = make_partition(dataset, TaskConfig(num_clients=4, partitioner="natural"))
    assert [deal[client].tolist() for client in (0, 3)] == [[0, 1, 2, 3], [12, 13, 14, 15]]
    assert len(load("gym:CartPole-v1?worlds=3&envs=5", num_clients=1).train) == 15


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
        (
            "gym:FrozenLake-v1",
            "FrozenLake-v1 must have a flat Box observation (size,); its observation is Di",
        ),
        ("gym:Endless-v0", "Endless-v0 must end its episodes: "),
        ("gym:Cartpool-v1", "gymnasium cannot make 'Cartpool-v1': Environment `Cartpool` doesn't exist. Did"),
        ("gym:nowhere:X-v0", "gymnasium cannot make 'nowhere:X-v0': No module named 'nowhere'."),
        ("gym:CartPole-v1?lenght=1", "unknown physics of CartPole-v1 'lenght': did you mean length"),
        (
            "gym:CartPole-v1?length=2..1",
            "dataset must be like 'gym:CartPole-v1?worlds=4&envs=4&length=0.3..0",
        ),
        ("gym:CartPole-v1?length", "dataset must be like 'gym:CartPole-v1?worlds=4"),
        ("gym:CartPole-v1?envs=0", "worlds and envs must be >= 1 in dataset 'gym:CartPole-v1?envs=0'"),
        ("gym:", "dataset must be like 'gym:CartPole-v1?worlds=4"),
        ("gym", "unknown dataset 'gym': did you mean gym:?"),
    ],
)
def test_environments_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load(name)
    assert str(error.value).startswith(message)


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
