"""What is earned in an environment: by random actions, or by the model that a run has kept.

python -m simulations.bench.play gym:MinAtar/Breakout-v1
python -m simulations.bench.play runs/dqn-minatar --episodes 200
"""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from models.control.dqn import greedy
from models.control.episodes import Policy, play_once
from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.environments import open_environments
from server.starting_point import BEST
from simulations.runs.kept import load_kept_model
from simulations.terminal import harmless


def returns(dataset: Dataset, policy: Policy, episodes: int, generator: torch.Generator) -> Tensor:
    """Return the undiscounted returns (episodes,) of a policy, from starts that the generator draws."""
    played: list[Tensor] = []
    while (left := episodes - sum(map(len, played))) > 0:
        rows = dataset.test.take(torch.arange(min(left, len(dataset.test))))
        with closing(open_environments(dataset, rows)) as environments:
            played.append(play_once(environments, policy, int(dataset.info["first_action"]), generator)[0])
    return torch.cat(played)


def at_random(dataset: Dataset, generator: torch.Generator) -> Policy:
    """Return the policy that draws all actions alike."""
    num_actions = int(dataset.info["num_actions"])
    return lambda observation: torch.randint(num_actions, (len(observation),), generator=generator)


def kept_by(run_dir: Path) -> tuple[Dataset, Policy]:
    """Return the environments of a run, and the greedy policy of its best model."""
    kept = load_kept_model(run_dir, "play", which=BEST)
    return _environments(kept.task.dataset), lambda observation: greedy(kept.model, observation)


def _environments(dataset: Dataset) -> Dataset:
    if dataset.kind != "environments":
        raise UserError(f"dataset must hold environments, and {dataset.name} holds {dataset.kind}")
    return dataset


def main(
    what: Annotated[str, typer.Argument(help="Environments, as a run calls them, or the folder of a run.")],
    episodes: Annotated[int, typer.Option(min=2, help="Episodes to play.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of starts, and of random actions.")] = 42,
) -> None:
    """Print the mean return of random play, or of a run's best model, and its standard error."""
    torch.set_num_threads(1)
    try:
        said = _mean_return(what, episodes, seed)
    except UserError as error:
        typer.echo(harmless(str(error)), err=True)
        raise typer.Exit(2) from error
    typer.echo(said)


def _mean_return(what: str, episodes: int, seed: int) -> str:
    generator = torch.Generator().manual_seed(seed)
    if Path(what).is_dir():
        dataset, policy = kept_by(Path(what))
    else:
        dataset = _environments(load_dataset(TaskConfig(dataset=what, num_clients=1)))
        policy = at_random(dataset, generator)
    found = returns(dataset, policy, episodes, generator)
    error = float(found.std()) / len(found) ** 0.5
    return f"mean return {float(found.mean()):.3f} +- {error:.3f} of {len(found)} episodes"


if __name__ == "__main__":
    typer.run(main)
