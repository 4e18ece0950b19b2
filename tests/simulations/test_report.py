import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from run_folders import SVG, metrics_line, write_run

from models.core.errors import UserError
from simulations.report.charts import Line, bar_chart, line_chart
from simulations.report.page import write_report

PARTITION = {"num_clients": 2, "classes": ["cat", "dog"], "counts": [[3, 1], [0, 4]]}
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects the text that a reader sees and every attribute that could load something."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def hovers(path: Path) -> list[dict[str, Any]]:
    """What each chart of the page says under the pointer."""
    return [
        json.loads(text)
        for text in re.findall(
            r'<script type="application/json">(.*?)</script>', path.read_text(encoding="utf-8")
        )
    ]


def test_one_run_is_told_in_numbers(tmp_path: Path) -> None:
    page = write_report([write_run(tmp_path / "a", partition=PARTITION, figures={"confusion": SVG})])
    assert page == tmp_path / "a" / "report.html"
    text = Page(page).text
    assert "a completed cnn / mnist-5k · FedAvg" in text
    assert "accuracy, final 0.9512 held-out examples" in text
    assert "accuracy, best 0.9876 round 2, more is better" in text
    assert "time 1 min 1 s 2.42 s a round" in text  # 0.5 + 3 * 2.25 s over 3 rounds
    assert "MB to / from clients 18.00 / 9.00 the weights that each client" in text
    assert "MB to / from nodes 6.00 / 12.00 messages of nodes" in text
    assert "clients 20 3 took part" in text
    assert "client failures 0 of 9 trainings" in text
    assert "parameters 421,642" in text
    assert "0123456789abcdef" * 4 in text
    assert "loss 0.3333 – – 0.6667" in text  # final, best, clients' own examples, training
    assert "training 4.5000 62.1 %" in text  # 3 * 1.5 s of 7.25 s
    assert "other 0.7500 10.3 %" in text  # 3 * (2.25 - 2.0) s
    assert "all rounds 7.2500 100.0 %" in text
    assert "learning-rate 0.05" in text
    assert "polyfed 0.1.0 · torch 2.9.1" in text


def test_the_charts_hold_every_measurement(tmp_path: Path) -> None:
    accuracy, loss, traffic, time, *_ = hovers(write_report([write_run(tmp_path / "a")]))
    assert accuracy["series"] == ["held-out examples", "clients' own examples"]
    assert [(title, values) for _, title, values in accuracy["stops"]] == [
        ("round 0", [[0, "0.8912"]]),
        ("round 1", [[0, "0.9112"], [1, "0.7500"]]),
        ("round 2", [[0, "0.9312"], [1, "0.7500"]]),
        ("round 3", [[0, "0.9512"], [1, "0.7500"]]),
    ]
    assert loss["stops"][3][2] == [[0, "0.3333"], [1, "0.6667"]]
    assert [title for _, title, _ in traffic["stops"]] == ["0 MB", "9 MB", "18 MB", "27 MB"]
    assert [title for _, title, _ in time["stops"]] == ["0.5 s", "2.75 s", "5 s", "7.25 s"]


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    path = write_report([write_run(tmp_path / "a", partition=PARTITION, figures={"x": SVG, "y": SVG})])
    loads = Page(path).loads
    assert len(loads) == 3  # two figures and the partition
    assert all(load.startswith("data:image/svg+xml;base64,") for load in loads)
    assert base64.b64decode(loads[0].partition(",")[2]).decode() == SVG
    html = path.read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    for outside in ("http://", "https://", "@import", "url("):
        assert outside not in html


def test_what_files_say_is_never_markup(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)></script>&\"'"
    path = write_run(
        tmp_path / "<b>bold",
        {"task": evil, evil: evil},
        [metrics_line(1, central={evil: 1.0}, failures=[{"client": 1, "error": evil}], seconds={evil: 1.0})],
        {
            "status": "failed",
            "reason": evil,
            "weights_sha256": evil,
            "versions": {evil: evil},
            "metric": evil,
        },
        figures={"<i>name": SVG},
    )
    other = write_run(tmp_path / "other")
    for runs in ([path], [path, other]):
        report = write_report(runs, tmp_path / "page.html")
        html = report.read_text(encoding="utf-8")
        for raw in ("<img src=x", "<b>bold", "<i>name"):
            assert raw not in html
        assert evil in Page(report).text
        assert hovers(report)[0]["series"][0].endswith("held-out examples")


def test_a_failed_run_says_why_at_the_top(tmp_path: Path) -> None:
    failures = [{"client": client, "error": f"ValueError: bad batch {client}"} for client in (4, 7)]
    path = write_run(
        tmp_path / "a",
        rounds=[metrics_line(0), metrics_line(1, failures=failures)],
        result={"status": "failed", "reason": "round 2: every client failed", "best": {}, "final": {}},
    )
    text = Page(write_report([path])).text
    assert text.index("Failed after round 1. round 2: every client failed") < text.index(
        "accuracy, last 0.9112"
    )
    assert "1 4 ValueError: bad batch 4 1 7 ValueError: bad batch 7" in text
    assert "accuracy, best so far 0.9112 round 1, more is better" in text


