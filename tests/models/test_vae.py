"""The VAE: both terms of its bound in exact numbers, what beta changes, and that it learns."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from finished import Make, finish, finish_alike
from torch import nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.datasets import load_dataset
from models.images.unet import UnetDecoder
from models.images.vae import ImageVae, Vae, bound_terms
from models.registry import load_task
from models.state import build_model

PIXELS = 64


def toy(num_rows: int = 3) -> Dataset:
    """Return white images of 8x8 pixels, which need no labels."""
    rows = Examples({"image": torch.full((num_rows, 1, 8, 8), 4, dtype=torch.uint8)})
    return Dataset("toy", "images", rows, rows, info={"max_value": 4})


@pytest.mark.rounding
def test_the_terms_of_the_bound() -> None:
    image = torch.tensor([1.0, 0.0, 0.5]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    logits = torch.full((3, 1, 2, 2), math.log(3))  # three quarters white
    mean = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 1.0]])
    log_variance = torch.tensor([[0.0, 0.0], [0.0, 0.0], [math.log(4), 0.0]])
    reconstruction, kl = bound_terms(image, logits, mean, log_variance)
    white, black = -math.log(0.75), -math.log(0.25)
    assert reconstruction.tolist() == pytest.approx([4 * white, 4 * black, 2 * white + 2 * black])
    assert kl.tolist() == pytest.approx([0, (1 + 4) / 2, (4 - 1 - math.log(4)) / 2 + 1 / 2])


@pytest.mark.rounding
def test_the_continuous_bernoulli_by_hand() -> None:
    """Its density is C(p) p^x (1 - p)^(1 - x), C(p) = 2 artanh(1 - 2 p) / (1 - 2 p), and C(1/2) = 2."""
    image = torch.tensor([0.25, 1.0]).reshape(2, 1, 1, 1)
    logits = torch.tensor([math.log(3), 0.0]).reshape(2, 1, 1, 1)  # p of 3/4 and 1/2
    code = torch.zeros(2, 1)
    surprise, _ = bound_terms(image, logits, code, code, "continuous-bernoulli")
    density = 2 * math.atanh(-0.5) / -0.5 * 0.75**0.25 * 0.25**0.75
    assert surprise.tolist() == pytest.approx([-math.log(density), 0.0], abs=1e-5)


def test_binarised_pixels_are_ones_with_their_probability() -> None:
    task = ImageVae(toy(400), latent=2, likelihood="binarised")  # of pixels of full white
    assert task.batch(task.dataset.train, torch.Generator().manual_seed(1))["image"].eq(1).all()
    grey = Examples({"image": torch.ones(400, 1, 8, 8, dtype=torch.uint8)})  # a quarter
    first, again = (task.batch(grey, torch.Generator().manual_seed(1))["image"] for _ in range(2))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert float(first.mean()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(first, again)


def test_an_unknown_likelihood_is_refused() -> None:
    message = "likelihood must be one of bernoulli, binarised, continuous-bernoulli, got 'gaussian'"
    with pytest.raises(UserError, match=message):
        ImageVae(toy(2), likelihood="gaussian")


@pytest.mark.parametrize("engine", ["loop", "stacked"])
@pytest.mark.parametrize("likelihood", ["binarised", "continuous-bernoulli"])
def test_every_likelihood_trains(tiny: Make, likelihood: str, engine: str) -> None:
    options = f"likelihood = '{likelihood}', latent = 2, width = 8"
    config = tiny(task="vae", engine=engine, task_options=options, examples_per_client=32, evaluate_every=1)
    result = finish(config)
    bounds = [row["central"]["elbo"] for row in result["rows"]]
    assert bounds[-1] > bounds[0]


class Known(nn.Module):
    """Encodes to N(1, 1) in two numbers; gives every pixel the code's first number as its logit."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, image: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean = self.weight * torch.ones_like(noise)
        code = mean + noise
        return code[:, :1, None, None].expand_as(image), mean, torch.zeros_like(mean)


@pytest.mark.rounding
@pytest.mark.parametrize("num_rows", [3, 205])
@torch.no_grad()
def test_metrics_are_sums_with_noise_from_the_generator(num_rows: int) -> None:
    """With more rows than one chunk holds nothing changes but the numbers."""
    task = ImageVae(toy(num_rows), latent=2, beta=7.0)
    metrics = task.evaluate(Known(), task.dataset.test, torch.Generator().manual_seed(5))
    code = 1 + torch.randn(num_rows, 2, generator=torch.Generator().manual_seed(5))[:, 0].double()
    reconstruction = PIXELS * float(torch.log1p(torch.exp(-code)).sum())
    assert metrics["reconstruction"] == (pytest.approx(reconstruction, rel=1e-5), num_rows)
    assert metrics["kl"] == (num_rows, num_rows)  # half of 1 + 1, for each
    assert metrics["elbo"] == (pytest.approx(-reconstruction - num_rows, rel=1e-5), num_rows)


@pytest.mark.rounding
def test_beta_weighs_the_divergence_in_training_alone() -> None:
    batch = {"image": torch.ones(2, 1, 8, 8), "noise": torch.zeros(2, 2)}
    losses = {}
    for beta in (0.0, 1.0, 4.0):
        (objective,) = ImageVae(toy(), latent=2, beta=beta).objectives
        losses[beta] = objective.loss(Known(), batch).item()
    reconstruction = PIXELS * math.log(1 + math.exp(-1))
    assert losses == {beta: pytest.approx(reconstruction + beta) for beta in (0.0, 1.0, 4.0)}


