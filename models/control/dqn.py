"""Deep Q-learning: the batches come from acting in an environment."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.control.episodes import Policy, Step, play, play_once
from models.control.replay import ReplayBuffer
from models.core.config import require
from models.data.dataset import Dataset, Examples
from models.data.environments import open_environments
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Agent(nn.Module):
    """All that a learner remembers: two Q-networks, its transitions and how often it has learned."""

    updates: Tensor

    def __init__(self, observation_size: int, num_actions: int, hidden_size: int, capacity: int) -> None:
        super().__init__()

        def network() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(observation_size, hidden_size),
                nn.ReLU(),
                nn.Linear(hidden_size, hidden_size),
                nn.ReLU(),
                nn.Linear(hidden_size, num_actions),
            )

        self.online, self.target = network(), network().requires_grad_(False)
        self.replay = ReplayBuffer(capacity, observation_size)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.sync_target()

    def forward(self, observation: Tensor) -> Tensor:
        """(B, O) -> Q-values (B, num_actions)."""
        values: Tensor = self.online(observation)
        return values

    def sync_target(self) -> None:
        """Copy the online network to the target network."""
        self.target.load_state_dict(self.online.state_dict())


class QLearning(Task):
    """Learn which action is worth most in an environment.

    DQN (Mnih et al. 2015, doi:10.1038/nature14236), by default Double DQN (arXiv:1509.06461). A local epoch
    is `steps` steps in each of the client's environments. Every epoch starts new episodes, since gymnasium's
    environments cannot be saved: so a client is what its state on disk says, and a resumed run repeats
    exactly.

    Options: `double`, whether the online network picks the action whose value the target network gives;
    `gamma`, discount a step; `reward_scale`, factor on rewards while learning: beyond errors of 1 the Huber
    loss no longer heeds how wrong it is, so keep Q-values about 1; `hidden_size`, of both hidden layers;
    `capacity`, transitions that the replay buffer holds; `warmup`, transitions that it holds before
    learning starts; `steps` a local epoch; `train_every`, transitions an update; `sync_every`, updates
    between copies to the target network; `epsilon_start`, `epsilon_end` and `epsilon_steps`, the chance of
    a random action, which falls linearly over the client's own transitions.
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
    ) -> None:
        super().__init__(dataset)
        require(0 <= gamma < 1, "gamma", "in [0, 1)", gamma)
        require(reward_scale > 0, "reward_scale", "> 0", reward_scale)
        require(hidden_size >= 1, "hidden_size", ">= 1", hidden_size)
        num_rows = len(dataset.train)
        require(capacity >= num_rows, "capacity", f">= {num_rows}, the dataset's environments", capacity)
        require(1 <= warmup <= capacity, "warmup", f"in [1, capacity = {capacity}]", warmup)
        require(train_every >= 1, "train_every", ">= 1", train_every)
        require(steps > train_every, "steps", f"> train_every = {train_every}", steps)
        require(sync_every >= 1, "sync_every", ">= 1", sync_every)
        require(0 <= epsilon_end <= epsilon_start <= 1, "epsilon_end", "in [0, epsilon_start]", epsilon_end)
        require(epsilon_steps >= 1, "epsilon_steps", ">= 1", epsilon_steps)
        self.first_action = int(dataset.info["first_action"])
        self.reward_scale = reward_scale
        self.double, self.gamma, self.hidden_size, self.capacity = double, gamma, hidden_size, capacity
        self.warmup, self.steps, self.train_every, self.sync_every = warmup, steps, train_every, sync_every
        self.epsilon_start, self.epsilon_end, self.epsilon_steps = epsilon_start, epsilon_end, epsilon_steps

    def build(self) -> nn.Module:
        """Return an agent that has seen nothing."""
        info = self.dataset.info
        return Agent(info["observation_size"], info["num_actions"], self.hidden_size, self.capacity)

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
            steps = play(environments, self._explorer(agent, generator), self.first_action, generator)
            while len(replay) < self.warmup:
                replay.add(_taken(next(steps)))
            for step in islice(steps, self.steps):
                before = int(replay.added) // self.train_every
                replay.add(_taken(step))
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
        returns, _ = self._greedy_episodes(model, data, generator)
        return {"return": (float(returns.sum()), len(returns))}

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw the return of each held-out episode, and the course of the first one."""
        from models.control.dqn_figures import draw_episode, draw_returns

        returns, observations = self._greedy_episodes(model, data, generator)
        values = _q_values(model, observations)
        return {
            "returns": draw_returns(returns, data["physics"], self.dataset.info["physics"]),
            "episode": draw_episode(observations, values),
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
        return self.reward_scale * batch["reward"] + self.gamma * following

    def _huber(self, model: nn.Module, batch: Batch) -> Tensor:
        agent = cast(Agent, model)
        # Before the targets: autocast reuses its copies of weights, and theirs would have no gradients.
        values = agent(batch["observation"]).gather(1, batch["action"].long().unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            targets = self.targets(agent, batch)
        return F.smooth_l1_loss(values, targets)

    def _explorer(self, agent: Agent, generator: torch.Generator) -> Policy:
        """Return the policy that acts at random with probability epsilon, and else greedily."""
        num_actions = self.dataset.info["num_actions"]

        def policy(observation: Tensor) -> Tensor:
            count = len(observation)
            explores = torch.rand(count, generator=generator) < self.epsilon(int(agent.replay.added))
            at_random = torch.randint(num_actions, (count,), generator=generator)
            return torch.where(explores, at_random, _greedy(agent, observation))

        return policy

    def _greedy_episodes(
        self, model: nn.Module, data: Examples, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        with closing(open_environments(self.dataset, data)) as environments:
            return play_once(environments, partial(_greedy, model), self.first_action, generator)


def _taken(step: Step) -> Batch:
    """Return the transitions of the environments that acted."""
    return {name: column[step.acted] for name, column in step.transitions.items()}


@torch.no_grad()
def _q_values(model: nn.Module, observation: Tensor) -> Tensor:
    """Observations (B, O) on the CPU -> Q-values (B, num_actions) on the CPU."""
    values: Tensor = model(observation.to(next(model.parameters()).device))
    return values.cpu()


def _greedy(model: nn.Module, observation: Tensor) -> Tensor:
    return _q_values(model, observation).argmax(1)
