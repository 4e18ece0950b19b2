"""The Fréchet distance in numbers known by hand, and the feature extractor whose features it compares."""

import numpy as np
import pytest
import scipy.linalg
import torch

from models.core.config import TaskConfig
from models.data.datasets import load_dataset
from models.images.frechet import FeatureExtractor, Moments, frechet_distance


def gaussian(mean: list[float], covariance: list[list[float]]) -> Moments:
    return Moments(torch.tensor(mean).double(), torch.tensor(covariance).double())


UNIT = [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        # Between equal covariances it is the squared distance of the means.
        (gaussian([0, 0], UNIT), gaussian([0, 0], UNIT), 0),
        (gaussian([0, 0], UNIT), gaussian([3, 4], UNIT), 25),
        # Between diagonal covariances it adds the squared differences of the standard deviations.
        (gaussian([0, 0], [[1, 0], [0, 4]]), gaussian([0, 0], [[9, 0], [0, 16]]), 4 + 4),
        (gaussian([1, 0], [[1, 0], [0, 4]]), gaussian([0, 0], [[9, 0], [0, 16]]), 1 + 4 + 4),
        # A point, whose covariance has no inverse, and a line: the total variance is the way.
        (gaussian([0, 0], [[0, 0], [0, 0]]), gaussian([0, 0], [[4, 2], [2, 1]]), 5),
        # Lines at right angles share no variance.
        (gaussian([0, 0], [[1, 1], [1, 1]]), gaussian([0, 0], [[1, -1], [-1, 1]]), 4),
    ],
)
def test_known_distances(a: Moments, b: Moments, distance: float) -> None:
    assert frechet_distance(a, b) == pytest.approx(distance, abs=1e-9)
    assert frechet_distance(b, a) == pytest.approx(distance, abs=1e-9)


@pytest.mark.rounding
def test_it_is_the_formula_of_the_paper() -> None:
    """For covariances that do not commute, with scipy's matrix root."""
    random = np.random.default_rng(0)
    roots = random.normal(size=(2, 6, 6))
    covariances = roots @ roots.transpose(0, 2, 1)
    means = random.normal(size=(2, 6))
    product_root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances.sum(0) - 2 * product_root)
    a, b = (
        Moments(torch.tensor(mean), torch.tensor(covariance))
        for mean, covariance in zip(means, covariances, strict=True)
    )
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_moments_are_those_of_the_rows() -> None:
    moments = Moments.of(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]]))
    assert moments.mean.tolist() == [1, 2]
    torch.testing.assert_close(
        moments.covariance, torch.tensor([[4 / 3, 0], [0, 16 / 3]], dtype=torch.float64)
    )
    assert Moments.of(torch.tensor([[5.0, 6.0]])).covariance.tolist() == [[0, 0], [0, 0]]


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return load_dataset(TaskConfig(dataset="digits")).train["image"].float() / 16


@pytest.mark.rounding
@torch.no_grad()
def test_a_judge_tells_digits_from_noise(pixels: torch.Tensor, one_thread: None) -> None:
    digits = load_dataset(TaskConfig(dataset="digits"))
    test, labels = digits.test["image"].float() / 16, digits.test["label"]
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    extractor = FeatureExtractor(pixels, digits.train["label"], 10)
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's numbers change
    assert (extractor.classify(test) == labels).double().mean() > 0.93  # 0.953 to 0.961 over five seeds
    assert extractor.distance(pixels) == pytest.approx(0, abs=1e-6)
    floor = extractor.distance(test)
    # Other digits are near; blurred ones, ones with half of their classes, and noise ever further.
    assert floor < extractor.distance(test[labels < 5]) < extractor.distance(torch.rand(360, 1, 8, 8))
    assert 10 * floor < extractor.distance(torch.nn.functional.avg_pool2d(test, 3, stride=1, padding=1))


@pytest.mark.rounding
@torch.no_grad()
def test_a_judge_follows_from_the_data_alone(
    pixels: torch.Tensor, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.images.frechet._STEPS", 3)
    labels = load_dataset(TaskConfig(dataset="digits")).train["label"]
    distances = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        distances.append(FeatureExtractor(pixels, labels, 10).distance(pixels[:50]))
    assert distances[0] == distances[1] > 0


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 9, 30)])
def test_a_judge_takes_any_image(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.images.frechet._STEPS", 1)
    extractor = FeatureExtractor(torch.rand(4, *shape), torch.tensor([0, 1, 2, 0]), 3)
    assert extractor.real.mean.shape == (64,)
    assert set(extractor.classify(torch.rand(5, *shape)).tolist()) <= {0, 1, 2}
