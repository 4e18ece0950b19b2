"""Fixtures that the whole suite shares."""

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from quadratic import crowded_valleys, slopes, twin_valleys, valleys
from safetensors.torch import load_file
from torch import Tensor

from clients.worker import load_worker
from models.core.config import Value
from models.core.device import pinned
from models.data import cache
from models.data.dataset import Dataset
from models.data.datasets import DATASETS
from models.data.source import Source
from models.images.frechet import FeatureExtractor
from models.images.gan import ImageGan
from server.callbacks.figures import Figures
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults

Overrides = bool | int | float | str

_WORKER = "PYTEST_XDIST_WORKER"
"""Set in the processes that run tests side by side: they share the data that the first of them parses."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep parsed datasets in a folder of the session's own: neither read nor fill that of the user."""
    if _WORKER not in os.environ:
        os.environ[cache.VARIABLE] = tempfile.mkdtemp(prefix="polyfed-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _WORKER not in os.environ:
        shutil.rmtree(os.environ.pop(cache.VARIABLE), ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow tests: what is run last, while others have nothing to do any more, is short."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what is imported out of the search for garbage, which Flower orders again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., dict[str, Value]]:
    """Return a run config of seconds: digits, few clients, keys overridden by keyword."""

    def make(**overrides: Overrides) -> dict[str, Value]:
        small = {
            "dataset": "digits",
            "num-clients": 4,
            "num-server-rounds": 2,
            "run-dir": str(tmp_path / "run"),
            "trackers": "",
        }
        given = {name.replace("_", "-"): value for name, value in overrides.items()}
        return {**defaults(), **small, **given}

    return make


@pytest.fixture
def drawn() -> None:
    """Let this test's runs draw the task's figures, as users' do."""


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Draw no figures: to draw them takes half of a test's run, and few tests look at them."""
    with pytest.MonkeyPatch.context() as patch:
        if "drawn" not in request.fixturenames:
            patch.setattr(Figures, "draw", lambda *_, **__: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _extractors_kept() -> Iterator[None]:
    """Train the feature extractor of a dataset once: each run with a GAN would take two seconds for it."""
    kept: dict[tuple[int, torch.dtype], tuple[Dataset, FeatureExtractor]] = {}
    trained = ImageGan._extractor

    def extractor(task: ImageGan) -> FeatureExtractor:
        of = id(task.dataset), torch.get_default_dtype()
        if of not in kept:
            kept[of] = task.dataset, trained(task)  # with the dataset, so that no other one takes its id
        return kept[of][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGan, "_extractor", extractor)
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute as a worker does."""
    with pinned(1):
        yield


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let tasks build, draw and compute in float64, where rounding hides no difference of formulas."""
    load_worker.cache_clear()  # its model is of the other type
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    # Tasks turn bytes, and what bfloat16 has left, into "float", of which float64 is the wider kind.
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    yield
    torch.set_default_dtype(before)
    load_worker.cache_clear()


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny BERT, see tests/support/tiny_bert.py."""
    from tiny_bert import write_bert  # which imports transformers

    folder = tmp_path_factory.mktemp("bert")
    write_bert(folder)
    return folder


@pytest.fixture
def rest(
    tiny: Callable[..., dict[str, Value]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., float]:
    """Return a function that runs a strategy on the two parabolas, and returns the weight it ends with."""
    parabolas = {
        "valleys": valleys,
        "crowded-valleys": crowded_valleys,
        "twin-valleys": twin_valleys,
        "slopes": slopes,
    }
    for name, load in parabolas.items():
        monkeypatch.setitem(DATASETS, name, Source("parabolas", load))

    def run(
        strategy: str, rounds: int = 40, num_nodes: int = 1, dataset: str = "valleys", **overrides: Any
    ) -> float:
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        run_in_process(
            tiny(
                dataset=dataset,
                partitioner="natural",
                num_clients=2,
                num_server_rounds=rounds,
                evaluate_every=0,
                checkpoint_every=0,
                strategy=strategy,
                run_dir=str(folder),
                **{"task": "quadratic:Quadratic", **overrides},
            ),
            num_nodes,
        )
        return float(load_file(folder / "models" / "last.safetensors")["w"])

    return run
