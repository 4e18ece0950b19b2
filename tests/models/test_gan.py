"""The GAN: its losses in exact numbers, its two steps a batch, what it shares, and that it learns."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished import result_of, run_killed
from rounding import distance
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.core.seeds import generator_for
from models.data.dataset import Dataset, Examples
from models.data.datasets import load_dataset
from models.images.gan import ImageGan
from models.registry import load_task
from models.state import build_model
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]
LOCAL = "local = ['discriminator.*']"


def toy(**changes: Any) -> Dataset:
    """Return three images of which every pixel is 0, 2 or 4 out of 4."""
    image = torch.tensor([0, 2, 4], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 1, 8, 8).clone()
    rows = Examples({"image": image, "label": torch.tensor([0, 1, 1])})
    options: dict[str, Any] = {"label": "label", "classes": ("a", "b"), "info": {"max_value": 4}}
    return Dataset("toy", "images", rows, rows, **(options | changes))


class Scalars(nn.Module):
    """Networks of one weight: G(z) = 2 z and D(x) = 3 x, on (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.generator.weight, 2)
        nn.init.constant_(self.discriminator.weight, 3)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.rounding
def test_both_losses_and_whom_they_train() -> None:
    batch = {"image": torch.tensor([[0.5]]), "noise": torch.tensor([[0.1]])}
    real, fake = 3 * 0.5, 3 * 2 * 0.1
    discriminator, generator = ImageGan(toy()).objectives

    model = Scalars()
    loss = discriminator.loss(model, batch)
    assert loss.item() == pytest.approx(-math.log(sigmoid(real)) - math.log(1 - sigmoid(fake)))
    loss.backward()
    assert model.generator.weight.grad is None
    slope = -(1 - sigmoid(real)) * 0.5 + sigmoid(fake) * 2 * 0.1
    assert model.discriminator.weight.grad.item() == pytest.approx(slope)

    model = Scalars()
    loss = generator.loss(model, batch)
    assert loss.item() == pytest.approx(-math.log(sigmoid(fake)))
    loss.backward()
    assert model.discriminator.weight.grad is None
    assert model.generator.weight.grad.item() == pytest.approx(-(1 - sigmoid(fake)) * 3 * 0.1)


def test_a_batch_carries_images_and_noise_from_the_generator_alone() -> None:
    task = ImageGan(toy(), latent=5)

    def batches(seed: int) -> list[dict[str, torch.Tensor]]:
        torch.rand(3)  # somebody else draws from torch's own generator
        generator = torch.Generator().manual_seed(seed)
        return [dict(batch) for batch in task.batches(nn.Module(), task.dataset.train, generator, 2)]

    first = batches(1)
    assert [batch["image"].shape for batch in first] == [(2, 1, 8, 8), (1, 1, 8, 8)]
    assert [batch["noise"].shape for batch in first] == [(2, 5), (1, 5)]
    assert sorted(torch.cat([batch["image"] for batch in first])[:, 0, 0, 0].tolist()) == [-1, 0, 1]
    assert torch.equal(first[0]["noise"], batches(1)[0]["noise"])
    assert not torch.equal(first[0]["noise"], batches(2)[0]["noise"])


class Forger(nn.Module):
    """Draws the given images, whatever the noise."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.pages = iter(images.split(200))

    def generator(self, noise: torch.Tensor) -> torch.Tensor:
        return 2 * next(self.pages) - 1


@pytest.mark.rounding
@torch.no_grad()
def test_who_draws_the_held_out_rows_is_at_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.images.frechet._STEPS", 5)
    task = ImageGan(load_dataset(TaskConfig(dataset="digits")))
    test = task.dataset.test

    def fid(images: torch.Tensor) -> dict[str, float]:
        metrics = task.evaluate(Forger(images.float() / 16), test, torch.Generator())
        assert {weight for _, weight in metrics.values()} == {len(test)}
        return task.ratios(metrics)

    forged = fid(test["image"])
    assert forged["fid"] == pytest.approx(forged["fid-floor"], rel=1e-4)
    assert fid(16 - test["image"])["fid"] > 10 * forged["fid-floor"] > 0


def test_samples_are_drawn_from_fixed_noise() -> None:
    task = ImageGan(load_dataset(TaskConfig(dataset="digits")))
    model = build_model(task, seed=1)

    def pixels() -> Any:
        (figure,) = task.figures(model, task.dataset.test, torch.Generator().manual_seed(3)).values()
        return figure.axes[0].images[0].get_array()

    with torch.no_grad():
        first = pixels()
        assert first.shape == (1 + 8 * 9, 1 + 8 * 9, 3)  # eight by eight images with a line around each
        assert first.min() >= 0
        assert first.max() <= 1
        assert np.array_equal(first, pixels())


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ("", {"classes": ()}, "task gan needs labels to measure its images with, and dataset 'toy' has none"),
        ("width = 30", {}, "width must be a positive multiple of 8, got 30"),
        (
            "local = 'discriminator.*'",
            {},
            "local must be a list of patterns such as ['features.*'], got",
        ),
        ("local = [1]", {}, "local must be a list of patterns such as ['features.*'], got [1]"),
        ("local = ['d.*']", {}, "local pattern 'd.*' matches nothing: the model has generator*, discrimin"),
        ("local = ['*']", {}, "local = ['*'], freeze = [] leaves nothing to average: name fewer weights"),
    ],
)
def test_a_gan_that_cannot_be_made(options: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build_model(load_task(TaskConfig(task="gan", task_options=options), toy(**changes)), seed=1)
    assert str(error.value).startswith(message)


def plain_pytorch(rounds: int, batch_size: int) -> dict[str, torch.Tensor]:
    """Train as tutorials do, one network after the other, with kept Adam states."""
    task = ImageGan(load_dataset(TaskConfig(dataset="digits")), width=8)
    train = task.dataset.train
    gan = build_model(task, 42)
    steps = {
        part: torch.optim.Adam(getattr(gan, part).parameters(), lr=2e-4, betas=(0.5, 0.999))
        for part in ("discriminator", "generator")
    }
    for server_round in range(1, rounds + 1):
        draw = generator_for(42, "train", server_round, 0)
        for rows in torch.randperm(len(train), generator=draw).split(batch_size):
            noise = torch.randn(len(rows), task.latent, generator=draw)
            real = gan.discriminator(train["image"][rows] / 16 * 2 - 1)
            fake = gan.discriminator(gan.generator(noise).detach())
            gan.zero_grad()
            (F.softplus(-real).mean() + F.softplus(fake).mean()).backward()
            steps["discriminator"].step()
            fake = gan.discriminator(gan.generator(noise))
            gan.zero_grad()
            F.softplus(-fake).mean().backward()
            steps["generator"].step()
    return gan.state_dict()


def test_one_client_equals_plain_pytorch(
    tiny: Make, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In particular, neither objective's gradients leak into the other's step."""
    monkeypatch.setattr("models.images.frechet._STEPS", 1)
    config = tiny(
        task="gan",
        task_options="width = 8",
        num_clients=1,
        partitioner="iid",
        batch_size=128,
        keep_optimizer=True,
        evaluate_every=0,
    )
    run_in_process(config)
    federated = load_file(Path(str(config["run-dir"])) / "models" / "last.safetensors")
    expected = plain_pytorch(rounds=2, batch_size=128)
    assert federated.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(federated[name], weight), name


