"""`polyfed explain`: its numbers, its files, what it prints and what it refuses."""

import io
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import Ended, polyfed
from matplotlib.figure import Figure
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

import polyfed as polyfed_face
from models.core.errors import UserError
from models.explain import figures
from models.explain.explanation import FEATURES, IMAGE, WORDS, Explained, Explanation, Form
from models.explain.figures import draw, shares
from server.run_schema import Alike, ExplainedRow, ExplanationSummary, RoundRecord
from simulations.explain.agreement import alike, chance, rank_correlation, shared_top
from simulations.explain.explain import ask, check_comparable, keep
from simulations.explain.kept import load_kept
from simulations.explain.summary import goes_by, largest_gap, legend, print_summary
from simulations.runs.reader import read_run


def of(*rows: Tensor) -> Explanation:
    return Explanation(IMAGE, [Explained(row, "a", "a", "a", 1.0) for row in rows])


def test_rank_correlation_is_over_what_one_of_them_looks_at() -> None:
    one = torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0])
    assert rank_correlation(one, 2 * one) == pytest.approx(1)
    assert rank_correlation(one, torch.tensor([0.0, 0.0, 9.0, 5.0, -1.0])) == pytest.approx(-1)
    # Ranks 1 2 3 and 1 3 2 differ by squares that add up to 2: 1 - 6 * 2 / (3 * 8).
    assert rank_correlation(one, torch.tensor([0.0, 0.0, 1.0, 3.0, 2.0])) == pytest.approx(0.5)
    assert math.isnan(rank_correlation(one, torch.zeros(5)))
    assert math.isnan(rank_correlation(torch.zeros(5), torch.zeros(5)))


def test_what_the_most_important_tenths_share() -> None:
    one = torch.arange(1.0, 21.0)
    assert shared_top(one, one) == 1
    other = one.clone()
    other[0] = -100  # of either sign
    assert shared_top(one, other) == 0.5  # 19 and 20, and 0 and 20
    assert math.isnan(shared_top(torch.zeros(3), torch.zeros(3)))


def test_chance_shares_more_of_few_parts() -> None:
    assert chance(torch.ones(20), torch.zeros(20)) == 0.1
    assert chance(torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, 2.0, 1.0, 1.0])) == 1 / 4
    assert math.isnan(chance(torch.zeros(3), torch.zeros(3)))
    few, many = torch.arange(1.0, 5.0), torch.arange(1.0, 21.0)
    assert alike("b", of(few, many), of(few, many)).chance == [0.25, 0.1]
    told = summary(beside=True)
    assert told.beside
    assert "top tenth: part of the most important tenth that both share" in legend(
        [told]
    )  # of an older polyfed, which did not say it
    told = told.model_copy(update={"beside": told.beside.model_copy(update={"chance": [0.25, 0.1, None]})})
    assert "top tenth: part of the most important tenth that both share; by chance 18 %" in legend([told])


def test_examples_are_compared_with_the_next_ones_too() -> None:
    up, down = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])
    found = alike("b", of(up, up), of(up, down))
    assert found.rank_correlation == pytest.approx([1, -1])
    assert found.other_examples == pytest.approx([-1, 1])
    assert alike("b", of(up), of(up)).other_examples == [None]
    assert alike("b", of(up, up[:2]), of(up, up[:2])).other_examples == [None, None]


def summary(beside: bool, **changes: object) -> ExplanationSummary:
    row = ExplainedRow(row=3, answer="a", truth="a", said="a", score=3.0, start=1.0, gap=0.25)
    numbers = Alike(
        of="other", rank_correlation=[0.5, None], shared_top=[0.25, 0.5], other_examples=[None, -0.1]
    )
    return ExplanationSummary(
        method="integrated-gradients",
        model="best, of round 2",
        weights_sha256="0",
        examples=[row, row.model_copy(update={"score": 5.0, "gap": -0.75})],
        untrained=numbers,
        beside=numbers if beside else None,
        **changes,
    )


def printed(summaries: list[ExplanationSummary], terminal: bool) -> str:
    out = io.StringIO()
    print_summary(summaries, Console(file=out, force_terminal=terminal, width=80 if terminal else 100_000))
    return re.sub(r"\x1b\[\d*m", "", out.getvalue())


