"""Fréchet distance between sets of images (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

The paper compares features of an Inception network that was trained on ImageNet. Here a small classifier
trained on the dataset at hand gives the features: it needs no download, and it knows what tells these
images apart. So distances compare within a dataset, not with numbers of other papers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SEED = 0
"""The feature extractor is the same whatever the seed of the run, so that runs compare."""
_NUM_FEATURES = 64
_STEPS, _BATCH = 400, 64
_CHUNK = 500


@dataclass(frozen=True)
class Moments:
    """The Gaussian that stands for a set of images."""

    mean: Tensor
    """(D,), float64."""
    covariance: Tensor
    """(D, D), float64."""

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """Fit the Gaussian to features (N, D), N >= 1; the covariance is over N - 1, as theirs is."""
        wide = features.double()
        mean = wide.mean(0)
        centred = wide - mean
        return cls(mean, centred.T @ centred / max(1, len(wide) - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return |mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) for covariances S; never negative.

    With S = L L^T for both, the eigenvalues of S_a S_b are the squared singular values of L_a^T L_b, so
    that no matrix root is taken, and covariances may be singular.
    """
    roots = torch.linalg.svdvals(_factor(a.covariance).T @ _factor(b.covariance)).sum()
    apart = (a.mean - b.mean).square().sum()
    return max(0.0, float(apart + a.covariance.trace() + b.covariance.trace() - 2 * roots))


def _factor(covariance: Tensor) -> Tensor:
    """Return L (D, D) with L L^T = covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    factor: Tensor = vectors * values.clamp(min=0).sqrt()
    return factor


class FeatureExtractor:
    """A classifier of real images, on the CPU, by whose features sets of images are compared."""

    def __init__(self, images: Tensor, labels: Tensor, num_classes: int) -> None:
        """Train on images (N, C, H, W) in [0, 1] and labels (N,) of integers below `num_classes`."""
        _, channels, height, width = images.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            self._trunk = nn.Sequential(
                nn.Conv2d(channels, 16, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(32 * -(-height // 4) * -(-width // 4), _NUM_FEATURES),
            )
            self._head = nn.Sequential(nn.ReLU(), nn.Linear(_NUM_FEATURES, num_classes))
        self._train(images, labels)
        self.real = self.moments(images)
        """What the images that it was trained on look like to it."""

    @torch.enable_grad()  # evaluations, in which a feature extractor is first needed, go without
    def _train(self, images: Tensor, labels: Tensor) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        network = nn.Sequential(self._trunk, self._head)
        adam = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(_STEPS):
            rows = torch.randint(len(images), (_BATCH,), generator=generator)
            adam.zero_grad()
            F.cross_entropy(network(images[rows]), labels[rows]).backward()
            adam.step()

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> the likeliest class (N,)."""
        classes: Tensor = self._head(self._features(images)).argmax(1)
        return classes

    @torch.no_grad()
    def moments(self, images: Tensor) -> Moments:
        """(N, C, H, W) in [0, 1] -> the Gaussian of their features."""
        return Moments.of(self._features(images))

    def distance(self, images: Tensor) -> float:
        """Return the Fréchet distance of images (N, C, H, W) in [0, 1] to those that it was trained on."""
        return frechet_distance(self.moments(images), self.real)

    def _features(self, images: Tensor) -> Tensor:
        return torch.cat([self._trunk(chunk) for chunk in images.split(_CHUNK)])