@pytest.mark.parametrize("options", ["width = 8", f"width = 8, blocks = 'resnet', {LOCAL}"])
def test_one_hash_for_one_node_and_three(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    monkeypatch.setattr("models.images.frechet._STEPS", 1)
    hashes = set()
    for num_nodes in (1, 3):
        folder = tmp_path / f"{num_nodes}-nodes"
        config = tiny(
            task="gan",
            task_options=options,
            num_clients=7,
            batch_size=128,
            evaluate_every=0,
            run_dir=str(folder),
        )
        run_in_process(config, num_nodes)
        hashes.add(result_of(folder)["weights_sha256"])
    assert len(hashes) == 1


def test_local_discriminators_stay_and_differ(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.images.frechet._STEPS", 1)
    run_in_process(tiny(task="gan", task_options=f"width = 8, {LOCAL}", batch_size=128, evaluate_every=0))
    sent = load_file(tmp_path / "run" / "models" / "last.safetensors")
    assert {name.split(".")[0] for name in sent} == {"generator"}
    name = "model.discriminator.to_vector.weight"
    kept = [load_file(path)[name] for path in (tmp_path / "run" / "clients").rglob("round-2.safetensors")]
    assert len(kept) == 4
    assert not torch.equal(kept[0], kept[1])


@pytest.mark.slow
def test_sigkill_and_resume_with_local_discriminators(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.images.frechet._STEPS", 1)
    survivor = tmp_path / "now-it-survives"
    config = tiny(
        task="faulty:FaultyGan",
        task_options=f"kill_at = [4, 1], unless = '{survivor}', width = 8, {LOCAL}",
        num_server_rounds=5,
        keep_optimizer=True,
        evaluate_every=0,
        batch_size=128,
        checkpoint_every=2,  # the third round is done again, from discriminators of the second
    )
    run_killed(config)
    assert (
        json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["status"] == "unfinished"
    )
    survivor.touch()
    run_in_process({**config, "resume": True}, num_nodes=1)
    run_in_process({**config, "run-dir": str(tmp_path / "whole")}, num_nodes=2)
    resumed, whole = result_of(tmp_path / "run"), result_of(tmp_path / "whole")
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["final"] == whole["final"]


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.parametrize("options", ["", LOCAL])
def test_federated_clients_learn_to_draw(tiny: Make, tmp_path: Path, options: str) -> None:
    """The bar: a quarter of the untrained generator's distance."""
    config = tiny(
        task="gan",
        task_options=options,
        partitioner="iid",
        num_server_rounds=25,
        batch_size=16,
        keep_optimizer=True,
        evaluate_every=25,
    )
    run_in_process(config)
    rows = [
        json.loads(line)
        for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    untrained, trained = rows[0]["central"], rows[-1]["central"]
    assert trained["fid"] < untrained["fid"] / 4
    assert trained["fid"] > trained["fid-floor"] > 0


@pytest.mark.parametrize("options", ["loss = 'wasserstein', penalty = 'gradient'", "penalty = 'r1'"])
def test_a_penalised_gan_is_the_same_by_both_engines(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, float64: None, options: str
) -> None:
    monkeypatch.setattr("models.images.frechet._STEPS", 1)
    weights = []
    for engine in ("loop", "stacked"):
        config = tiny(
            task="gan",
            task_options=f"width = 8, blocks = 'resnet', discriminator = 'densenet', {options}",
            engine=engine,
            examples_per_client=20,
            batch_size=10,
            evaluate_every=0,
            optimizer="sgd",
            learning_rate=0.001,
            run_dir=str(tmp_path / engine),
        )
        run_in_process(config)
        weights.append(load_file(tmp_path / engine / "models" / "last.safetensors"))
    assert distance(*weights) < 1e-10