@pytest.mark.parametrize("beside", [False, True])
def test_the_summary_fits_a_terminal_and_is_a_row_a_method_in_a_pipe(beside: bool) -> None:
    one = summary(beside, shares={"t-1": 0.5, "t-2": 0.3, "t-3": 0.15, "t-4": 0.05})
    assert largest_gap(one) == 0.75 / 3  # the scores are 2 and 4 above their starts
    lines = printed([one], terminal=True).splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in printed([one], terminal=False).splitlines() if line.startswith("integrated"))
    of_other = ["0.50", "-0.10", "37.5", "%"] if beside else []
    assert row.split() == ["integrated-gradients", *of_other, "0.50", "25", "%"]
    assert "integrated-gradients goes by t-1 (50 %), t-2 (30 %), t-3 (15 %)" in lines
    in_a_row = [line for line in lines if line.split()[:1] == ["integrated-gradients"]]
    assert in_a_row[0].split() == row.split()


SCENARIO = """
dataset = "digits"
num-clients = {clients}
num-server-rounds = 2
partitioner = "iid"
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runs "federated" and "central" on digits."""
    folder = tmp_path_factory.mktemp("runs")
    for name, clients in (("federated", 3), ("central", 1)):
        scenario = folder / f"{name}.toml"
        scenario.write_text(SCENARIO.format(clients=clients), encoding="utf-8")
        ended = polyfed("run", scenario, "--in-process", "--run-dir", folder / name)
        assert ended.code == 0, ended.err
    return folder


@pytest.fixture(scope="module")
def asked(runs: Path) -> Ended:
    return polyfed("explain", runs / "federated", "--beside", runs / "central", "--examples", 6)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "explanations").iterdir())}


def test_two_runs_are_asked_about_the_same(runs: Path, asked: Ended) -> None:
    assert (asked.code, asked.err) == (0, "")
    said = asked.out.splitlines()
    assert said[0].startswith("federated: cnn, best, of round ")
    assert said[0].endswith("; 6 held-out examples of digits")
    assert said[1].startswith("beside central: cnn, best, of round ")
    assert "method" in said[2]
    methods = ["integrated-gradients", "saliency", "grad-cam"]
    assert [line.split()[0] for line in said[3:6]] == methods
    assert said[-1] == f"report: {runs / 'federated' / 'report.html'}"
    assert contents(runs / "federated").keys() == {
        f"{method}.{kind}" for method in methods for kind in ("csv", "json", "png")
    }
    found = read_run(runs / "federated").explanations["saliency"].summary
    assert len(found.examples) == 6
    assert found.beside is not None
    assert found.beside.of == "central"
    both = [each for each in found.beside.rank_correlation if each is not None]
    assert len(both) == 6
    assert all(-1 <= each <= 1 for each in both)


def test_every_number_is_in_the_table(runs: Path, asked: Ended) -> None:
    folder = runs / "federated" / "explanations"
    summary = json.loads((folder / "integrated-gradients.json").read_text(encoding="utf-8"))
    head, *lines = (folder / "integrated-gradients.csv").read_text(encoding="utf-8").splitlines()
    assert head == "example,part,federated,central"
    assert len(lines) == 6 * 8 * 8
    cells = [line.split(",") for line in lines]
    for example in summary["examples"]:
        values = [float(value) for row, _, value, _ in cells if int(row) == example["row"]]
        assert sum(values) + example["gap"] == pytest.approx(example["score"] - example["start"], abs=1e-6)
        assert abs(example["gap"]) < 0.05 * abs(example["score"] - example["start"])
    assert [cell[1] for cell in cells[:2]] == ["0:0", "0:1"]


def test_the_report_shows_it(runs: Path, asked: Ended) -> None:
    page = (runs / "federated" / "report.html").read_text(encoding="utf-8")
    assert "<h3>What it looks at</h3>" in page
    assert page.count("data:image/png;base64,") == 3
    assert "beside: rank correlation with the attributions of central, mean" in page
    assert "the run has no more" not in page
    polyfed("report", runs / "central")
    assert "What it looks at" not in (runs / "central" / "report.html").read_text(encoding="utf-8")


