"""Deep Q-learning: its mathematics in exact numbers, its memory, and that it learns."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from finished import result_of, run_killed
from gymnasium.spaces import Box, Discrete
from places import CONFIGS
from safetensors.torch import load_file
from torch import nn

from models.control.agent import Agent
from models.control.dqn import QLearning
from models.control.episodes import play_once
from models.control.priorities import LEAST
from models.control.replay import ReplayBuffer
from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.data.datasets import load_dataset
from models.data.environments import open_environments
from models.registry import load_task
from models.state import build_model, federated_names
from models.task import Batch
from simulations.runtime.in_process import run_in_process
from simulations.scenario import load_scenario

Make = Callable[..., dict[str, Value]]
SMALL = "steps = 12, train_every = 2, warmup = 20, capacity = 50, sync_every = 5, hidden_size = 8"


class Corridor(gymnasium.Env[np.ndarray, int]):
    """Four steps long: it counts them, pays the number of the action (2 or 3), and ends."""

    observation_space = Box(0, 9, (1,))
    action_space = Discrete(2, start=2)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(**options)
        self.place = 0
        return self.observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place += 1
        return self.observation(), float(action), self.place == 4, False, {}

    def observation(self) -> np.ndarray:
        return np.array([self.place], dtype=np.float32)


gymnasium.register("Corridor-v0", Corridor, max_episode_steps=9)
gymnasium.register("ShortCorridor-v0", Corridor, max_episode_steps=3)


def corridor(id_: str = "Corridor-v0", envs: int = 1, **options: Any) -> QLearning:
    dataset = load_dataset(TaskConfig(dataset=f"gym:{id_}?envs={envs}", num_clients=1))
    return QLearning(dataset, **options)


def linear(weights: list[float]) -> nn.Module:
    """A Q-network without a bias: Q_a(s) = weight_a * s."""
    layer = nn.Linear(1, len(weights), bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.data += torch.tensor(weights).unsqueeze(1)
    return layer


def agent_with(task: QLearning, online: list[float], target: list[float]) -> Agent:
    agent = cast(Agent, task.build())
    agent.online, agent.target = linear(online), linear(target)  # type: ignore[assignment]
    return agent


def transitions(rewards: list[float], terminated: list[bool], following: float = 2.0) -> Batch:
    count = len(rewards)
    return {
        "observation": torch.ones(count, 1),
        "action": torch.zeros(count, dtype=torch.int32),
        "reward": torch.tensor(rewards),
        "following": torch.full((count, 1), following),
        "terminated": torch.tensor(terminated),
    }


# The online network prefers action 1 and the target network action 0; s' = 2.
@pytest.mark.parametrize(("double", "value"), [(True, 2 * 3.0), (False, 2 * 5.0)])
def test_td_targets(double: bool, value: float) -> None:
    task = corridor(double=double, gamma=0.5, reward_scale=0.25)
    agent = agent_with(task, online=[1.0, 2.0], target=[5.0, 3.0])
    targets = task.targets(agent, transitions([1.0, -1.0, 7.0], [False, False, True]))
    assert targets.tolist() == [0.25 + 0.5 * value, -0.25 + 0.5 * value, 1.75]


def test_huber_loss_and_what_it_trains() -> None:
    task = corridor(gamma=0.5)
    agent = agent_with(task, online=[1.0, 2.0], target=[5.0, 3.0])
    (objective,) = task.objectives
    # Q(s, 0) = 1; the targets are 1.5 and 4.0, the errors 0.5 and 3.
    loss = objective.loss(agent, transitions([1.5, 4.0], [True, True]))
    assert loss.item() == (0.5 * 0.5**2 + (3 - 0.5)) / 2
    loss.backward()
    assert agent.get_parameter("online.weight").grad is not None
    assert agent.get_parameter("online.weight").grad.tolist() == [[(-0.5 - 1) / 2], [0.0]]  # type: ignore[union-attr]
    assert agent.get_parameter("target.weight").grad is None


def test_clipped_rewards_count_one() -> None:
    task = corridor(clip_rewards=True, reward_scale=0.5)
    agent = agent_with(task, online=[1.0, 2.0], target=[5.0, 3.0])
    targets = task.targets(agent, transitions([7.0, -3.0, 0.25], [True] * 3))
    assert targets.tolist() == [0.5, -0.5, 0.125]


def test_prioritised_errors_are_weighed_and_remembered() -> None:
    task = corridor(prioritised=True, priority_exponent=1.0, capacity=10, warmup=5)
    agent = agent_with(task, online=[1.0, 2.0], target=[5.0, 3.0])
    # Q(s, 0) = 1; the errors are -0.5 and -3.
    batch = {
        **transitions([1.5, 4.0], [True, True]),
        "slot": torch.tensor([7, 2]),
        "weight": torch.tensor([1.0, 0.5]),
    }
    (objective,) = task.objectives
    priorities = agent.replay.priorities
    assert priorities is not None
    with torch.no_grad():  # as where losses are only looked at
        objective.loss(agent, batch)
    assert priorities.priority.tolist() == [0.0] * 10
    assert objective.loss(agent, batch).item() == (0.5 * 0.5**2 + 0.5 * (3 - 0.5)) / 2
    assert priorities.priority[[7, 2]].tolist() == pytest.approx([0.5 + LEAST, 3 + LEAST])


def test_prioritised_minibatches_come_from_what_was_added() -> None:
    task = corridor(prioritised=True, warmup=6, steps=9, train_every=2, capacity=7)
    agent = cast(Agent, task.build())
    batches = list(task.batches(agent, task.dataset.train, torch.Generator().manual_seed(0), batch_size=5))
    assert len(batches) > 2
    for batch in batches:
        assert batch["weight"].tolist() == [1.0] * 5
        assert set(batch["slot"].tolist()) <= set(range(7))


def test_autocast_leaves_gradients() -> None:
    task = corridor()
    agent = agent_with(task, online=[1.0, 2.0], target=[5.0, 3.0])
    with torch.autocast("cpu", torch.bfloat16):
        loss = task.objectives[0].loss(agent, transitions([1.0], [False]))
    loss.backward()
    assert agent.get_parameter("online.weight").grad is not None


def test_the_replay_buffer_is_a_ring() -> None:
    replay = ReplayBuffer(5, observation_size=1)
    assert len(replay) == 0
    replay.add(transitions([1.0, 2.0, 3.0], [False, True, False]))
    assert (len(replay), replay.get_buffer("reward").tolist()) == (3, [1, 2, 3, 0, 0])
    replay.add(transitions([4.0, 5.0, 6.0, 7.0], [False, False, True, True]))
    assert (len(replay), int(replay.added)) == (5, 7)
    assert replay.get_buffer("reward").tolist() == [6, 7, 3, 4, 5]
    assert replay.get_buffer("terminated").tolist() == [True, True, False, False, False]


def test_samples_come_from_what_was_added_and_from_the_generator() -> None:
    replay = ReplayBuffer(100, observation_size=1)
    replay.add(transitions([1.0, 2.0, 3.0], [False, True, False]))

    def sample() -> Batch:
        return replay.sample(60, torch.Generator().manual_seed(1))

    batch = sample()
    assert set(batch["reward"].tolist()) == {1.0, 2.0, 3.0}
    assert torch.equal(batch["terminated"], batch["reward"] == 2.0)  # columns stay together
    assert torch.equal(batch["reward"], sample()["reward"])


def test_epsilon_falls_with_the_clients_own_steps() -> None:
    task = corridor(epsilon_start=0.9, epsilon_end=0.1, epsilon_steps=100)
    assert [task.epsilon(step) for step in (0, 25, 100, 10_000)] == pytest.approx([0.9, 0.7, 0.1, 0.1])


@pytest.mark.parametrize(("epsilon", "greedy"), [(0.0, 400), (1.0, 200)])
def test_actions_are_greedy_but_for_epsilon(epsilon: float, greedy: int) -> None:
    task = corridor(
        warmup=400, steps=5, train_every=4, capacity=500, epsilon_start=epsilon, epsilon_end=epsilon
    )
    agent = agent_with(task, online=[1.0, 2.0], target=[0.0, 0.0])
    list(task.batches(agent, task.dataset.train, torch.Generator().manual_seed(0), batch_size=1))
    moved = agent.replay.get_buffer("observation")[:400, 0] > 0  # where it stands at 0, Q is 0 for both
    action = agent.replay.get_buffer("action")[:400][moved]
    assert action.double().mean().item() == pytest.approx(greedy / 400, abs=0.1)


@pytest.mark.parametrize(("id_", "length"), [("Corridor-v0", 4), ("ShortCorridor-v0", 3)])
def test_what_the_buffer_remembers_of_an_episode(id_: str, length: int) -> None:
    """No transition leads from one episode into the next, and a time limit is not the end of the task."""
    task = corridor(id_, warmup=8, steps=5, train_every=4, capacity=100)
    agent = cast(Agent, task.build())
    list(task.batches(agent, task.dataset.train, torch.Generator().manual_seed(0), batch_size=1))
    replay, count = agent.replay, int(agent.replay.added)
    places = [place % length for place in range(count)]
    assert replay.get_buffer("observation")[:count, 0].tolist() == places
    assert replay.get_buffer("following")[:count, 0].tolist() == [place + 1 for place in places]
    assert replay.get_buffer("terminated")[:count].tolist() == [place == 3 for place in places]
    assert torch.equal(replay.get_buffer("reward")[:count], replay.get_buffer("action")[:count] + 2.0)


def test_an_update_for_every_few_transitions_once_warm() -> None:
    task = corridor(envs=3, warmup=10, steps=8, train_every=4, capacity=100)
    agent = cast(Agent, task.build())
    batches = list(task.batches(agent, task.dataset.train, torch.Generator().manual_seed(0), batch_size=7))
    # Of 5 steps in an environment 4 act: 4 warm-up steps add 12, the next 8 steps another 6 or 7 each of 3.
    assert int(agent.replay.added) == 12 + 3 * 6
    assert len(batches) == (12 + 18) // 4 - 12 // 4
    assert all(len(batch["reward"]) == 7 for batch in batches)
    assert task.num_examples(task.dataset.train) == 3 * 8


def test_the_target_network_is_copied_every_few_updates() -> None:
    task = corridor(sync_every=3, hidden_size=4)
    agent = cast(Agent, task.build())
    synced = []
    for update in range(1, 7):
        with torch.no_grad():
            agent.get_parameter("online.0.bias").fill_(update)
        task.after_step(agent)
        synced.append(agent.get_parameter("target.0.bias")[0].item())
    assert synced[2:] == [3.0, 3.0, 3.0, 6.0]
    assert synced[0] not in (1.0, 2.0)
    assert int(agent.updates) == 6


def test_a_client_that_comes_late_starts_from_what_the_server_sent() -> None:
    task = corridor(hidden_size=4)
    agent = cast(Agent, task.build())
    bias = agent.get_parameter("target.0.bias")
    for updates, place in ((1, 0.0), (0, 9.0)):  # one that has learned keeps its target network
        with torch.no_grad():
            bias.fill_(0.0)
            agent.get_parameter("online.0.bias").fill_(9.0)
        agent.updates.fill_(updates)
        next(iter(task.batches(agent, task.dataset.train, torch.Generator().manual_seed(0), batch_size=1)))
        assert bias.tolist() == [place] * 4


def test_what_stays_with_the_client() -> None:
    task = corridor()
    agent = build_model(task, seed=1)
    state = agent.state_dict()
    assert {name.split(".")[0] for name in federated_names(agent, task).all} == {"online"}
    assert {name for name, tensor in state.items() if name.startswith("replay.")} == {
        f"replay.{column}"
        for column in ("observation", "action", "reward", "following", "terminated", "added")
    }
    assert all(
        torch.equal(state[f"target.{name}"], tensor) for name, tensor in agent.online.state_dict().items()
    )  # type: ignore[union-attr]


def test_the_return_is_that_of_greedy_episodes() -> None:
    task = corridor()
    rows = task.dataset.test.take(torch.arange(5))
    for online, paid in (
        ([1.0, 2.0], 2 + 3 * 3.0),
        ([2.0, 1.0], 4 * 2.0),
    ):  # at place 0, action 2 wins the tie
        agent = agent_with(task, online, target=[0.0, 0.0])
        metrics = task.evaluate(agent, rows, torch.Generator().manual_seed(0))
        assert metrics == {"return": (5 * paid, 5)}
        assert task.ratios(metrics) == {"return": paid}


def test_an_observation_that_is_shown_keeps_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    def note(tensors: list[torch.Tensor]) -> torch.Tensor:
        kept.extend(each.untyped_storage().nbytes() for each in tensors)
        return torch.cat([each[None] for each in tensors])

    monkeypatch.setattr(torch, "stack", note)
    task = corridor(envs=3)
    with closing(open_environments(task.dataset, task.dataset.train)) as environments:
        play_once(environments, lambda seen: torch.ones(len(seen)).long(), 2, torch.Generator(), shown=2)
    assert kept == [4, 4]


def test_starts_follow_from_the_generator() -> None:
    config = TaskConfig(dataset="gym:CartPole-v1", num_clients=1)
    task = QLearning(load_dataset(config))
    agent = build_model(task, seed=1)

    def evaluate(seed: int) -> float:
        return task.evaluate(agent, task.dataset.test, torch.Generator().manual_seed(seed))["return"][0]

    assert evaluate(1) == evaluate(1) != evaluate(2)


@pytest.mark.parametrize(
    ("query", "panels"),
    [("", ["episode, by return"]), ("?length=0.3..0.7&gravity=9..11", ["length", "gravity"])],
)
def test_figures(query: str, panels: list[str]) -> None:
    task = QLearning(load_dataset(TaskConfig(dataset=f"gym:CartPole-v1{query}", num_clients=1)))
    rows = task.dataset.test.take(torch.arange(3))
    figures = task.figures(build_model(task, seed=1), rows, torch.Generator().manual_seed(0))
    assert [axes.get_xlabel() for axes in figures["returns"].axes] == panels
    above, below = figures["episode"].axes
    assert (len(above.lines), len(below.lines)) == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("gamma = 1", "gamma must be in [0, 1), got 1"),
        ("capacity = 3", "capacity must be >= 4, the dataset's environments, got 3"),
        ("reward_scale = 0", "reward_scale must be > 0, got 0"),
        ("warmup = 0", "warmup must be in [1, capacity = 20000], got 0"),
        ("steps = 8", "steps must be > train_every = 8, got 8"),
        ("prioritised = true, priority_exponent = 2", "priority_exponent must be in [0, 1], got 2"),
        ("prioritised = true, priority_correction = -1", "priority_correction must be in [0, 1], got -1"),
        ("priority_steps = 0", "priority_steps must be >= 1, got 0"),
        ("epsilon_end = 2", "epsilon_end must be in [0, epsilon_start], got 2"),
        ("duble = true", "unknown option of task dqn 'duble': did you mean double?"),
    ],
)
def test_options_that_are_refused(options: str, message: str) -> None:
    config = TaskConfig(task="dqn", dataset="gym:CartPole-v1", task_options=options, num_clients=1)
    with pytest.raises(UserError) as error:
        load_task(config, load_dataset(config))
    assert str(error.value).startswith(message)


def small(tiny: Make, folder: Path, **overrides: Value) -> dict[str, Value]:
    given: dict[str, Value] = {
        "task": "dqn",
        "task_options": SMALL,
        "dataset": "gym:CartPole-v1?envs=2&length=0.3..0.7",
        "partitioner": "natural",
        "num_server_rounds": 4,
        "keep_optimizer": True,
        "run_dir": str(folder),
    }
    return tiny(**{**given, **overrides})


def test_one_hash_for_one_node_or_three(tiny: Make, tmp_path: Path) -> None:
    hashes = set()
    for num_nodes in (1, 3):
        folder = tmp_path / str(num_nodes)
        run_in_process(small(tiny, folder), num_nodes)
        hashes.add(result_of(folder)["weights_sha256"])
    assert len(hashes) == 1


@pytest.mark.slow
def test_sigkill_and_resume_bring_the_replay_buffer_back(tiny: Make, tmp_path: Path) -> None:
    killed, whole, survivor = tmp_path / "killed", tmp_path / "whole", tmp_path / "now-it-survives"
    config = small(
        tiny,
        killed,
        task="faulty:FaultyQLearning",
        task_options=f"{SMALL}, kill_at = [3, 1], unless = '{survivor}'",
        checkpoint_every=2,
    )
    run_killed(config, num_nodes=1)
    assert result_of(killed)["status"] == "unfinished"

    survivor.touch()
    run_in_process({**config, "resume": True}, num_nodes=2)
    run_in_process({**config, "run-dir": str(whole)}, num_nodes=1)
    assert result_of(killed)["weights_sha256"] == result_of(whole)["weights_sha256"]
    states = [
        load_file(run / "clients" / "001" / "client-1" / "round-4.safetensors") for run in (killed, whole)
    ]
    assert int(states[0]["model.replay.added"]) > 4 * 12
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_four_federated_clients_balance_the_pole(tmp_path: Path, seed: int) -> None:
    """The kept best model, over 20 episodes that did not help to choose it."""
    config = load_scenario(CONFIGS / "dqn.toml") | {"seed": seed, "run-dir": str(tmp_path / "run")}
    run_in_process(config, num_nodes=2)
    task_config = TaskConfig(task="dqn", dataset=str(config["dataset"]), num_clients=4)
    dataset = load_dataset(task_config)
    task = load_task(TaskConfig(task="dqn", task_options=str(config["task-options"])), dataset)
    agent = build_model(task, seed)
    agent.load_state_dict(load_file(tmp_path / "run" / "models" / "best.safetensors"), strict=False)
    generator = torch.Generator().manual_seed(1_000 + seed)
    assert task.ratios(task.evaluate(agent, dataset.test, generator))["return"] >= 400
