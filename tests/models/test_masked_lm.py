"""The masked language model: what is hidden, what is asked, and what the encoder learns from it."""

import math
from pathlib import Path

import pytest
import torch
from finished import Make, finish, finish_alike
from places import CONFIGS, CONLL
from tiny_bert import CLS, DOT, SENTENCES, SEP
from torch import Tensor, nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset
from models.data.datasets import load_dataset
from models.data.tagged_sentences import Sentence, dataset_of
from models.data.text import windows_of
from models.registry import load_task
from models.state import build_model
from models.text.masked_lm import MaskedLanguageModel, corrupt
from models.text.masked_sentences import MaskedSentences
from models.text.ner import EntityRecognition
from models.text.tokens import NOT_ASKED
from simulations.scenario import load_scenario

VOCABULARY, MASK = 1000, 4


@pytest.fixture
def toy() -> Dataset:
    return dataset_of("toy", SENTENCES * 4, SENTENCES)


def test_of_the_chosen_pieces_80_percent_are_hidden_and_10_are_others() -> None:
    pieces = torch.full((1000, 100), 7)
    may_hide = torch.ones_like(pieces, dtype=torch.bool)
    may_hide[:, 0] = False
    seen, labels = corrupt(pieces, may_hide, 0.15, MASK, VOCABULARY, torch.Generator().manual_seed(1))
    chosen = labels != NOT_ASKED
    assert not chosen[:, 0].any()
    assert labels[chosen].unique().tolist() == [7]
    assert torch.equal(seen[~chosen], pieces[~chosen])
    n = int(chosen.sum())
    # Five standard deviations of a binomial count.
    assert n / 99_000 == pytest.approx(0.15, abs=5 * math.sqrt(0.15 * 0.85 / 99_000))
    kept, hidden = (int((seen[chosen] == piece).sum()) / n for piece in (7, MASK))
    assert hidden == pytest.approx(0.8, abs=5 * math.sqrt(0.16 / n) + 1 / VOCABULARY)
    assert kept == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / n) + 1 / VOCABULARY)
    others = seen[chosen & (seen != 7) & (seen != MASK)]
    assert len(others.unique()) > 0.6 * VOCABULARY  # of 1,500 draws; any piece may stand there
    assert int(others.max()) < VOCABULARY


def test_ends_and_padding_are_never_asked_for(toy: Dataset, bert_folder: Path) -> None:
    task = MaskedSentences(toy, str(bert_folder), mask_ratio=0.999)
    batch = task.batch(toy.test, torch.Generator().manual_seed(1))
    asked = (batch["labels"] != NOT_ASKED).sum(1).tolist()
    assert asked == [7, 1, 2]
    assert batch["input_ids"][:, 0].tolist() == [CLS] * 3
    assert batch["labels"][0, 7] == DOT
    assert SEP not in batch["labels"].unique().tolist()
    assert batch["attention_mask"].sum(1).tolist() == [9, 3, 4]


def test_batches_follow_from_the_generator_alone(toy: Dataset, bert_folder: Path) -> None:
    task = MaskedSentences(toy, str(bert_folder), mask_ratio=0.5)

    def draw(seed: int) -> list[list[int]]:
        torch.rand(3)  # somebody else draws from torch's own generator
        generator = torch.Generator().manual_seed(seed)
        return [
            batch["input_ids"].flatten().tolist()
            for batch in task.batches(nn.Module(), toy.train, generator, 5)
        ]

    assert draw(1) == draw(1) != draw(2)
    assert len(draw(1)) == 3


def test_the_words_of_text_are_those_of_its_rows_without_characters_that_are_cut() -> None:
    # 172 bytes and 19 held out: both training rows end within an ä, where the rows after them begin.
    task = MaskedLanguageModel(windows_of("toy", {"a": ("x\n y " + "ä" * 93).encode()}))
    assert task.words(task.dataset.train) == [["x", "y", "ä" * 61], ["ä" * 21]]
    assert task.words(task.dataset.test) == [["ä" * 9]]