def test_the_code_is_drawn_around_its_mean() -> None:
    model = build_model(ImageVae(toy(), latent=2, width=8), seed=1)
    image = torch.ones(1, 1, 8, 8)
    with torch.no_grad():
        at_mean, mean, log_variance = model(image, torch.zeros(1, 2))
        away, *_ = model(image, torch.ones(1, 2))
        assert torch.equal(at_mean, model.decoder(mean))
        assert torch.equal(away, model.decoder(mean + (log_variance / 2).exp()))
        assert not torch.equal(at_mean, away)


def test_a_batch_carries_images_and_noise_from_the_generator_alone() -> None:
    task = ImageVae(toy(), latent=5)

    def noise(seed: int) -> torch.Tensor:
        torch.rand(3)  # somebody else draws from torch's own generator
        batches = list(task.batches(nn.Module(), task.dataset.train, torch.Generator().manual_seed(seed), 2))
        assert [batch["image"].shape for batch in batches] == [(2, 1, 8, 8), (1, 1, 8, 8)]
        assert batches[0]["image"].unique().tolist() == [1]
        return torch.cat([batch["noise"] for batch in batches])

    assert noise(1).shape == (3, 5)
    assert torch.equal(noise(1), noise(1))
    assert not torch.equal(noise(1), noise(2))


@torch.no_grad()
def test_the_figures_show_inputs_over_reconstructions_and_samples() -> None:
    task = ImageVae(load_dataset(TaskConfig(dataset="digits")))
    figures = task.figures(build_model(task, 1), task.dataset.test, torch.Generator().manual_seed(3))
    pairs, samples = (figures[name].axes[0].images[0].get_array() for name in ("reconstructions", "samples"))
    assert pairs.shape == (1 + 2 * 9, 1 + 12 * 9, 3)  # two rows of twelve, with a line around each
    assert samples.shape == (1 + 8 * 9, 1 + 8 * 9, 3)
    second = torch.as_tensor(pairs[1:9, 10:18, 0])
    assert torch.equal(second, task.dataset.test["image"][1, 0] / 16)


def test_a_negative_beta_is_refused() -> None:
    with pytest.raises(UserError, match=r"beta must be >= 0, got -1"):
        load_task(TaskConfig(task="vae", task_options="beta = -1"), toy())


def test_one_hash_for_one_node_and_three(tiny: Make, tmp_path: Path) -> None:
    finish_alike(tiny, tmp_path, task="vae", task_options="width = 8", num_clients=7, batch_size=128)


@pytest.mark.bar
@pytest.mark.slow
def test_federated_is_within_3_percent_of_centralized(tiny: Make, tmp_path: Path) -> None:
    """At equal epochs over all rows; one client takes four times the steps of each of four."""
    shared: dict[str, Any] = {
        "task": "vae",
        "partitioner": "iid",
        "num_server_rounds": 20,
        "keep_optimizer": True,
        "evaluate_every": 0,
    }
    alone = finish(tiny(**shared, num_clients=1, batch_size=32, run_dir=str(tmp_path / "alone")))
    together = finish(tiny(**shared, num_clients=4, batch_size=8, run_dir=str(tmp_path / "together")))
    untrained = PIXELS * math.log(2)
    assert alone["final"]["elbo"] > -untrained / 1.6
    assert together["final"]["elbo"] > 1.03 * alone["final"]["elbo"]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 9, 30)])
@pytest.mark.parametrize("decoder", ["", "unet"])
def test_the_decoder_is_a_function_of_the_code_alone(shape: tuple[int, int, int], decoder: str) -> None:
    """Two images with one code are drawn alike, and no gradient reaches an image past its code."""
    torch.manual_seed(0)
    model = Vae(shape, 4, 8, "resnet", decoder)
    first, second, noise = torch.rand(2, *shape), torch.rand(2, *shape), torch.rand(2, 4)
    drawn, mean, log_variance = model(first, noise)
    code = mean + (log_variance / 2).exp() * noise
    assert drawn.shape == first.shape
    assert torch.equal(drawn, model.decoder(code))
    model.encoder.forward = lambda image: torch.cat([code, torch.full_like(code, -torch.inf)], 1).detach()
    assert torch.equal(model(second, noise)[0], drawn)
    image = first.clone().requires_grad_()
    again, _, _ = model(image, noise)
    assert torch.autograd.grad(again.sum(), image, allow_unused=True) == (None,)


def test_a_unet_hands_its_own_maps_on() -> None:
    """Without the connections, its last layers would see what the narrowest map holds alone."""
    torch.manual_seed(0)
    decoder = UnetDecoder((1, 32, 32), 4, 8, "plain")
    code = torch.rand(3, 4)
    assert decoder.canvas == (8, 16, 16)
    with torch.no_grad():
        whole = decoder(code)
        for narrow in decoder.down:
            for weight in narrow.parameters():
                weight.zero_()
        assert not torch.equal(decoder(code), whole)  # the way through the narrow maps counts
        assert not torch.equal(decoder(code)[0], decoder(code)[1])  # and is not the only one


def test_a_unet_stacks_and_learns(tiny: Make, tmp_path: Path) -> None:
    options = "blocks = 'resnet', decoder = 'unet', latent = 4, width = 8"
    given = {"task": "vae", "task_options": options, "examples_per_client": 64, "num_server_rounds": 3}
    results = {
        engine: finish(tiny(**given, engine=engine, run_dir=str(tmp_path / engine)))
        for engine in ("loop", "stacked")
    }
    for result in results.values():
        bounds = [row["central"]["elbo"] for row in result["rows"]]
        assert bounds[-1] > bounds[0] + 2
    assert results["loop"]["final"]["elbo"] == pytest.approx(results["stacked"]["final"]["elbo"], rel=1e-3)


def test_an_unknown_decoder_is_refused() -> None:
    with pytest.raises(UserError, match=r"^unknown decoder 'u-net': did you mean unet"):
        ImageVae(toy(), decoder="u-net")
