"""How clients fare one by one: read from a run folder, compared, and shown on the report."""

import math
from pathlib import Path
from typing import Any

import pytest
from run_folders import metrics_line, write_run
from test_compare import printed, row
from test_report import Page, hovers

from models.core.errors import UserError
from simulations.report.client_distribution import client_distributions
from simulations.report.page import write_report
from simulations.runs.reader import read_run

VALUES = [0.5, 0.9, 0.7, 0.8, 0.6, 1.0, 0.75, 0.85, 0.65, 0.95, 0.55]
"""Of the clients 20, 21, ...; in tenths of the clients: 0.5, 0.55, 0.6 ..."""


def evaluated(
    path: Path, by_client: dict[str, Any] | None = None, metric: str = "accuracy", maximize: bool = True
) -> Path:
    found = by_client or {
        "client": [*range(20, 31)],
        metric: VALUES,
        f"personal-{metric}": [value + 1 for value in VALUES],
        "loss": [math.nan] * 11,
    }
    rounds = [metrics_line(0), metrics_line(1, by_client=found), metrics_line(2)]
    return write_run(
        path,
        rounds=rounds,
        result={"metric": metric, "maximize": maximize, "best": {metric: 1.0}, "final": {metric: 0.5}},
    )


def test_the_worst_client_is_the_least_where_more_is_better(tmp_path: Path) -> None:
    found = client_distributions(read_run(evaluated(tmp_path / "a")))
    assert list(found) == ["accuracy", "personal-accuracy"]
    accuracy = found["accuracy"]
    assert (accuracy.server_round, accuracy.worst_client, accuracy.values[0]) == (1, 20, 0.5)
    assert accuracy.mean == pytest.approx(0.75)
    at = [accuracy.at(share) for share in (0, 0.1, 0.25, 0.5, 1)]
    assert at == pytest.approx([0.5, 0.55, 0.625, 0.75, 1.0])


def test_and_the_greatest_where_less_is_better(tmp_path: Path) -> None:
    rmse = client_distributions(read_run(evaluated(tmp_path / "a", metric="rmse", maximize=False)))[
        "personal-rmse"
    ]
    assert (rmse.worst_client, rmse.at(0)) == (25, 2.0)
    assert [rmse.at(share) for share in (0.1, 0.5, 1)] == pytest.approx([1.95, 1.75, 1.5])


@pytest.mark.parametrize("maximize", [True, False])
def test_what_is_not_finite_is_worst_and_what_is_not_there_is_left_out(
    tmp_path: Path, maximize: bool
) -> None:
    columns = {"client": [3, 4, 5, 6], "accuracy": [0.5, None, math.nan, 0.5]}
    found = client_distributions(read_run(evaluated(tmp_path / "a", columns, maximize=maximize)))["accuracy"]
    assert (found.worst_client, len(found.values), found.at(1)) == (5, 3, 0.5)
    assert math.isnan(found.at(0))


def test_a_run_that_did_not_evaluate_on_clients_has_none(tmp_path: Path) -> None:
    assert client_distributions(read_run(write_run(tmp_path / "a"))) == {}


def test_a_run_that_was_cut_goes_by_the_metric_of_its_task(tmp_path: Path) -> None:
    whole, cut = evaluated(tmp_path / "a"), evaluated(tmp_path / "b")
    (cut / "result.json").unlink()
    found = client_distributions(read_run(cut))
    assert found == client_distributions(read_run(whole))
    assert found["accuracy"].worst_client == 20


def test_columns_of_unequal_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is broken: by_client must have columns of one length"):
        read_run(evaluated(tmp_path / "a", {"client": [1, 2], "accuracy": [0.5]}))


def test_the_report_shows_a_table_and_a_curve(tmp_path: Path) -> None:
    page = write_report([evaluated(tmp_path / "a")])
    text = Page(page).text
    assert "Clients on their own examples, round 1" in text
    assert "accuracy ↑ 11 0.7500 0.5000 (client 20) 0.5500 0.7500 1.0000" in text
    assert "personal-accuracy ↑ 11 1.7500 1.5000 (client 20) 1.5500 1.7500 2.0000" in text
    (curve,) = (hover for hover in hovers(page) if hover["series"] == ["accuracy", "personal-accuracy"])
    titles = [title for _, title, _ in curve["stops"]]
    assert (len(titles), titles[0], titles[2]) == (21, "0 % of the clients", "10 % of the clients")
    assert curve["stops"][2][2] == [[0, "0.5500"], [1, "1.5500"]]
    less = Page(write_report([evaluated(tmp_path / "b", metric="rmse", maximize=False)])).text
    assert "rmse ↓ 11 0.7500 1.0000 (client 25) 0.9500 0.7500 0.5000" in less
    assert "Clients on their own examples" not in Page(write_report([write_run(tmp_path / "c")])).text


def test_runs_are_compared_by_their_clients(tmp_path: Path) -> None:
    one, two = evaluated(tmp_path / "one"), write_run(tmp_path / "two")
    text = printed(one, two)
    assert row(text, "accuracy, mean of clients") == ["0.7500", "–"]
    assert row(text, "accuracy, worst client") == ["0.5000", "–"]
    assert row(text, "personal-accuracy, worst tenth") == ["1.5500", "–"]
    page = Page(write_report([one, two], tmp_path / "page.html")).text
    assert "accuracy, worst client 0.5000 –" in page
    assert "worst client" not in printed(two)
