import io
from pathlib import Path

import pytest
from rich.console import Console
from run_folders import RESULT, metrics_line, write_run

from models.core.errors import UserError
from simulations.runs.compare import differences, megabytes, number, print_comparison, summary
from simulations.runs.frame import runs_frame
from simulations.runs.reader import read_run, read_runs


def printed(*paths: Path) -> str:
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    print_comparison(read_runs(paths), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, key: str) -> list[str]:
    """The cells of the first table row that begins with `key`."""
    line = next(line for line in text.splitlines() if line.startswith(f"│ {key} "))
    return [cell.strip() for cell in line.strip("│").split("│")[1:]]


def test_summary_has_the_run_in_numbers(tmp_path: Path) -> None:
    assert summary(read_run(write_run(tmp_path / "a", {"strategy-options": "mu = 0.1"}))) == {
        "status": "completed",
        "task / dataset": "cnn / mnist-5k",
        "clients": "20, 3 a round",
        "strategy": "FedAvg (mu = 0.1)",
        "rounds": "3 of 3",
        "metric": "accuracy",
        "best": "0.9876 (round 2)",
        "final": "0.9512",
        "seconds": "61.20",
        "MB to / from clients": "18.00 / 9.00",
        "MB to / from nodes": "6.00 / 12.00",
        "client failures": "0",
        "weights": "0123456789ab",
    }


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one")
    failures = [{"client": 7, "error": "boom"}, {"client": 8, "error": "boom"}]
    two = write_run(
        tmp_path / "two",
        {"strategy": "Krum", "learning-rate": 0.1, "run-dir": "/elsewhere"},
        [metrics_line(1, clients=[1], failures=failures), metrics_line(2)],
        result={},
    )
    text = printed(one, two)
    assert row(text, "status") == ["completed", "unfinished"]
    assert row(text, "clients") == ["20, 3 a round", "20, 1 to 3 a round"]
    assert row(text, "rounds") == ["3 of 3", "2 of 3"]
    assert row(text, "best") == ["0.9876 (round 2)", "0.9312 (round 2)"]
    assert row(text, "final") == ["0.9512", "0.9312 (so far)"]
    assert row(text, "client failures") == ["0", "2"]
    assert row(text, "learning-rate") == ["0.05", "0.1"]
    assert "num-clients" not in text  # the same in both
    assert "run-dir" not in text  # always differs


def test_config_keys_that_an_older_run_lacks_have_their_defaults(tmp_path: Path) -> None:
    given = {"alpha": 0.25, "seed": 42, "trackers": "tensorboard", "no-more": 1, "download": True}
    runs = read_runs([write_run(tmp_path / "a"), write_run(tmp_path / "b", given)])
    assert differences(runs) == {
        "download": ["false", "true"],
        "alpha": ["0.5", "0.25"],
        "no-more": ["–", "1"],
    }


def test_equal_configs_are_said_to_be_equal(tmp_path: Path) -> None:
    text = printed(write_run(tmp_path / "a"), write_run(tmp_path / "b"))
    assert "The configs do not differ." in text


def test_the_reason_of_a_failure_and_half_a_line_are_told(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", result=RESULT | {"status": "failed", "reason": "client 3: [bold]boom"})
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"serv')
    text = printed(path)
    assert "a failed: client 3: [bold]boom" in text
    assert "a: metrics.jsonl ends inside a line, which is left out" in text


def test_square_brackets_are_not_taken_for_markup(tmp_path: Path) -> None:
    text = printed(write_run(tmp_path / "[red]a", {"strategy": "[bold]x"}), write_run(tmp_path / "b"))
    assert "[red]a" in text
    assert row(text, "strategy")[0] == "[bold]x"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        printed(write_run(tmp_path / "a"), tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.91234, "0.9123"),
        (-0.5, "-0.5000"),
        (0.00012345, "1.234e-04"),
        (123.456, "123.46"),
        (12345.6, "12,346"),
        (1.5e30, "1.500e+30"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_the_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


def test_a_megabyte_is_a_million_bytes() -> None:
    assert megabytes(1_234_567) == "1.23"
    assert megabytes(1_234_567_890) == "1,235"


def test_test_examples_are_told_beside_those_that_chose(tmp_path: Path) -> None:
    tested = {"best": {"accuracy": 0.75}, "final": {"accuracy": 0.5}, "num_examples": 10}
    (run,) = read_runs([write_run(tmp_path / "a", result={"tested": tested})])
    told = summary(run)
    assert (told["best"], told["final"], told["best, validation"]) == ("0.7500 (round 2)", "0.5000", "0.9876")
    (row,) = runs_frame([run]).to_dict("records")
    assert (row["final/accuracy"], row["best/accuracy"]) == (0.5, 0.75)
    assert row["validation/accuracy"] == 0.9876
