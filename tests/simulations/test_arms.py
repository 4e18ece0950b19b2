"""Several seeds: means, intervals, paired differences, and what they can tell apart."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console
from run_folders import metrics_line, write_run
from scipy.stats import ttest_1samp, ttest_rel

from simulations.runs.arms import Arm, arms_of, have_seeds, interval, paired, rows, tabulate, verdict
from simulations.runs.frame import arms_frame
from simulations.runs.reader import read_runs
from simulations.runs.record import Run


def runs_of(folder: Path, values: dict[str, list[float]], maximize: bool = True) -> list[Run]:
    """Write a run for each strategy and seed (1, 2, ...), that ends with the given accuracy."""
    paths = []
    for strategy, finals in values.items():
        for seed, value in enumerate(finals, 1):
            result = {"final": {"accuracy": value}, "maximize": maximize}
            config = {"strategy": strategy, "seed": seed, "run-dir": f"/{strategy}/{seed}"}
            paths.append(write_run(folder / f"{strategy}-{seed}", config, result=result))
    return read_runs(paths)


def arms_by_name(runs: list[Run]) -> dict[str, Arm]:
    return {str(arm.config["strategy"]): arm for arm in arms_of(runs)}


def test_an_interval_is_students() -> None:
    # For three values t(0.975, 2) = 4.30265; their standard deviation is 1, so the reach is t / sqrt(3).
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.reach == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert str(interval([0.5])) == "0.5000"
    assert math.isnan(interval([]).mean)


def test_runs_that_differ_in_the_seed_alone_are_an_arm(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, {"FedAvg": [0.5, 0.6], "FedAdam": [0.7]})
    arms = arms_by_name(runs)
    assert arms["FedAvg"].values() == {1: 0.5, 2: 0.6}
    assert arms["FedAdam"].values() == {1: 0.7}
    assert have_seeds(runs)
    assert not have_seeds(runs[1:])


def test_a_run_from_before_a_key_was_there_is_of_the_same_arm(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / "older", {"seed": 1}),
        write_run(tmp_path / "newer", {"seed": 2, "trackers": "tensorboard", "callbacks": ""}),
        write_run(tmp_path / "without-a-seed"),
    ]
    (arm,) = arms_of(read_runs(paths))
    assert {seed: run.name for seed, run in arm.runs.items()} == {
        1: "older",
        2: "newer",
        42: "without-a-seed",
    }


def test_pairing_takes_out_what_a_seed_does_to_all(tmp_path: Path) -> None:
    # The arms overlap by far, yet one is ahead by 0.1, give or take 0.01, under every seed.
    arms = arms_by_name(runs_of(tmp_path, {"a": [0.21, 0.50, 0.81], "b": [0.10, 0.40, 0.72]}))
    ahead = paired(arms["a"], arms["b"])
    assert ahead.mean == pytest.approx(0.1)
    assert ahead.reach < 0.03
    assert verdict(arms["a"], arms["b"]) == "behind"


def test_intervals_are_those_of_scipys_t_tests() -> None:
    one, other = [0.91, 0.94, 0.89, 0.93], [0.90, 0.90, 0.88, 0.93]
    low, high = ttest_1samp(one, 0).confidence_interval(0.95)
    found = interval(one)
    assert (found.mean - found.reach, found.mean + found.reach) == pytest.approx((low, high), rel=1e-12)
    low, high = ttest_rel(one, other).confidence_interval(0.95)
    found = interval([left - right for left, right in zip(one, other, strict=True)])
    assert (found.mean - found.reach, found.mean + found.reach) == pytest.approx((low, high), rel=1e-12)
    assert interval([0.5, 0.5, 0.5]).reach == 0.0


def test_an_arm_that_no_test_puts_behind_is_not_behind_rather_than_first(tmp_path: Path) -> None:
    # "wide" is Scaffold's row of the table of strategies, which a rank put first with 0.81 +- 0.29.
    values = {"a": [0.950, 0.957, 0.946], "wide": [0.899, 0.670, 0.848], "c": [0.1, 0.11, 0.12]}
    headings, *lines = rows(arms_of(runs_of(tmp_path, values)))
    assert "rank" not in headings
    assert headings[1:] == ["seeds", "final accuracy ↑", "difference to the best", "against the best"]
    assert [(line[0], line[-1]) for line in lines] == [
        ("a", "best mean"),
        ("wide", "not behind"),
        ("c", "behind"),
    ]
    assert lines[1][2].startswith("0.8057 ± 0.29")


def test_the_verdict_is_that_of_scipys_paired_t_test(tmp_path: Path) -> None:
    best = [0.90, 0.91, 0.92, 0.93]
    for other in ([0.89, 0.90, 0.915, 0.92], [0.80, 0.95, 0.90, 0.92], [0.89, 0.93, 0.90, 0.91]):
        folder = tmp_path / str(other)
        arms = arms_by_name(runs_of(folder, {"best": best, "other": other}))
        wanted = "behind" if ttest_rel(best, other).pvalue < 0.05 else "not behind"
        assert verdict(arms["best"], arms["other"]) == wanted


def test_a_single_seed_tests_nothing(tmp_path: Path) -> None:
    lines = rows(arms_of(runs_of(tmp_path, {"a": [0.9], "b": [0.1]})))
    assert [line[-1] for line in lines[1:]] == ["best mean", "not tested"]


def test_a_final_metric_that_is_not_finite_is_no_value_of_its_arm(tmp_path: Path) -> None:
    for gap in (float("nan"), float("inf"), None):
        folder = tmp_path / str(gap)
        runs = runs_of(folder, {"a": [0.5, 0.6, 0.7], "b": [0.8, 0.9, gap]})  # type: ignore[list-item]
        _, first, second = rows(arms_of(runs))
        assert first[:3] == ["b", "2 of 3", "0.8500 ± 0.6353"]
        assert second[0] == "a"


def test_less_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, {"a": [5.0, 5.25, 5.5], "b": [1.0, 1.25, 1.5]}, maximize=False)
    headings, *lines = rows(arms_of(runs))
    assert headings[2] == "final accuracy ↓"
    assert [(line[0], line[-1]) for line in lines] == [("b", "best mean"), ("a", "behind")]
    assert lines[1][-2] == "4.0000 ± 0.0000"


def test_rounds_to_a_target(tmp_path: Path) -> None:
    # Rounds 1, 2, 3 have 0.9112, 0.9312, 0.9512.
    path = write_run(tmp_path / "one", {"seed": 1})
    slow = write_run(tmp_path / "two", {"seed": 2}, [metrics_line(0), metrics_line(1)])
    (arm,) = arms_of(read_runs([path, slow]))
    assert arm.rounds_to(0.93) == {1: 2.0}
    assert rows([arm], target=0.93)[1][-1] == "2.0000 (1 did not)"
    assert rows([arm], target=0.99)[1][-1] == "not reached"


def test_the_table_is_printed(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    arms = arms_of(runs_of(tmp_path, {"[a]": [0.5, 0.5], "b": [0.25, 0.25]}))
    console.print(tabulate(arms))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "[a]" in text
    assert "0.5000 ± 0.0000" in text
    assert "paired t-test" in text


def test_validation_examples_choose_and_test_examples_are_told(tmp_path: Path) -> None:
    """The arm that is better on the test examples is behind by validation, which decides."""
    found = {"lucky": [(0.5, 0.9), (0.6, 0.9)], "better": [(0.7, 0.8), (0.8, 0.8)]}
    paths = [
        write_run(
            tmp_path / f"{name}-{seed}",
            {"strategy": name, "seed": seed, "validation-fraction": 0.1},
            result={
                "final": {"accuracy": validation},
                "tested": {
                    "final": {"accuracy": test},
                    "best": {"accuracy": test},
                    "num_examples": 100,
                },
                "used": {"validation_examples": 40},
            },
        )
        for name, seeds in found.items()
        for seed, (validation, test) in enumerate(seeds)
    ]
    arms = arms_of(read_runs(paths))
    headings, first, second = rows(arms)
    assert headings[2:] == [
        "final accuracy ↑, validation",
        "difference to the best",
        "against the best",
        "final accuracy ↑, test",
    ]
    assert (first[0], first[2][:6], first[5][:6]) == ("better", "0.7500", "0.8000")
    assert (second[0], second[2][:6], second[5][:6]) == ("lucky", "0.5500", "0.9000")
    frame = arms_frame(arms)
    assert frame["validation/accuracy"].tolist() == pytest.approx([0.75, 0.55])
    assert frame["final/accuracy"].tolist() == pytest.approx([0.8, 0.9])


def test_numbers_of_different_examples_are_not_compared(tmp_path: Path) -> None:
    """One arm has validation examples and the other none: both are compared by test examples."""
    tested = {
        "final": {"accuracy": 0.5},
        "best": {"accuracy": 0.5},
        "num_examples": 100,
    }
    paths = [
        write_run(
            tmp_path / "with", {"strategy": "a"}, result={"final": {"accuracy": 0.9}, "tested": tested}
        ),
        write_run(tmp_path / "without", {"strategy": "b"}, result={"final": {"accuracy": 0.6}}),
    ]
    headings, first, second = rows(arms_of(read_runs(paths)))
    assert headings[2] == "final accuracy ↑"
    assert (first[0], first[2], second[0], second[2]) == ("b", "0.6000", "a", "0.5000")


def test_a_run_that_has_failed_has_no_final_value(tmp_path: Path) -> None:
    result = {"status": "failed", "used": {"validation_examples": 40}}
    (run,) = read_runs([write_run(tmp_path / "failed", result=result)])
    (arm,) = arms_of([run])
    assert (arm.values(), arm.test_values(), run.num_validation, run.tested) == ({}, {}, 40, False)
