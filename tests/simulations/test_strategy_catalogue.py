"""`polyfed strategies`: every strategy, where it is from, what it takes, and its paper."""

import sys
from pathlib import Path

import pytest
from command_line import polyfed
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from simulations.catalogue.strategies import options, paper
from strategies.algorithms.krum import Krum
from strategies.algorithms.qfedavg import QFedAvg
from strategies.algorithms.scaffold import Scaffold
from strategies.registry import STRATEGIES

PLUGIN = '''
"""Two halves (Nobody 2020, arXiv:2001.00001)."""

from typing import Any, Callable

from flwr.serverapp.strategy import FedProx


class Halves(FedProx):
    """A half (Somebody 2021, https://arxiv.org/abs/2101.12345v2), beside arXiv:2102.00002."""

    def __init__(self, word: str, limit: float | None = None, **others: Any) -> None:
        super().__init__(**others)


class Whole(Halves):
    """Both halves."""
'''


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of a printed table by its first column."""
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if cells}


def test_options_are_those_of_the_whole_constructor() -> None:
    assert options(FedAvg) == {}
    assert [(name, each.default) for name, each in options(Scaffold).items()] == [
        ("server_learning_rate", 1.0),
        ("any_optimizer", False),
    ]
    assert list(options(QFedAvg)) == ["client_learning_rate", "train_loss_key", "q"]
    assert list(options(Krum)) == ["num_malicious_nodes"]
    assert options(QFedAvg)["train_loss_key"].default == "loss"  # and not the parent's
    assert list(options(flower.Bulyan)) == ["num_malicious_nodes"]  # selection_rule is a function


def test_a_constructor_that_passes_nothing_on_takes_nothing_else() -> None:
    class Closed(flower.FedProx):
        def __init__(self, mu: float = 0.0) -> None:
            super().__init__(proximal_mu=mu)

    assert list(options(Closed)) == ["mu"]


def test_every_strategy_of_a_paper_cites_it() -> None:
    cited = {name: paper(cls) for name, cls in STRATEGIES.items()}
    assert {name for name in cited if not cited[name]} == {"LocalOnly"}  # the baseline is nobody's paper
    assert (cited["FedProx"], cited["Krum"]) == ("arXiv:1812.06127", "arXiv:1703.02757")


def test_the_command_lists_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "halves.py").write_text(PLUGIN, encoding="utf-8")
    info = tmp_path / "halves-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: halves\nVersion: 1.2\n", encoding="utf-8")
    entry_points = "[polyfed.strategies]\nHalves = halves:Halves\nWhole = halves:Whole\nNo = halves:No\n"
    (info / "entry_points.txt").write_text(entry_points + "Text = halves:__doc__\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "halves", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    ended = polyfed("strategies")
    assert ended.code == 0
    listed = rows(ended.out)
    assert listed.keys() >= STRATEGIES.keys()
    assert listed["FedDyn"] == ["polyfed", "alpha = 0.1", "arXiv:2111.04263"]
    assert listed["FedAdagrad"][1:] == [
        "published = false, eta = 0.1, eta_l = 0.1, tau = 0.001",
        "arXiv:2003.00295",
    ]
    assert listed["FedMedian"][0].startswith("Flower 1.")
    taken = "word (required), limit (optional), proximal_mu = 0.0"
    assert listed["Halves"] == ["halves 1.2", taken, "arXiv:2101.12345"]
    assert listed["Whole"] == ["halves 1.2", taken, "arXiv:2001.00001"]
    broken, no_strategy = ended.err.splitlines()
    assert broken.startswith("warning: 'No' of halves 1.2 (entry point polyfed.strategies) cannot be loaded")
    assert no_strategy.startswith("warning: strategy 'Text' must be a subclass of flwr.serverapp.strategy.")