def test_the_report_says_what_is_of_an_earlier_model(runs: Path, asked: Ended, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "federated", run)
    for name in ("best", "last"):  # as if it had gone on
        file = Path("models", f"{name}.safetensors")
        shutil.copy(runs / "central" / file, run / file)
    model = read_run(run).explanations["saliency"].summary.model
    polyfed("report", run)
    page = (run / "report.html").read_text(encoding="utf-8")
    line = f"saliency is of a model that the run has no more ({model}): explain it again"
    assert page.count("that the run has no more") == 3
    assert line in page


def test_from_python_it_is_a_frame_and_the_same_bytes(runs: Path, asked: Ended) -> None:
    before = contents(runs / "federated")
    found = polyfed_face.explain(runs / "federated", beside=runs / "central", examples=6, progress=False)
    assert found.shape == (3 * 6, 13)
    assert contents(runs / "federated") == before
    summary = read_run(runs / "federated").explanations["saliency"].summary
    assert summary.beside is not None
    assert found.loc["saliency", "beside/rank_correlation"].tolist() == summary.beside.rank_correlation
    assert found.loc["saliency"].index.tolist() == [each.row for each in summary.examples]


def test_one_model_and_one_method(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "alone"
    shutil.copytree(runs / "central", run, ignore=shutil.ignore_patterns("explanations"))
    ended = polyfed("explain", f"{run}:last", "--method", "saliency", "--examples", 3)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("alone: cnn, last, of round 2; 3 held-out examples of digits\n")
    assert contents(run).keys() == {"saliency.csv", "saliency.json", "saliency.png"}
    head = (run / "explanations" / "saliency.csv").read_text(encoding="utf-8").splitlines()[0]
    assert head == "example,part,alone"
    assert read_run(run).explanations["saliency"].summary.beside is None


def test_numbers_that_are_not_finite_are_read_again(runs: Path, tmp_path: Path) -> None:
    kept = load_kept(runs / "central")
    nan, inf = math.nan, math.inf
    told = Explanation(
        FEATURES,
        [Explained(torch.tensor([nan, 1.0]), "a", "a", "a", inf, nan, parts=("t-2", "t-1")) for _ in "ab"],
    )
    task: Any = SimpleNamespace(dataset=kept.task.dataset, explain=lambda *_: told)
    answers = ask(replace(kept, task=task), None, "saliency", torch.tensor([0, 1]))
    keep(answers, tmp_path, ["run"])
    content = (tmp_path / "explanations" / "saliency.json").read_bytes()
    read = ExplanationSummary.model_validate_json(content)
    assert read == answers.summary
    assert [(each.score, each.start, each.gap) for each in read.examples] == [(None, None, None)] * 2
    assert read.shares == {"t-2": None, "t-1": None}
    assert math.isnan(largest_gap(read))
    assert goes_by([read]) == []


@pytest.mark.parametrize("form", [IMAGE, WORDS, FEATURES])
def test_numbers_that_are_not_finite_are_drawn(form: Form) -> None:
    values = torch.tensor([[math.nan, 1.0], [math.inf, 0.0]])
    values = values if form == IMAGE else values[0]
    example = Explained(values, "a", "a", "a", 1.0, parts=("b", "c"), image=torch.zeros(1, 2, 2))
    figure = draw([("run", Explanation(form, [example]))], "title")
    figure.savefig(io.BytesIO(), format="png")


def test_a_broken_explanation_is_left_out_with_a_line(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "central", run, ignore=shutil.ignore_patterns("explanations"))
    (run / "explanations").mkdir()
    (run / "explanations" / "saliency.json").write_text('{"method": "saliency\\u001b"}', encoding="utf-8")
    (run / "explanations" / "saliency.png").write_bytes(b"")
    assert read_run(run).explanations == {}
    path = run / "explanations" / "saliency.json"
    assert caplog.messages == [f"{path} is broken: model is missing; restore it or run again: it is left out"]
    assert polyfed("report", run).code == 0


def test_the_last_model_of_a_run_that_went_on_and_was_killed_is_of_its_own_round(
    runs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "central", run, ignore=shutil.ignore_patterns("explanations"))
    (run / "result.json").unlink()
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(RoundRecord(server_round=3).as_line())
    assert read_run(run).last_round == 3
    assert load_kept(Path(f"{run}:last")).which == "last, of round 2"


def test_weights_of_other_names_move_no_cursor(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "central", run, ignore=shutil.ignore_patterns("explanations"))
    save_file({"a\x1b[2J\nb": torch.zeros(1)}, run / "models" / "best.safetensors")
    assert r"best.safetensors has a weight a\x1b[2J b of shape (1,), for which" in refused(run)


def test_runs_of_one_name_are_told_apart(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[str], list[Tensor]]] = []

    def note(told: list[tuple[str, Explanation]], title: str) -> Figure:
        drawn.append(([name for name, _ in told], [each.examples[0].values for _, each in told]))
        return draw(told, title)

    monkeypatch.setattr(figures, "draw", note)
    one, other = (tmp_path / folder / "fed" for folder in ("a", "b"))
    for run, name in ((one, "federated"), (other, "central")):
        shutil.copytree(runs / name, run, ignore=shutil.ignore_patterns("explanations"))
    ended = polyfed("explain", one, "--beside", other, "--method", "saliency", "--examples", 2)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("a/fed: cnn, best, of round ")
    assert "\nbeside b/fed: cnn, best, of round " in ended.out
    assert "the attributions of b/fed, mean" in ended.out
    head = (one / "explanations" / "saliency.csv").read_text(encoding="utf-8").splitlines()[0]
    assert head == "example,part,a/fed,b/fed"
    # One model beside itself has one name, and is drawn twice all the same.
    ended = polyfed("explain", one, "--beside", f"{one}:best", "--method", "saliency", "--examples", 2)
    assert (ended.code, ended.err) == (0, "")
    names, values = zip(*drawn, strict=True)
    assert names[0] == ["a/fed", "b/fed"]
    assert len({*names[1]}) == 1
    assert [len(each) for each in values] == [2, 2]
    assert not torch.equal(*values[0])
    assert torch.equal(*values[1])


