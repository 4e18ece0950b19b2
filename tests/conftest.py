"""Fixtures that the whole suite shares."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.config import Value
from models.device import pinned
from simulations.scenario import defaults

Overrides = bool | int | float | str


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., dict[str, Value]]:
    """Return a run config of seconds: digits, few clients, keys overridden by keyword."""

    def make(**overrides: Overrides) -> dict[str, Value]:
        small = {
            "dataset": "digits",
            "num-clients": 4,
            "num-server-rounds": 2,
            "run-dir": str(tmp_path / "run"),
        }
        given = {name.replace("_", "-"): value for name, value in overrides.items()}
        return {**defaults(), **small, **given}

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute as a worker does."""
    with pinned(1):
        yield


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny BERT, see tests/tiny_bert.py."""
    from tiny_bert import write_bert  # which imports transformers

    folder = tmp_path_factory.mktemp("bert")
    write_bert(folder)
    return folder