def test_a_stopped_run_and_an_unfinished_one_say_so(tmp_path: Path) -> None:
    stopped = write_run(tmp_path / "a", result={"status": "stopped", "reason": "no better accuracy"})
    assert "Stopped after round 3. no better accuracy" in Page(write_report([stopped])).text
    unfinished = write_run(tmp_path / "b", result={})
    with (unfinished / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write("{")
    text = Page(write_report([unfinished])).text
    assert "Unfinished. There is no result.json" in text
    assert "metrics.jsonl ends inside a line" in text


def test_values_off_the_defaults_are_marked(tmp_path: Path) -> None:
    html = write_report([write_run(tmp_path / "a", {"run-dir": "/somewhere"})]).read_text(encoding="utf-8")
    assert re.findall(r'class="changed" title="(.*?)"><dt>(.*?)</dt>', html) == [
        ("the default is 0.1", "validation-fraction"),  # of a run from before that was there
        ("the default is 0.0", "learning-rate"),
        ("the default is 20", "num-server-rounds"),
    ]


def test_several_seeds_are_told_as_arms(tmp_path: Path) -> None:
    paths = [
        write_run(
            tmp_path / f"{name}-{seed}",
            {"strategy": name, "seed": seed},
            result={"final": {"accuracy": value}},
        )
        for name, values in {"<FedAvg>": [0.5, 0.625], "Krum": [0.25, 0.375]}.items()
        for seed, value in enumerate(values)
    ]
    words = " ".join(Page(write_report(paths, tmp_path / "page.html")).words)
    assert "Arms strategy seeds final accuracy ↑ difference to the best against the best" in words
    assert "<FedAvg> 2 0.5625 ± 0.7941 – best mean" in words
    assert "Krum 2 0.3125 ± 0.7941 0.2500 ± 0.0000 behind" in words
    alone = " ".join(Page(write_report(paths[:1], tmp_path / "alone.html")).words)
    assert "Arms" not in alone


def test_several_runs_are_overlaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two", {"strategy": "Krum"}, result={})]
    page = write_report(runs)
    assert page == tmp_path / "report.html"
    text = Page(page).text
    assert "2 runs Side by side run one two status completed unfinished" in text
    assert "final 0.9512 0.9512 (so far)" in text
    assert "Config where it differs strategy FedAvg Krum Learning curves" in text
    assert hovers(page)[0]["series"] == [
        "one, held-out examples",
        "one, clients' own examples",
        "two, held-out examples",
        "two, clients' own examples",
    ]


@pytest.mark.parametrize(
    "rounds",
    [[], [metrics_line(0)], [metrics_line(1)], [metrics_line(number) for number in range(501)]],
    ids=["none", "initial", "one", "500"],
)
def test_runs_of_any_length_have_a_page(tmp_path: Path, rounds: list[dict[str, Any]]) -> None:
    unlabelled = {"num_clients": 3, "classes": [], "counts": [[5], [6], [7]]}
    path = write_report([write_run(tmp_path / "a", rounds=rounds, partition=unlabelled, result={})])
    text = Page(path).text
    assert ("Nothing was measured." in text) == (not rounds)
    assert len(path.read_text(encoding="utf-8")) < 1_000_000


def test_many_failures_are_cut_short_and_counted(tmp_path: Path) -> None:
    failures = [{"client": client, "error": f"broken-{client}-"} for client in range(250)]
    text = Page(write_report([write_run(tmp_path / "a", rounds=[metrics_line(1, failures=failures)])])).text
    assert "broken-199-" in text
    assert "broken-200-" not in text
    assert "The first 200 of 250" in text


def test_a_page_that_cannot_be_written_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write the report to"):
        write_report([write_run(tmp_path / "a")], tmp_path)
    with pytest.raises(UserError, match="is not a run folder"):
        write_report([tmp_path])


def test_a_value_that_is_not_finite_breaks_its_line_and_is_named() -> None:
    points = [(0.0, 1.0), (1.0, float("nan")), (2.0, 2.0), (3.0, 3.0)]
    chart = line_chart("loss", "round", [Line("a", 0, 0, points)])
    assert chart is not None
    assert chart.series[0].path.count("M") == 2
    assert len(chart.series[0].marks) == 3
    assert chart.stops[1].values == [(0, "nan")]
    assert line_chart("loss", "round", [Line("a", 0, 0, [(0.0, float("inf"))])]) is None


def test_axes_end_at_round_numbers_and_points_lie_between() -> None:
    chart = line_chart("accuracy", "round", [Line("a", 0, 0, [(0.0, 0.1), (10.0, 0.9)])])
    assert chart is not None
    assert [label for _, label in chart.y_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    bottom, top = chart.y_ticks[0][0], chart.y_ticks[-1][0]
    assert chart.series[0].marks[0] == (52.0, pytest.approx(bottom + 0.1 * (top - bottom), abs=0.1))
    assert chart.series[0].marks[1] == (508.0, pytest.approx(bottom + 0.9 * (top - bottom), abs=0.1))


def test_bars_stack_and_share_where_rounds_are_many() -> None:
    chart = bar_chart("seconds", [1, 2], {"a": [1.0, 3.0], "b": [1.0, 0.0]})
    assert chart is not None
    assert [series.path.count("M") for series in chart.series] == [2, 1]  # no bar of no height
    assert [stop.title for stop in chart.stops] == ["round 1", "round 2"]
    many = bar_chart("seconds", list(range(1, 251)), {"a": [float(number) for number in range(1, 251)]})
    assert many is not None
    assert len(many.stops) == 84
    assert many.stops[0].title == "mean of rounds 1 to 3"
    assert many.stops[0].values == [(0, "2.0000")]
    assert many.stops[-1].title == "round 250"
    assert bar_chart("seconds", [1], {"a": [0.0]}) is None


def test_what_was_used_is_on_the_page(tmp_path: Path) -> None:
    used = {
        "optimizers": [
            {
                "objective": "loss",
                "optimizer": "AdamW",
                "learning_rate": 0.003,
                "options": {"betas": [0.9, 0.999], "weight_decay": [0.01, 0.0]},
                "max_grad_norm": 1.0,
                "warmup_steps": 5,
            }
        ],
        "data_sha256": "f" * 64,
        "data_files": [
            {"name": "train.txt", "num_bytes": 12345, "sha256": "a" * 64},
            {"name": "huge.bin", "num_bytes": 3 * 10**9, "sha256": None},
        ],
    }
    config = {"learning-rate": 0.0, "optimizer": ""}
    text = Page(write_report([write_run(tmp_path / "a", config, result={"used": used})])).text
    options = "lr=0.003, betas=[0.9, 0.999], weight_decay=[0.01, 0.0], max_grad_norm=1.0, warmup_steps=5"
    assert f"loss AdamW({options})" in text
    assert f"train.txt 12,345 bytes, SHA-256 {'a' * 64}" in text
    assert "huge.bin 3,000,000,000 bytes, too large to be hashed at every start" in text
    assert "learning-rate 0.003 (the task's own)" in text
    assert "optimizer AdamW (the task's own)" in text
    given = Page(
        write_report([write_run(tmp_path / "b", {"learning-rate": 0.5}, result={"used": used})])
    ).text
    assert "learning-rate 0.5 " in given


def test_clients_go_by_their_names_and_roles(tmp_path: Path) -> None:
    partition = PARTITION | {"num_clients": 3, "counts": [[3, 1], [0, 4], [1, 1]]}
    named = partition | {"names": ["AAPL", "<FB>", "IBM"], "attackers": [2]}
    found = {"client": [0, 1, 2], "accuracy": [0.25, 0.5, 0.75]}
    failures = [{"client": 1, "error": "ValueError: bad batch"}]
    rounds = [metrics_line(0), metrics_line(1, clients=[0, 2], failures=failures, by_client=found)]
    page = write_report([write_run(tmp_path / "a", {"num-clients": 3}, rounds, partition=named)])
    text = Page(page).text
    assert "1 <FB> ValueError: bad batch" in text
    assert "0.2500 (AAPL)" in text  # the worst client
    assert "client name role examples rounds trained failures accuracy last, own examples" in text
    assert "0 AAPL honest 4 1 0 0.2500 1 <FB> honest 4 0 1 0.5000 2 IBM attacker 2 1 0 0.7500" in text
    assert ["AAPL", "<FB>", "IBM"] in [each["series"] for each in hovers(page)]
    figure = next(load for load in Page(page).loads).partition(",")[2]
    assert "AAPL" in base64.b64decode(figure).decode()
    numbered = write_report([write_run(tmp_path / "b", {"num-clients": 3}, rounds, partition=partition)])
    assert "1 1 ValueError: bad batch" in Page(numbered).text
    assert "0.2500 (client 0)" in Page(numbered).text


@pytest.mark.parametrize("result", [{}, {"status": "failed", "metric": "", "best": {}, "final": {}}])
def test_a_run_that_was_cut_has_its_curves_and_its_best(tmp_path: Path, result: dict[str, Any]) -> None:
    rounds = [metrics_line(number) for number in range(3)]
    rounds[1]["central"] = {"accuracy": 0.99, "loss": 0.25}
    page = write_report([write_run(tmp_path / "a", rounds=rounds, result=result)])
    assert "accuracy, best so far 0.9900 round 1, more is better" in Page(page).text
    assert [title for _, title, _ in hovers(page)[0]["stops"]] == ["round 0", "round 1", "round 2"]


def test_of_a_cut_run_whose_task_wants_less_the_least_is_best(tmp_path: Path) -> None:
    rounds = [metrics_line(at, central={"rmse": value}) for at, value in enumerate((3.0, 1.0, 2.0))]
    config = {"task": "lstm-forecast"}
    text = Page(write_report([write_run(tmp_path / "a", config, rounds, result={})])).text
    assert "rmse, best so far 1.0000 round 1, less is better" in text
    unknown = {"task": "no_such_module_of_mine:Class"}
    text = Page(write_report([write_run(tmp_path / "b", unknown, rounds, result={})])).text
    assert "rmse, best" not in text  # nobody says which way is better


def test_a_gap_in_a_metric_breaks_its_curve_and_is_never_best_or_last(tmp_path: Path) -> None:
    rounds = [metrics_line(number) for number in range(4)]
    rounds[2]["central"] = {"accuracy": None, "loss": None}
    rounds[3] |= {"central": {"accuracy": 0.5, "loss": None}, "evaluate": {"accuracy": None}, "train": {}}
    page = write_report([write_run(tmp_path / "a", rounds=rounds, result={})])
    accuracy, loss, *_ = hovers(page)
    assert [values[0][1] for _, _, values in accuracy["stops"]] == ["0.8912", "0.9112", "nan", "0.5000"]
    assert loss["stops"][3][2] == [[0, "nan"]]
    text = Page(page).text
    assert "accuracy, last 0.5000" in text
    assert "accuracy, best so far 0.9112 round 1" in text
    ended = write_run(tmp_path / "b", rounds=rounds, result={"final": {"accuracy": None, "loss": 0.5}})
    assert "accuracy, final –" in Page(write_report([ended])).text


def test_an_older_run_says_what_its_nodes_moved_and_nothing_of_its_clients(tmp_path: Path) -> None:
    rounds = [metrics_line(1, bytes={"down": 2_000_000, "up": 4_000_000})]
    page = write_report([write_run(tmp_path / "a", rounds=rounds)])
    text = Page(page).text
    assert "MB to / from clients 0" not in text
    assert "MB to / from nodes 2.00 / 4.00" in text
    assert "MB a round, to and from clients" not in text


def test_what_left_the_nodes_is_said_by_kind(tmp_path: Path) -> None:
    moved = {"down": 2_000_000, "up": 7_500}
    rounds = [
        metrics_line(1, bytes=moved | {"left": {"updates": 7_500, "metrics": 400, "descriptions": 100}}),
        metrics_line(2, bytes=moved | {"left": {"updates": 1_500, "metrics": 500}}),
    ]
    run = write_run(tmp_path / "a", rounds=rounds)
    text = Page(write_report([run])).text
    assert "What left the nodes" in text
    assert "updates 9,000 90.0 % what single clients have trained" in text
    assert "metrics 900 9.0 % losses, metrics and numbers of examples" in text
    assert "descriptions 100 1.0 % what nodes say of themselves" in text
    assert "sums" not in text.partition("What left the nodes")[2].partition("Every round")[0]
    assert "examples, client state 0 0.0 % no message holds them" in text
    assert "What left the nodes" not in Page(write_report([write_run(tmp_path / "b")])).text


def test_it_says_which_rows_chose(tmp_path: Path) -> None:
    tested = {
        "best": {"accuracy": 0.75},
        "final": {"accuracy": 0.5},
        "num_examples": 1000,
    }
    result = {"tested": tested, "used": {"validation_examples": 400}}
    told = " ".join(Page(write_report([write_run(tmp_path / "a", result=result)])).words)
    assert "accuracy, final 0.5000 test examples" in told
    assert "accuracy, best 0.7500 round 2, more is better" in told
    assert "accuracy, validation 0.9876 of round 2, which it chose" in told
    assert "400 validation examples, which no client has, chose the best round" in told
    assert "1,000 test examples were read once, at the end." in told
    before = " ".join(Page(write_report([write_run(tmp_path / "b")])).words)
    assert "was chosen by the held-out examples themselves (validation-fraction = 0)" in before


def test_a_run_without_an_end_has_read_no_test_examples(tmp_path: Path) -> None:
    result = {"status": "failed", "reason": "so", "used": {"validation_examples": 40}}
    told = " ".join(Page(write_report([write_run(tmp_path / "a", result=result)])).words)
    assert "accuracy, last 0.9512 validation examples" in told
    assert "so the test examples were not read" in told
    assert "validation-fraction = 0)" not in told
