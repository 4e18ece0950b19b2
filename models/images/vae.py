"""Image generation by a variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.distributions import ContinuousBernoulli
from torch.nn import functional as F

from models.core.config import require
from models.core.errors import unknown
from models.data.dataset import Dataset, Examples
from models.images.grid import image_grid
from models.images.pyramid import Down, Up, check_pyramid, image_shape
from models.images.unet import UnetDecoder
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = 8
"""Rows and columns of the drawn samples."""
PAIRS = 12
"""Held-out images that are drawn over their reconstructions."""
LIKELIHOODS = ("bernoulli", "binarised", "continuous-bernoulli")
"""What a pixel x in [0, 1] is taken for.

- "bernoulli": the probability of a one. A usual shortcut, and no likelihood of x, so that its bounds compare
  among such models alone.
- "binarised": a one with probability x, drawn anew for each batch (Burda et al. 2016, arXiv:1509.00519), as
  most papers on MNIST report.
- "continuous-bernoulli": a number (Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845); it has a density, so
  the bound may be positive.
"""
DECODERS: Mapping[str, type[Up] | type[UnetDecoder]] = {"": Up, "unet": UnetDecoder}
"""Name -> what draws an image from a code; "" is the encoder mirrored."""
_CHUNK = 200


class Vae(nn.Module):
    """An encoder to the mean and log variance of a Gaussian code, and a decoder to Bernoulli logits."""

    def __init__(
        self, shape: tuple[int, int, int], latent: int, width: int, blocks: str, decoder: str = ""
    ) -> None:
        super().__init__()
        self.encoder = Down(shape, 2 * latent, width, blocks)
        self.decoder = DECODERS[decoder](shape, latent, width, blocks)

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, H, W) in [0, 1], (B, latent) -> logits (B, C, H, W), mean and log variance (B, latent)."""
        mean, log_variance = self.encoder(image).chunk(2, dim=1)
        code = mean + (log_variance / 2).exp() * noise
        return self.decoder(code), mean, log_variance


class ImageVae(Task):
    """Learn to encode and to draw images of 8x8 to 64x64 pixels, grey or RGB.

    Options: `latent`, numbers in a code; `width`, channels of the layers next to the image; `blocks`,
    "plain" or "resnet"; `decoder`, "unet" or "", the encoder mirrored; `beta`, the weight of the KL
    divergence in training (Higgins et al. 2017); `likelihood`, what a pixel x in [0, 1] is: "bernoulli",
    "binarised" or "continuous-bernoulli".

    Metrics, in nats an image: `elbo` = -(`reconstruction` + `kl`), whatever beta is, so that betas compare.
    Likelihoods do not: each is of other data.
    """

    kind = "images"
    stackable = True
    batches_anywhere = True
    metric = "elbo"
    metrics = ("reconstruction", "kl")

    def __init__(
        self,
        dataset: Dataset,
        latent: int = 16,
        width: int = 32,
        blocks: str = "plain",
        beta: float = 1.0,
        likelihood: str = "bernoulli",
        decoder: str = "",
    ) -> None:
        super().__init__(dataset)
        check_pyramid(latent, width, blocks)
        if decoder not in DECODERS:
            raise unknown("decoder", decoder, filter(None, DECODERS))
        require(beta >= 0, "beta", ">= 0", beta)
        require(likelihood in LIKELIHOODS, "likelihood", f"one of {', '.join(LIKELIHOODS)}", likelihood)
        self.likelihood = likelihood
        self.batches_anywhere = likelihood != "binarised"  # whose pixels are drawn on the CPU
        self.shape = image_shape(dataset)
        self.latent, self.width, self.blocks, self.beta = latent, width, blocks, beta
        self.decoder = decoder
        self.max_value = float(dataset.info["max_value"])

    def build(self) -> nn.Module:
        """Return encoder and decoder for the dataset's image size."""
        return Vae(self.shape, self.latent, self.width, self.blocks, self.decoder)

    @property
    def objectives(self) -> Sequence[Objective]:
        """The negative evidence lower bound, by Adam."""
        return [Objective("loss", self._loss, optimizer=OptimizerChoice("adam", 1e-3))]

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return the images and the noise of their codes."""
        noise = self._noise(len(examples), generator)
        return {"image": self._data(examples["image"], generator), "noise": noise}

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of the bound and its two terms, with one code drawn for each image."""
        device = next(model.parameters()).device
        noise = self._noise(len(data), generator)
        reconstruction = kl = 0.0
        for rows in torch.arange(len(data)).split(_CHUNK):
            image = self._data(data["image"][rows], generator).to(device)
            logits, mean, log_variance = model(image, noise[rows].to(device))
            terms = bound_terms(image, logits, mean, log_variance, self.likelihood)
            reconstruction += float(terms[0].double().sum())
            kl += float(terms[1].double().sum())
        sums = {"elbo": -(reconstruction + kl), "reconstruction": reconstruction, "kl": kl}
        return {name: (total, len(data)) for name, total in sums.items()}

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw held-out images over the reconstructions from their mean codes, and samples of the prior."""
        device = next(model.parameters()).device
        image = self._pixels(data["image"][:PAIRS])
        logits, _, _ = model(image.to(device), torch.zeros(len(image), self.latent, device=device))
        samples = self._mean(cast(Vae, model).decoder(self._noise(GRID * GRID, generator).to(device)))
        pairs = torch.cat([image, self._mean(logits).cpu()])
        return {
            "reconstructions": image_grid(pairs, "Held-out images over reconstructions", len(image)),
            "samples": image_grid(samples, "Samples from fixed noise", GRID),
        }

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        logits, mean, log_variance = model(batch["image"], batch["noise"])
        reconstruction, kl = bound_terms(batch["image"], logits, mean, log_variance, self.likelihood)
        return (reconstruction + self.beta * kl).mean()

    def _noise(self, num_rows: int, generator: torch.Generator) -> Tensor:
        return torch.randn(num_rows, self.latent, generator=generator)

    def _data(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return what is to be encoded and explained: the pixels, or for "binarised" zeros and ones."""
        pixels = self._pixels(image)
        return torch.bernoulli(pixels, generator=generator) if self.likelihood == "binarised" else pixels

    def _mean(self, logits: Tensor) -> Tensor:
        """Return the mean of the pixels that the decoder describes."""
        if self.likelihood == "continuous-bernoulli":
            mean: Tensor = ContinuousBernoulli(logits=logits, validate_args=False).mean
            return mean
        return logits.sigmoid()

    def _pixels(self, image: Tensor) -> Tensor:
        return image.float() / self.max_value


def bound_terms(
    image: Tensor, logits: Tensor, mean: Tensor, log_variance: Tensor, likelihood: str = "bernoulli"
) -> tuple[Tensor, Tensor]:
    """Return both terms of the negative bound for each image (B,), in nats (ibid., eq. 10 and appendix B).

    The first is -log p(x | z) under the `likelihood` of a pixel, the second KL(q(z | x) || N(0, 1)).
    """
    if likelihood == "continuous-bernoulli":
        # Without validation, which would look at values under torch.func.vmap.
        surprise = -ContinuousBernoulli(logits=logits.float(), validate_args=False).log_prob(image)
    else:
        surprise = F.binary_cross_entropy_with_logits(logits.float(), image, reduction="none")
    mean, log_variance = mean.float(), log_variance.float()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return surprise.flatten(1).sum(1), divergence.sum(1)
