"""Runs on games: one hash however clients are packed, and after SIGKILL and resume."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from finished import result_of, run_killed
from places import CONFIGS
from safetensors.torch import load_file

from models.core.config import Value
from simulations.bench.play import at_random, kept_by, returns
from simulations.runtime.in_process import run_in_process
from simulations.scenario import load_scenario

Make = Callable[..., dict[str, Value]]


def game(tiny: Make, folder: Path, id_: str, options: str, **overrides: Value) -> dict[str, Value]:
    small = f"steps = 12, train_every = 4, warmup = 20, capacity = 60, hidden_size = 8, {options}"
    return tiny(
        task="faulty:FaultyQLearning",
        task_options=small,
        dataset=f"gym:{id_}",
        num_clients=2,
        partitioner="natural",
        num_server_rounds=3,
        batch_size=4,
        keep_optimizer=True,
        checkpoint_every=1,
        evaluate_every=0,
        run_dir=str(folder),
        **overrides,
    )


def killed_and_whole(tiny: Make, folder: Path, id_: str, options: str) -> None:
    """Run once as a whole on one node, once with a death and two nodes after it; compare all that is left."""
    killed, whole, survivor = folder / "killed", folder / "whole", folder / "now-it-survives"
    config = game(tiny, killed, id_, f"{options}, kill_at = [3, 1], unless = '{survivor}'")
    run_killed(config, num_nodes=1)
    assert result_of(killed)["status"] == "unfinished"
    survivor.touch()
    run_in_process({**config, "resume": True}, num_nodes=2)
    run_in_process({**config, "run-dir": str(whole)}, num_nodes=1)
    assert result_of(killed)["weights_sha256"] == result_of(whole)["weights_sha256"]
    states = [
        load_file(run / "clients" / "001" / "client-1" / "round-3.safetensors") for run in (killed, whole)
    ]
    assert int(states[0]["model.replay.dropped"]) > 0
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


@pytest.mark.slow
def test_minatar_resumes_to_the_equal_hash(tiny: Make, tmp_path: Path) -> None:
    pytest.importorskip("minatar")
    options = "dueling = true, prioritised = true"
    killed_and_whole(tiny, tmp_path, "MinAtar/Breakout-v1?envs=3&episodes=2", options)


@pytest.mark.bar  # to start a game takes a fifth of a second, in every round
@pytest.mark.slow
def test_pong_resumes_to_the_equal_hash(tiny: Make, tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    game_of_ten = "ALE/Pong-v5?envs=1&episodes=1&max_episode_steps=10"
    killed_and_whole(tiny, tmp_path, game_of_ten, "clip_rewards = true")


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_four_federated_clients_break_bricks(tmp_path: Path, seed: int) -> None:
    """The kept best model, over 200 episodes that did not help to choose it, against random actions."""
    pytest.importorskip("minatar")
    run = tmp_path / "run"
    run_in_process(load_scenario(CONFIGS / "dqn-minatar.toml") | {"seed": seed, "run-dir": str(run)}, 2)
    dataset, policy = kept_by(run)
    generator = torch.Generator().manual_seed(1_000 + seed)
    by_chance = returns(dataset, at_random(dataset, generator), 1_000, generator).mean()
    assert returns(dataset, policy, 200, generator).mean() >= 3 * by_chance > 0
