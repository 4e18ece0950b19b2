"""Deep Q-learning: the batches come from acting in an environment."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.control.agent import Agent
from models.control.episodes import Policy, play, play_once
from models.control.frames import frames_of
from models.control.priorities import Priorities
from models.core.config import require
from models.data.dataset import Dataset, Examples
from models.data.environments import open_environments
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 1_000
"""Steps of an episode that a figure shows."""
SHOWN_AT_ONCE = 100
"""Observations that a network looks at together for that."""


class QLearning(Task):
    """Learn which action is worth most in an environment.

    DQN (Mnih et al. 2015, doi:10.1038/nature14236), by default Double DQN (arXiv:1509.06461). A local epoch
    is `steps` steps in each of the client's environments. Every epoch starts new episodes, since gymnasium's
    environments cannot be saved: so a client is what its state on disk says, and a resumed run repeats
    exactly.

    Options: `double`, whether the online network picks the action whose value the target network gives;
    `dueling`, whether the network adds up the value of a state and the advantages of actions
    (arXiv:1511.06581); `gamma`, discount a step; `reward_scale`, factor on rewards while learning: beyond
    errors of 1 the Huber loss no longer heeds how wrong it is, so keep Q-values about 1; `clip_rewards`,
    whether a reward counts no more than 1 and no less than -1 before that; `hidden_size`, of the hidden
    layers; `capacity`, transitions that the replay buffer holds, or frames, of which each is kept once;
    `warmup`, transitions that come before learning starts; `steps` a local epoch; `train_every`,
    transitions an update; `sync_every`, updates between copies to the target network; `epsilon_start`,
    `epsilon_end` and `epsilon_steps`, the chance of a random action, which falls linearly over the client's
    own transitions; `prioritised`, whether transitions are drawn by their last error (arXiv:1511.05952), to
    the power of `priority_exponent`, with weights against that of the power `priority_correction`, which
    rises to 1 within `priority_steps` of the client's own transitions.
    """

    kind = "environments"
    local = ("target.*", "replay.*")
    metric = "return"

    def __init__(
        self,
        dataset: Dataset,
        double: bool = True,
        gamma: float = 0.99,
        reward_scale: float = 1.0,
        hidden_size: int = 128,
        capacity: int = 20_000,
        warmup: int = 1_000,
        steps: int = 500,
        train_every: int = 8,
        sync_every: int = 20,
        epsilon_start: float = 1.0,
        epsilon_end: float = 0.05,
        epsilon_steps: int = 8_000,
        dueling: bool = False,
        clip_rewards: bool = False,
        prioritised: bool = False,
        priority_exponent: float = 0.6,
        priority_correction: float = 0.4,
        priority_steps: int = 100_000,
    ) -> None:
        super().__init__(dataset)
        require(0 <= gamma < 1, "gamma", "in [0, 1)", gamma)
        require(reward_scale > 0, "reward_scale", "> 0", reward_scale)
        require(hidden_size >= 1, "hidden_size", ">= 1", hidden_size)
        self.frames = frames_of(dataset.info)
        num_rows = len(dataset.train)
        require(capacity >= num_rows, "capacity", f">= {num_rows}, the dataset's environments", capacity)
        if self.frames:  # that of a client with more than one environment is seen in round 1
            self.frames.check_capacity(capacity, 1)
        require(1 <= warmup <= capacity, "warmup", f"in [1, capacity = {capacity}]", warmup)
        require(train_every >= 1, "train_every", ">= 1", train_every)
        require(steps > train_every, "steps", f"> train_every = {train_every}", steps)
        require(sync_every >= 1, "sync_every", ">= 1", sync_every)
        require(0 <= epsilon_end <= epsilon_start <= 1, "epsilon_end", "in [0, epsilon_start]", epsilon_end)
        require(epsilon_steps >= 1, "epsilon_steps", ">= 1", epsilon_steps)
        require(0 <= priority_exponent <= 1, "priority_exponent", "in [0, 1]", priority_exponent)
        require(0 <= priority_correction <= 1, "priority_correction", "in [0, 1]", priority_correction)
        require(priority_steps >= 1, "priority_steps", ">= 1", priority_steps)
        self.first_action = int(dataset.info["first_action"])
        self.reward_scale = reward_scale
        self.double, self.gamma, self.hidden_size, self.capacity = double, gamma, hidden_size, capacity
        self.warmup, self.steps, self.train_every, self.sync_every = warmup, steps, train_every, sync_every
        self.epsilon_start, self.epsilon_end, self.epsilon_steps = epsilon_start, epsilon_end, epsilon_steps
        self.dueling, self.clip_rewards, self.prioritised = dueling, clip_rewards, prioritised
        self.priority = (priority_exponent, priority_correction, priority_steps)

    def build(self) -> nn.Module:
        """Return an agent that has seen nothing."""
        priorities = Priorities(self.capacity, *self.priority) if self.prioritised else None
        return Agent(self.dataset.info, self.hidden_size, self.capacity, self.dueling, priorities)

    def notes(self) -> Sequence[tuple[int, str]]:
        """Say what memories of pictures take."""
        if not self.frames:
            return ()
        height, width, channels = self.frames.shape
        size = self.capacity * self.frames.num_bytes / 2**20
        line = (
            f"each client remembers {self.capacity:,} frames of {height}x{width}x{channels}, {size:,.0f} MiB "
            "of memory; its state on disk is as large, after each round that a checkpoint needs"
        )
        return ((logging.INFO, line),)

    @property
    def objectives(self) -> Sequence[Objective]:
        """Huber loss on the temporal difference, by Adam."""
        adam = OptimizerChoice("adam", 1e-3, {"fused": True})  # spares small tensors the overhead
        return [Objective("loss", self._huber, ("online.*",), adam)]

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        """Act in the client's environments, and yield a minibatch for every `train_every` transitions."""
        agent = cast(Agent, model)
        replay = agent.replay
        if not agent.updates:  # a client that comes late would learn from the values of the untrained network
            agent.sync_target()
        with closing(open_environments(self.dataset, data)) as environments:
            replay.begin(environments.num_envs)
            steps = play(environments, self._explorer(agent, generator), self.first_action, generator)
            while int(replay.added) < self.warmup:
                replay.keep(next(steps))
            for step in islice(steps, self.steps):
                before = int(replay.added) // self.train_every
                replay.keep(step)
                for _ in range(int(replay.added) // self.train_every - before):
                    yield replay.sample(batch_size, generator)

    def num_batches(self, data: Examples, batch_size: int) -> int:
        """Return the updates of a local epoch."""
        return len(data) * self.steps // self.train_every

    def num_examples(self, data: Examples) -> int:
        """Return the steps of a local epoch over all environments."""
        return len(data) * self.steps

    def after_step(self, model: nn.Module) -> None:
        """Count the update, and copy the online to the target network where it is time."""
        agent = cast(Agent, model)
        agent.updates += 1
        if int(agent.updates) % self.sync_every == 0:
            agent.sync_target()

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sum of the undiscounted returns of one greedy episode for each example."""
        returns, _ = self._greedy_episodes(model, data, generator, shown=0)
        return {"return": (float(returns.sum()), len(returns))}

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw the return of each held-out episode, and the course of the first one."""
        from models.control.dqn_figures import draw_episode, draw_frames, draw_returns

        returns, observations = self._greedy_episodes(model, data, generator, SHOWN)
        values = torch.cat([_q_values(model, part) for part in observations.split(SHOWN_AT_ONCE)])
        if self.frames:
            episode = draw_frames(self.frames.stacked(observations)[:, -1], values)
        else:
            episode = draw_episode(observations, values)
        return {
            "returns": draw_returns(returns, data["physics"], self.dataset.info["physics"]),
            "episode": episode,
        }

    def epsilon(self, step: int) -> float:
        """Return the chance of a random action after so many transitions of the client."""
        done = min(step / self.epsilon_steps, 1.0)
        return self.epsilon_start + done * (self.epsilon_end - self.epsilon_start)

    def targets(self, agent: Agent, batch: Batch) -> Tensor:
        """r + gamma Q(s', a') with the target network's Q, and 0 beyond a terminal state: (B,).

        Where a time limit cut an episode off, its value goes on: that is not the end of the task.
        """
        value = agent.target(batch["following"])
        chosen = (agent.online(batch["following"]) if self.double else value).argmax(1, keepdim=True)
        following: Tensor = value.gather(1, chosen).squeeze(1) * ~batch["terminated"]
        reward = batch["reward"].clamp(-1, 1) if self.clip_rewards else batch["reward"]
        return self.reward_scale * reward + self.gamma * following

    def _huber(self, model: nn.Module, batch: Batch) -> Tensor:
        agent = cast(Agent, model)
        # Before the targets: autocast reuses its copies of weights, and theirs would have no gradients.
        values = agent(batch["observation"]).gather(1, batch["action"].long().unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            targets = self.targets(agent, batch)
        if agent.replay.priorities is None:
            return F.smooth_l1_loss(values, targets)
        if values.requires_grad:  # not where a loss is only looked at
            agent.replay.priorities.learn(batch["slot"], (values - targets).detach())
        return (batch["weight"] * F.smooth_l1_loss(values, targets, reduction="none")).mean()

    def _explorer(self, agent: Agent, generator: torch.Generator) -> Policy:
        """Return the policy that acts at random with probability epsilon, and else greedily."""
        num_actions = self.dataset.info["num_actions"]

        def policy(observation: Tensor) -> Tensor:
            count = len(observation)
            explores = torch.rand(count, generator=generator) < self.epsilon(int(agent.replay.added))
            at_random = torch.randint(num_actions, (count,), generator=generator)
            return torch.where(explores, at_random, greedy(agent, observation))

        return policy

    def _greedy_episodes(
        self, model: nn.Module, data: Examples, generator: torch.Generator, shown: int
    ) -> tuple[Tensor, Tensor]:
        with closing(open_environments(self.dataset, data)) as environments:
            return play_once(environments, partial(greedy, model), self.first_action, generator, shown)


@torch.no_grad()
def _q_values(model: nn.Module, observation: Tensor) -> Tensor:
    """Observations (B, ...) on the CPU -> Q-values (B, num_actions) on the CPU."""
    values: Tensor = model(observation.to(next(model.parameters()).device))
    return values.cpu()


def greedy(model: nn.Module, observation: Tensor) -> Tensor:
    """Return the action that the model thinks most of, for each observation."""
    return _q_values(model, observation).argmax(1)