@pytest.mark.rounding
@torch.no_grad()
def test_loss_and_accuracy_on_text_are_exact(bert_folder: Path) -> None:
    rows = b"Anna lives in Berlin."
    task = MaskedLanguageModel(windows_of("toy", {"a": rows * 10}), str(bert_folder), mask_ratio=0.999)
    model = build_model(task, seed=1).eval()
    for name, parameter in model.named_parameters():
        if name.startswith("cls.predictions.transform.LayerNorm") or name == "cls.predictions.bias":
            parameter.zero_()
    model.get_parameter("cls.predictions.bias")[DOT] = math.log(13)
    # Seven pieces, one of them a full stop: that has chance 13 in 25, each other piece 1 in 25.
    metrics = task.evaluate(model, task.dataset.test, torch.Generator().manual_seed(1))
    assert metrics == {
        "loss": (pytest.approx(6 * math.log(25) + math.log(25 / 13)), 7),
        "accuracy": (1, 7),
    }


def test_a_tagger_can_start_from_the_encoder(toy: Dataset, bert_folder: Path) -> None:
    pretrained = build_model(MaskedSentences(toy, str(bert_folder)), seed=1).state_dict()
    tagger = build_model(EntityRecognition(toy, str(bert_folder)), seed=1).state_dict()
    assert tagger.keys() - pretrained.keys() == {"classifier.weight", "classifier.bias"}
    assert all(pretrained[name].shape == tagger[name].shape for name in tagger.keys() & pretrained.keys())
    tasks = (MaskedSentences(toy), EntityRecognition(toy))
    assert tasks[0].agreed[-1] == tasks[1].agreed[-1]  # pieces have equal numbers


@pytest.mark.rounding
@torch.no_grad()
def test_metrics_are_sums_over_what_is_asked(toy: Dataset, bert_folder: Path) -> None:
    task = MaskedSentences(toy, str(bert_folder), mask_ratio=0.999)
    model = build_model(task, seed=1).eval()
    for name, parameter in model.named_parameters():
        if name.startswith("cls.predictions.transform.LayerNorm") or name == "cls.predictions.bias":
            parameter.zero_()  # all pieces are equally likely
    metrics = task.evaluate(model, toy.test, torch.Generator().manual_seed(1))
    assert metrics["loss"] == (pytest.approx(10 * math.log(13)), 10)
    assert metrics["accuracy"][1] == 10
    # Berlin, Paris, Anna, Paris; and the control character, tagged as a name, that has no piece.
    assert metrics["probe-accuracy"][1] == 8 * 5


@torch.no_grad()
def test_a_client_without_entities_or_without_a_hidden_token(bert_folder: Path) -> None:
    """Its metrics have no denominator, and its training has a loss of 0, not of NaN."""
    plain = Sentence(["in", "Paris", "."], ["O", "O", "O"])
    dataset = dataset_of("toy", [*SENTENCES, plain], [plain])
    task = MaskedSentences(dataset, str(bert_folder), mask_ratio=1e-6)
    model = build_model(task, seed=1).eval()
    metrics = task.evaluate(model, dataset.test, torch.Generator().manual_seed(1))
    assert metrics == {"probe-accuracy": (0, 0), "loss": (0, 0), "accuracy": (0, 0)}
    assert task.ratios(metrics) == {}
    (batch,) = task.batches(model, dataset.test, torch.Generator().manual_seed(1), 4)
    assert task.objectives[0].loss(model, batch).item() == 0
    nowhere = MaskedSentences(dataset_of("toy", [plain], SENTENCES), str(bert_folder))
    assert nowhere.evaluate(model, nowhere.dataset.test, torch.Generator())["probe-accuracy"] == (0, 0)


@pytest.mark.rounding
@torch.no_grad()
def test_a_word_has_the_features_of_its_first_piece(toy: Dataset, bert_folder: Path) -> None:
    task = MaskedSentences(toy, str(bert_folder))
    model = build_model(task, seed=1).eval()
    words = torch.tensor([[2, 2], [0, 3], [2, 1]])  # Paris, Berlin, and a word without a piece
    features = task._embed(model, toy.test, words)
    batch, _ = task.backbone.encode([["in", "Paris"], ["Anna", "lives", "in", "Berlin", "."]])
    states: Tensor = model.base_model(**batch).last_hidden_state  # type: ignore[operator]
    torch.testing.assert_close(features[0], states[0, 2])
    torch.testing.assert_close(features[1], states[1, 5])
    assert features[2].abs().max() == 0


