"""What `compare` writes into a file."""

import json
from pathlib import Path

import pandas as pd
import pytest
from command_line import polyfed
from run_folders import write_run


def compare(*words: object) -> str:
    ended = polyfed("compare", *words)
    return ended.out + ended.err


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two configs under seeds 1 and 2."""
    paths = []
    for strategy, finals in {"Fed_Avg": [0.5, 0.7], "Krum": [0.25, 0.35]}.items():
        for seed, value in enumerate(finals, 1):
            result = {"final": {"accuracy": value, "loss": 2 * value}}
            paths.append(
                write_run(
                    tmp_path / f"{strategy}-{seed}", {"strategy": strategy, "seed": seed}, result=result
                )
            )
    return paths


def test_runs_are_rows_with_all_metrics_in_full(runs: list[Path], tmp_path: Path) -> None:
    csv, as_json = tmp_path / "runs.csv", tmp_path / "runs.json"
    compare(*runs, "--each-run", "-o", csv, "-o", as_json)
    frame = pd.read_csv(csv)
    assert list(frame["strategy"]) == ["Fed_Avg", "Fed_Avg", "Krum", "Krum"]
    assert list(frame["seed"]) == [1, 2, 1, 2]
    assert list(frame["final/accuracy"]) == [0.5, 0.7, 0.25, 0.35]
    assert list(frame["final/loss"]) == [1.0, 1.4, 0.5, 0.7]
    assert list(frame["best/accuracy"]) == [0.9876] * 4
    assert list(frame["evaluate/accuracy"]) == [0.75] * 4
    assert list(frame["train/loss"]) == pytest.approx([2 / 3] * 4, rel=1e-14)
    assert list(frame["bytes/clients_down"]) == [18_000_000] * 4
    rows = json.loads(as_json.read_text(encoding="utf-8"))
    assert [row["final/accuracy"] for row in rows] == [0.5, 0.7, 0.25, 0.35]
    assert rows[0]["best/loss"] is None  # of which nothing is known
    assert rows[0]["weights_sha256"] == "0123456789abcdef" * 4


def test_arms_are_rows_with_means_and_intervals(runs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "arms.csv"
    printed = compare(*runs, "-o", path, "--all-metrics")
    frame = pd.read_csv(path)
    assert list(frame["strategy"]) == ["Fed_Avg", "Krum"]
    assert list(frame["final/accuracy"]) == pytest.approx([0.6, 0.3])
    assert list(frame["final/loss"]) == pytest.approx([1.2, 0.6])
    assert frame["final/accuracy ±"][0] == pytest.approx(12.7062047 * 0.1)
    assert list(frame["against the best"]) == ["best mean", "not behind"]
    assert frame["difference to the best"][1] == pytest.approx(0.3)
    assert "final loss" in printed
    assert "1.2000 ± 2.5412" in printed
    assert "final loss" not in compare(*runs)


def test_latex_is_what_is_printed_with_its_symbols_escaped(runs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "arms.tex"
    compare(*runs, "-o", path)
    text = path.read_text(encoding="utf-8")
    assert r"Fed\_Avg & 2 & 0.6000 $\pm$ 1.2706 & -- & best mean \\" in text
    assert r"final accuracy $\uparrow$" in text
    assert text.startswith(r"\begin{tabular}")
    assert text.isascii()


def test_every_metric_is_shown_where_that_is_asked_for(runs: list[Path]) -> None:
    text = compare(runs[0], runs[2], "--all-metrics")
    assert "loss, final" in text
    assert "loss, training" in text
    assert "loss, final" not in compare(runs[0], runs[2])


def test_another_kind_of_file_is_refused_before_anything_is_read(runs: list[Path], tmp_path: Path) -> None:
    said = compare(tmp_path / "nowhere", "-o", "table.xlsx")
    assert "output must end in .csv, .json or .tex, got 'table.xlsx'" in said
    assert "cannot write the table to" in compare(*runs, "-o", tmp_path / "no" / "folder.csv")
