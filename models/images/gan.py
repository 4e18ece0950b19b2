"""Image generation by two networks against each other: DCGAN (Radford et al. 2016, arXiv:1511.06434)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from models.core.config import require
from models.core.errors import UserError, unknown
from models.data.dataset import Dataset, Examples
from models.images.frechet import FeatureExtractor
from models.images.grid import image_grid
from models.images.penalties import between, gradient_penalty, r1_penalty
from models.images.pyramid import DOWN, Down, Up, check_pyramid, image_shape
from models.images.spectral_norm import with_spectral_norm
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = 8
"""Rows and columns of the drawn samples."""
_CHUNK = 200
PENALTIES = ("", "gradient", "r1")


@dataclass(frozen=True)
class GanLoss:
    """What logits cost: the discriminator for real and for generated images, the generator for its own."""

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


LOSSES: Mapping[str, GanLoss] = {
    "logistic": GanLoss(lambda logit: F.softplus(-logit), F.softplus, lambda logit: F.softplus(-logit)),
    "hinge": GanLoss(lambda logit: F.relu(1 - logit), lambda logit: F.relu(1 + logit), torch.neg),
    "wasserstein": GanLoss(torch.neg, lambda logit: logit, torch.neg),
}
"""Goodfellow et al. 2014 (arXiv:1406.2661, eq. 1, and for the generator section 3: -log D(G(z)), which pulls
where the discriminator wins), Lim & Ye 2017 (arXiv:1705.02894), Arjovsky et al. 2017 (arXiv:1701.07875)."""


class Gan(nn.Module):
    """A generator of images in [-1, 1] and the discriminator that it must deceive."""

    def __init__(
        self, shape: tuple[int, int, int], latent: int, width: int, blocks: str, discriminator: str = ""
    ) -> None:
        super().__init__()
        self.generator = nn.Sequential(Up(shape, latent, width, blocks), nn.Tanh())
        self.discriminator = Down(shape, 1, width, discriminator or blocks)


class ImageGan(Task):
    """Learn to draw images of 8x8 to 64x64 pixels, grey or RGB.

    Options: `latent`, numbers that an image is drawn from; `width`, channels of the layers next to the
    image; `blocks`, "plain" or "resnet"; `discriminator`, "plain", "resnet" or "densenet", where it has other
    blocks than the generator; `loss`, "logistic", "hinge" or "wasserstein"; `penalty` on the discriminator's
    slope, "gradient" (WGAN-GP) or "r1"; `penalty_weight`, the times that it counts; `spectral_norm`, whether
    the discriminator's weights are divided by their largest singular value. With
    `local = ['discriminator.*']` only the generators are averaged, and nobody's discriminator, which has seen
    the images, leaves its client.

    Metrics: `fid`, the Fréchet distance of as many samples as there are examples to the training images, and
    `fid-floor`, that of the examples themselves. Merged over clients they are means, not the distance of all.
    """

    kind = "images"
    stackable = True
    batches_anywhere = True
    metric = "fid"
    maximize = False
    metrics = ("fid-floor",)

    def __init__(
        self,
        dataset: Dataset,
        latent: int = 32,
        width: int = 32,
        blocks: str = "plain",
        discriminator: str = "",
        loss: str = "logistic",
        penalty: str = "",
        penalty_weight: float = 10.0,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__(dataset)
        if not dataset.classes:
            raise UserError(
                f"task gan needs labels to measure its images with, and dataset {dataset.name!r} has none"
            )
        check_pyramid(latent, width, blocks)
        for option, given, known in (
            ("discriminator", discriminator, ("", *DOWN)),
            ("loss", loss, LOSSES),
            ("penalty", penalty, PENALTIES),
        ):
            if given not in known:
                raise unknown(option, given, filter(None, known))
        require(penalty_weight >= 0, "penalty_weight", ">= 0", penalty_weight)
        self.discriminator, self.loss, self.penalty = discriminator, LOSSES[loss], penalty
        self.penalty_weight, self.spectral_norm = penalty_weight, spectral_norm
        self.shape = image_shape(dataset)
        self.latent, self.width, self.blocks = latent, width, blocks
        self.max_value = float(dataset.info["max_value"])
        self._feature_extractor: FeatureExtractor | None = None

    def build(self) -> nn.Module:
        """Return both networks for the dataset's image size."""
        gan = Gan(self.shape, self.latent, self.width, self.blocks, self.discriminator)
        if self.spectral_norm:
            with_spectral_norm(gan.discriminator)
        return gan

    @property
    def objectives(self) -> Sequence[Objective]:
        """The discriminator's and then the generator's, by Adam as in the paper."""
        adam = OptimizerChoice("adam", 2e-4, {"betas": (0.5, 0.999)})
        return [
            Objective("discriminator-loss", self._discriminator_loss, ("discriminator.*",), adam),
            Objective("generator-loss", self._generator_loss, ("generator.*",), adam),
        ]

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return the images in [-1, 1], the noise to draw as many from, and where a penalty looks."""
        image = 2 * (examples["image"].float() / self.max_value) - 1
        batch = {"image": image, "noise": self._noise(len(examples), generator)}
        if self.penalty == "gradient":
            batch["part"] = torch.rand(len(examples), 1, 1, 1, generator=generator)
        return batch

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the distances of samples and of the examples to the training images, times the examples."""
        extractor, num_rows = self._extractor(), len(data)
        samples = self._samples(model, self._noise(num_rows, generator))
        rows = data["image"].float() / self.max_value
        return {
            "fid": (extractor.distance(samples) * num_rows, num_rows),
            "fid-floor": (extractor.distance(rows) * num_rows, num_rows),
        }

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw samples; from the same generator they are of the same noise, whatever the round."""
        samples = self._samples(model, self._noise(GRID * GRID, generator))
        return {"samples": image_grid(samples, "Samples from fixed noise", GRID)}

    def _discriminator_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what real images and generated ones cost the discriminator, and its penalty."""
        gan = cast(Gan, model)
        with torch.no_grad():
            fake = gan.generator(batch["noise"])
        real_logit, fake_logit = gan.discriminator(batch["image"]), gan.discriminator(fake)
        loss = self.loss.real(real_logit.float()).mean() + self.loss.fake(fake_logit.float()).mean()
        if self.penalty == "gradient":
            points = between(batch["image"], fake, batch["part"])
            return loss + self.penalty_weight * gradient_penalty(gan.discriminator, points)
        if self.penalty == "r1":
            return loss + self.penalty_weight * r1_penalty(gan.discriminator, batch["image"])
        return loss

    def _generator_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what generated images cost the generator."""
        gan = cast(Gan, model)
        # Held fixed, the discriminator passes gradients on without computing its own.
        held = {name: weight.detach() for name, weight in gan.discriminator.named_parameters()}
        logit = functional_call(gan.discriminator, held, gan.generator(batch["noise"]))
        return self.loss.generator(logit.float()).mean()

    def _noise(self, num_rows: int, generator: torch.Generator) -> Tensor:
        return torch.randn(num_rows, self.latent, generator=generator)

    def _samples(self, model: nn.Module, noise: Tensor) -> Tensor:
        """(N, latent) -> (N, C, H, W) in [0, 1], on the CPU."""
        generator, device = cast(Gan, model).generator, next(model.parameters()).device
        drawn = [generator(chunk.to(device)).float().cpu() for chunk in noise.split(_CHUNK)]
        return (torch.cat(drawn) + 1) / 2

    def _extractor(self) -> FeatureExtractor:
        """Return the feature extractor, which is trained when it is first needed: workers seldom need one."""
        if self._feature_extractor is None:
            train = self.dataset.train.take(torch.arange(len(self.dataset.train)))  # a copy that nobody keeps
            images = train["image"].float() / self.max_value
            self._feature_extractor = FeatureExtractor(images, train["label"], len(self.dataset.classes))
        return self._feature_extractor