@torch.no_grad()
def test_the_figure_shows_what_is_hidden_and_guessed(toy: Dataset, bert_folder: Path) -> None:
    task = MaskedSentences(toy, str(bert_folder), mask_ratio=0.999)
    (figure,) = task.figures(build_model(task, 1).eval(), toy.test, torch.Generator().manual_seed(1)).values()
    lines = figure.axes[0].texts[0].get_text().split("\n")
    assert lines[0] == " ".join(["[MASK]"] * 7)
    assert [line.split(":")[0].strip() for line in lines[1:8]] == [
        *("an", "##na", "lives", "in", "ber", "##lin", ".")
    ]
    chances = [float(guess.split()[-1]) for guess in lines[1].split(",")]
    assert len(chances) == 3
    assert chances == sorted(chances, reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("mask_ratio = 0", "mask_ratio must be in (0, 1), got 0"),
        ("mask_ratio = 1.0", "mask_ratio must be in (0, 1), got 1.0"),
        ("warmup_steps = -1", "warmup_steps must be >= 0, got -1"),
    ],
)
def test_what_does_not_fit_is_refused(toy: Dataset, options: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_task(TaskConfig(task="masked-lm", task_options=options), toy)
    assert str(error.value) == message


def test_images_are_refused() -> None:
    images = load_dataset(TaskConfig(dataset="digits"))
    message = "task masked-lm learns from text or tagged-sentences, and dataset digits holds images"
    with pytest.raises(UserError, match=message):
        load_task(TaskConfig(task="masked-lm"), images)


def test_one_hash_for_one_node_and_three(tiny: Make, bert_folder: Path, tmp_path: Path) -> None:
    result = finish_alike(
        tiny,
        tmp_path,
        task="masked-lm",
        task_options=f"backbone = '{bert_folder}', mask_ratio = 0.999",
        dataset=f"conll:{CONLL}",
        partitioner="iid",
        num_clients=3,
        num_server_rounds=1,
    )
    assert result["final"].keys() == {"probe-accuracy", "loss", "accuracy"}
    assert result["metric"] == "probe-accuracy"


@pytest.mark.rounding
def test_one_hash_on_text_for_one_node_and_three(tiny: Make, bert_folder: Path, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    for name, times in (("a", 30), ("b", 20), ("c", 10)):
        (documents / name).write_text("Anna lives in Berlin. " * times, encoding="utf-8")
    result = finish_alike(
        tiny,
        tmp_path,
        task="masked-lm",
        task_options=f"backbone = '{bert_folder}', warmup_steps = 0",
        dataset=f"text:{documents}",
        partitioner="natural",
        num_clients=3,
        learning_rate=0.01,
    )
    assert result["final"]["loss"] < result["untrained"]["loss"]
    assert result["metric"] == "loss"


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_features_tell_kinds_of_names_apart_better_than_untrained_ones(tmp_path: Path) -> None:
    """Seed 42; the test sentences come from templates that no client has seen."""
    together, alone = (
        finish(load_scenario(CONFIGS / f"{name}.toml", [f"run-dir={tmp_path / name}"]))
        for name in ("masked-lm", "masked-lm-centralized")
    )
    assert together["final"]["probe-accuracy"] >= together["untrained"]["probe-accuracy"] + 0.05
    assert together["final"]["probe-accuracy"] >= 0.95 * alone["final"]["probe-accuracy"]
    assert together["final"]["loss"] <= 1.05 * alone["final"]["loss"]


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_documents_together_guess_better_than_any_answer_that_is_always_the_same(tmp_path: Path) -> None:
    """Seed 42; twelve of the scenario's rounds."""
    scenario = load_scenario(CONFIGS / "masked-lm-pydoc.toml")
    result = finish({**scenario, "num-server-rounds": 12, "evaluate-every": 12, "run-dir": str(tmp_path)})
    task = load_task(
        TaskConfig(task="masked-lm", task_options="mask_ratio = 0.9"),
        load_dataset(TaskConfig(dataset="pydoc")),
    )
    assert isinstance(task, MaskedLanguageModel)
    labels = task.batch(task.dataset.test, torch.Generator().manual_seed(1))["labels"]
    counts = labels[labels != NOT_ASKED].bincount()
    assert result["untrained"]["accuracy"] < 0.01
    assert result["final"]["accuracy"] > 1.3 * float(counts.max() / counts.sum())
    assert result["final"]["loss"] < result["untrained"]["loss"] - 0.8