def changed(run: Path, folder: Path, old: str, new: str) -> Path:
    """Copy a run, with another text in its config."""
    copy = folder / "changed"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("explanations"))
    text = (copy / "config.toml").read_text(encoding="utf-8")
    assert old in text
    (copy / "config.toml").write_text(text.replace(old, new), encoding="utf-8")
    return copy


def refused(*arguments: object) -> str:
    ended = polyfed("explain", *arguments)
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    return line.removeprefix("polyfed: ")


def test_what_it_refuses(runs: Path, tmp_path: Path) -> None:
    run = runs / "federated"
    assert refused(tmp_path / "none") == f"there is no run folder {tmp_path / 'none'}"
    assert refused(run, "--method", "gradcam") == (
        "unknown method for task cnn 'gradcam': did you mean grad-cam?"
    )
    assert refused(changed(run, tmp_path / "a", 'task = "cnn"', 'task = "vae"')) == (
        "task vae cannot be explained: give a run of cnn, contrastive, lstm-forecast, masked-pixels, ner or "
        "text-classify"
    )
    other = changed(run, tmp_path / "b", 'task-options = ""', "task-options = \"norm = 'group'\"")
    line = refused(run, "--beside", other)
    assert line.startswith(f"explain {other / 'models' / 'best.safetensors'} has a weight features.3.bias")
    shutil.rmtree(other / "models")
    line = refused(other)
    assert line == (
        f"explain {other} is no run that has kept such a model: it holds neither models/best.safetensors nor "
        "models/last.safetensors"
    )
    assert not (other / "explanations").exists()


def test_runs_on_other_data_are_not_compared(runs: Path) -> None:
    one = load_kept(runs / "federated")
    read_otherwise = replace(load_kept(runs / "central"), data_sha256="other")
    begin = "explain compares runs on the same examples, and these have"
    end = "give a run beside federated with its dataset and dataset-options"
    with pytest.raises(UserError, match=f"{begin} digits, read in two ways: {end}"):
        check_comparable(one, read_otherwise)
    config = one.config.model_copy(update={"dataset": "mnist-5k"})
    with pytest.raises(UserError, match=f"{begin} digits and mnist-5k: {end}"):
        check_comparable(one, replace(read_otherwise, config=config))


def test_features_are_told_by_their_shares() -> None:
    rows = [
        Explained(torch.tensor(values), "1", "1", "1", 1.0, parts=("t-2", "t-1"))
        for values in ([1.0, -2.0], [0.0, 1.0])
    ]
    explanation = Explanation(FEATURES, rows)
    assert shares(explanation).tolist() == [0.25, 0.75]
    assert len(draw([("run", explanation), ("run", explanation)], "title").axes[0].patches) == 4
