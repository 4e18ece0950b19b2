"""Penalties on a discriminator's slope, and spectral norms: exact numbers, alone and stacked."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.datasets import load_dataset
from models.images.gan import ImageGan
from models.images.penalties import between, gradient_penalty, input_gradients, r1_penalty
from models.images.pyramid import DOWN, Down
from models.images.spectral_norm import TURNS, largest_singular_value, with_spectral_norm
from models.registry import load_task
from models.stacking import StackedLayers
from models.state import build_model

IMAGES = torch.tensor([[1.0, 2.0], [0.0, -1.0]]).reshape(2, 1, 1, 2)


def linear(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """D(x) = w x, whose gradient is w everywhere."""
    return lambda image: image.flatten(1) @ weight[:, None]


def test_the_gradient_penalty_of_a_plane() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)  # of length 5
    penalty = gradient_penalty(linear(weight), IMAGES)
    penalty.backward()
    assert penalty.item() == 16
    assert weight.grad.tolist() == pytest.approx([2 * 4 * 3 / 5, 2 * 4 * 4 / 5])


def test_r1_of_a_plane_and_of_a_parabola() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    penalty = r1_penalty(linear(weight), IMAGES)
    penalty.backward()
    assert penalty.item() == 12.5
    assert weight.grad.tolist() == [3, 4]
    bend = torch.tensor(0.5, requires_grad=True)
    # D(x) = a |x|^2 has the gradient 2 a x: squares of 1 and 4, and of 1, over two images.
    penalty = r1_penalty(lambda image: bend * image.square().flatten(1).sum(1, keepdim=True), IMAGES)
    penalty.backward()
    assert penalty.item() == (5 + 1) / 2 / 2
    assert bend.grad.item() == 4 * 0.5 * (5 + 1) / 2


def test_each_image_has_the_gradient_of_its_own_logit() -> None:
    steep = input_gradients(lambda image: image.square().flatten(1).sum(1, keepdim=True), IMAGES)
    assert torch.equal(steep, 2 * IMAGES)


def test_a_plain_of_no_slope_has_a_penalty_and_no_direction() -> None:
    weight = torch.zeros(2, requires_grad=True)
    penalty = gradient_penalty(linear(weight), IMAGES)
    penalty.backward()
    assert penalty.item() == 1
    assert weight.grad.tolist() == [0, 0]


def test_points_lie_on_the_line_from_fake_to_real() -> None:
    real, fake = torch.full((3, 1, 2, 2), 4.0), torch.zeros(3, 1, 2, 2)
    part = torch.tensor([0.0, 0.25, 1.0]).reshape(3, 1, 1, 1)
    assert between(real, fake, part)[:, 0, 0, 0].tolist() == [0, 1, 4]


def test_a_penalty_is_the_one_of_plain_autograd() -> None:
    """Of a real discriminator, whose weights get second derivatives."""
    torch.manual_seed(0)
    judge, image = Down((1, 8, 8), 1, 8, "resnet").double(), torch.rand(3, 1, 8, 8, dtype=torch.float64)
    ours = torch.autograd.grad(gradient_penalty(judge, image), list(judge.parameters()), allow_unused=True)
    points = image.clone().requires_grad_()
    (slope,) = torch.autograd.grad(judge(points).sum(), points, create_graph=True)
    plain = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    theirs = torch.autograd.grad(plain, list(judge.parameters()), allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def gan(**options: Any) -> ImageGan:
    return ImageGan(load_dataset(TaskConfig(dataset="digits")), latent=4, width=8, **options)


@pytest.mark.parametrize("blocks", DOWN)
@pytest.mark.parametrize("penalty", ["gradient", "r1"])
def test_stacked_clients_pay_as_each_alone(blocks: str, penalty: str) -> None:
    """Both losses and their gradients, second derivatives among them, in float64."""
    task = gan(discriminator=blocks, penalty=penalty, spectral_norm=True)
    models = [build_model(task, seed).double() for seed in (1, 2, 3)]
    draw = torch.Generator().manual_seed(1)
    rows = task.dataset.train.take(torch.arange(5))
    batches = [{name: each.double() for name, each in task.batch(rows, draw).items()} for _ in models]
    names = [name for name, _ in models[0].named_parameters()]
    stacked = {
        name: torch.stack(
            [dict(model.named_parameters())[name].detach() for model in models]
        ).requires_grad_()
        for name in names
    }
    together = {name: torch.stack([batch[name] for batch in batches]) for name in batches[0]}
    for objective in task.objectives:
        loss = _Loss(models[0], objective.loss)
        with StackedLayers(3):
            losses = vmap(lambda weights, batch, loss=loss: functional_call(loss, weights, (batch,)))(
                {f"model.{name}": weight for name, weight in stacked.items()}, together
            )
        ours = torch.autograd.grad(losses.sum(), [*stacked.values()], allow_unused=True)
        for row, (model, batch) in enumerate(zip(models, batches, strict=True)):
            alone = objective.loss(model, batch)
            theirs = torch.autograd.grad(alone, [*model.parameters()], allow_unused=True)
            torch.testing.assert_close(losses[row], alone, rtol=1e-10, atol=1e-10)
            for name, one, other in zip(names, ours, theirs, strict=True):
                if other is None:
                    assert one is None or float(one[row].abs().max()) == 0, name
                else:
                    torch.testing.assert_close(one[row], other, rtol=1e-8, atol=1e-8, msg=name)


class _Loss(nn.Module):
    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.loss(self.model, batch)


def test_a_gan_pays_its_penalty_beside_its_loss() -> None:
    class Scalars(nn.Module):
        """G(z) = 2 z and D(x) = 3 x."""

        def __init__(self) -> None:
            super().__init__()
            self.generator, self.discriminator = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.generator.weight, 2)
            nn.init.constant_(self.discriminator.weight, 3)

    batch = {"image": torch.tensor([[0.5]]), "noise": torch.tensor([[0.25]]), "part": torch.tensor([[0.5]])}

    def losses(**options: Any) -> tuple[float, float]:
        discriminator, generator = gan(**options).objectives
        return discriminator.loss(Scalars(), batch).item(), generator.loss(Scalars(), batch).item()

    # D(real) = 1.5, as D(G(z)) is: a critic that sees no difference.
    assert losses(loss="wasserstein") == (0, -1.5)
    assert losses(loss="wasserstein", penalty="gradient") == (10 * 2**2, -1.5)
    assert losses(loss="wasserstein", penalty="gradient", penalty_weight=0.5) == (2, -1.5)
    assert losses(loss="wasserstein", penalty="r1") == (10 * 9 / 2, -1.5)
    assert losses(loss="hinge") == (0 + 2.5, -1.5)


def test_the_points_of_a_penalty_come_from_the_batch() -> None:
    """And a GAN without one draws as it did."""
    rows = gan().dataset.train.take(torch.arange(4))

    def drawn(**options: Any) -> dict[str, Tensor]:
        return dict(gan(**options).batch(rows, torch.Generator().manual_seed(7)))

    plain, first, second = drawn(), drawn(penalty="gradient"), drawn(penalty="gradient")
    assert plain.keys() == drawn(penalty="r1").keys() == {"image", "noise"}
    assert torch.equal(first["noise"], plain["noise"])
    assert first["part"].shape == (4, 1, 1, 1)
    assert torch.equal(first["part"], second["part"])
    assert ((first["part"] >= 0) & (first["part"] < 1)).all()


def test_the_largest_singular_value_and_its_gradient() -> None:
    matrix = torch.tensor([[0.0, 3.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    value = largest_singular_value(matrix)
    value.backward()
    assert value.item() == pytest.approx(3, abs=1e-12)
    expected = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(matrix.grad, expected, rtol=0, atol=1e-8)


def test_spectral_norms_of_a_discriminator_are_one() -> None:
    torch.manual_seed(0)
    judge = with_spectral_norm(Down((3, 32, 32), 1, 32, "resnet"))
    layers = [layer for layer in judge.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) for layer in layers]
    assert len(norms) == 8
    assert min(norms) > 1 - 1e-5  # what the iteration finds is the value at most
    assert max(norms) < 1.1, TURNS
    assert list(judge.buffers()) == []


def test_a_spectral_norm_of_zeros_is_zeros() -> None:
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    layer = with_spectral_norm(nn.Sequential(layer))[0]
    layer(torch.ones(1, 3)).sum().backward()
    assert layer.weight.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert layer.parametrizations.weight.original.grad.isfinite().all()


def test_a_spectral_norm_makes_scale_meaningless() -> None:
    plain, normed = gan(), gan(spectral_norm=True)
    model = build_model(normed, 1)
    image = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        before = model.discriminator(image)
        weight = model.discriminator.to_vector.parametrizations.weight.original
        weight *= 2
        torch.testing.assert_close(model.discriminator(image), before)
    assert {name.split(".")[0] for name in build_model(plain, 1).state_dict()} == {
        name.split(".")[0] for name in model.state_dict()
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("discriminator = 'dense'", "unknown discriminator 'dense': did you mean densenet?"),
        ("loss = 'wgan'", "unknown loss 'wgan': known are hinge, logistic, wasserstein"),
        ("penalty = 'r2'", "unknown penalty 'r2': known are gradient, r1"),
        ("penalty_weight = -1", "penalty_weight must be >= 0, got -1"),
        ("spectral_norm = 'yes'", "spectral_norm must be true or false, got 'yes'"),
        ("blocks = 'densenet'", "unknown blocks 'densenet': "),
    ],
)
def test_wrong_options(options: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_task(TaskConfig(task="gan", task_options=options), load_dataset(TaskConfig(dataset="digits")))
    assert str(error.value).startswith(message)
