"""The runs behind the table of model families: each family's federated, centralized and local-only ones."""

import random
from dataclasses import dataclass
from pathlib import Path

from models.core.config import TaskConfig, read
from models.core.errors import UserError
from models.core.seeds import derive_seed
from server.config import ServerConfig
from server.strategy import cohort_size
from simulations.experiments.trial import Trial, fingerprint
from simulations.scenario import load_scenario

TWIN = "-centralized"
"""What the centralized baseline of the scenario NAME has after its name."""


@dataclass(frozen=True)
class Family:
    """One row of the table."""

    name: str
    federated: Trial
    centralized: Trial
    alone: tuple[Trial, ...]
    """Clients that train by themselves."""
    num_clients: int
    """Clients of the federation, of which those are all or a sample."""
    seed: int

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All its runs."""
        return (self.federated, self.centralized, *self.alone)


def find_pairs(scenarios: Path) -> dict[str, Path]:
    """Return NAME -> NAME.toml for every scenario in the folder with a NAME-centralized.toml beside it.

    Raises UserError for a folder without any, or a centralized scenario without its federated one.
    """
    names = [path.stem.removesuffix(TWIN) for path in sorted(scenarios.glob(f"*{TWIN}.toml"))]
    if not names:
        raise UserError(f"{scenarios} holds no pair of scenarios NAME.toml and NAME{TWIN}.toml")
    pairs = {name: scenarios / f"{name}.toml" for name in names}
    for name, path in pairs.items():
        if not path.is_file():
            raise UserError(f"{scenarios} holds {name}{TWIN}.toml without {name}.toml: add or remove one")
    return pairs


def plan_family(scenario: Path, folder: Path, num_alone: int, seed: int | None) -> Family:
    """Return the runs of a scenario and its twin, by folders in `folder`.

    `num_alone` clients train by themselves, drawn from the seed where there are more. Without `seed` it is
    the scenario's own.
    """
    name, given = scenario.stem, () if seed is None else (f"seed={seed}",)

    def trial(run: str, path: Path, *overrides: str) -> Trial:
        config = load_scenario(path, (*given, *overrides))
        where = folder / name / f"{run.replace(' ', '-')}-{fingerprint(config)}"
        return Trial(f"{name} {run}", path, (*given, *overrides), int(config["num-server-rounds"]), where)

    config = read(TaskConfig, full := load_scenario(scenario, given))
    draw = random.Random(derive_seed(config.seed, "alone"))
    clients = sorted(draw.sample(range(config.num_clients), min(num_alone, config.num_clients)))
    by_itself = _by_itself(read(ServerConfig, full), config.num_clients)
    return Family(
        name,
        trial("federated", scenario),
        trial("centralized", scenario.with_stem(name + TWIN)),
        tuple(
            trial(f"client {client}", scenario, *by_itself, f"strategy-options=client = {client}")
            for client in clients
        ),
        config.num_clients,
        config.seed,
    )


def _by_itself(config: ServerConfig, num_clients: int) -> tuple[str, ...]:
    """Return what a client's run by itself has over the federation's.

    It takes part in every round, so that it gets as many of them as a client of the federation takes part
    in on average, and is evaluated as often as the federation.
    """
    share = cohort_size(config, num_clients) / num_clients
    rounds = max(1, round(config.num_server_rounds * share))
    every = config.evaluate_every and max(1, round(config.evaluate_every * share))
    return (
        "strategy=LocalOnly",
        "clients-per-round=1",
        f"num-server-rounds={rounds}",
        f"evaluate-every={every}",
        "draw-every=0",
    )
