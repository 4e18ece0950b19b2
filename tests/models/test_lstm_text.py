"""The character language model: bits in exact numbers, samples that repeat; and that it learns."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from finished import Make, finish
from torch import Tensor, nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.text import EMPTY, windows_of
from models.registry import load_task
from models.task import merge_metrics
from models.text.lstm_text import BYTES, SAMPLE_BYTES, LanguageModel, TextGeneration
from simulations.scenario import load_scenario


def task(documents: dict[str, bytes] | None = None, **options: Any) -> TextGeneration:
    return TextGeneration(windows_of("toy", documents or {"a": b"a" * 18}), **options)


class Successor(nn.Module):
    """Scores the byte that follows the given one in the alphabet `certainty` higher than all others."""

    def __init__(self, certainty: float) -> None:
        super().__init__()
        self.certainty = nn.Parameter(torch.tensor(certainty))

    def forward(self, text: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        return nn.functional.one_hot((text + 1) % BYTES, BYTES) * self.certainty, memory


def evaluate(content: str, certainty: float) -> dict[str, tuple[float, float]]:
    model, data = Successor(certainty), windows_of("held out", {"a": content.encode()}).train
    with torch.no_grad():
        return task().evaluate(model, data, torch.Generator())


def test_the_network_has_the_parts_that_were_asked_for() -> None:
    model = task(embedding_size=3, hidden_size=5, num_layers=2).build()
    logits, _ = model(torch.zeros(2, 7, dtype=torch.int64))
    assert logits.shape == (2, 7, BYTES)
    cells = 4 * 5 * (3 + 5 + 2) + 4 * 5 * (5 + 5 + 2)
    assert sum(weight.numel() for weight in model.parameters()) == BYTES * 3 + cells + BYTES * (5 + 1)


@pytest.mark.parametrize(("content", "bytes_a_character"), [("abab", 1), ("äé", 2), ("aé", 1.5), ("漢", 3)])
def test_all_bits_of_a_characters_bytes_count(content: str, bytes_a_character: float) -> None:
    metrics = evaluate(content, certainty=0.0)  # 8 bits a byte
    bits, characters = metrics["bits-per-character"]
    assert characters == len(content)
    assert bits / characters == pytest.approx(8 * bytes_a_character)


@pytest.mark.rounding
def test_bits_are_those_of_the_chances_that_the_network_gives() -> None:
    right = math.log2((math.e**5 + 255) / math.e**5)
    wrong = math.log2(math.e**5 + 255)
    metrics = evaluate("abcx", certainty=5.0)  # a comes after the start, x after c
    assert metrics["bits-per-character"] == (pytest.approx(2 * right + 2 * wrong), 4)
    assert metrics["accuracy"] == (2, 4)


@pytest.mark.rounding
def test_unigram_bits_are_those_of_the_training_text() -> None:
    # Eighteen bytes of "a", of which two are held out; every byte but the empty one counts once more.
    dataset = windows_of("toy", {"a": b"a" * 18})
    metrics = evaluate("aab", certainty=0.0)
    total = len(dataset.train["text"][dataset.train["text"] != EMPTY]) + 255
    assert total == 16 + 255
    expected = 2 * math.log2(total / 17) + math.log2(total)
    assert metrics["unigram-bits-per-character"] == (pytest.approx(expected), 3)


def test_clients_merge_to_the_bits_of_all_text() -> None:
    parts = [evaluate("abc", 5.0), evaluate("xé", 5.0)]
    right, wrong = math.log2((math.e**5 + 255) / math.e**5), math.log2(math.e**5 + 255)
    merged = task().ratios(merge_metrics(parts))["bits-per-character"]
    assert merged == pytest.approx((2 * right + 4 * wrong) / 5)  # "bc" are foreseen; é is two bytes


@pytest.mark.rounding
def test_the_loss_leaves_out_the_places_behind_the_text() -> None:
    (objective,) = task().objectives
    text = torch.tensor([[EMPTY, *b"ab", EMPTY, EMPTY]])
    right, wrong = -5 + math.log(math.e**5 + 255), math.log(math.e**5 + 255)
    loss = objective.loss(Successor(5.0), {"text": text}).detach()
    assert float(loss) == pytest.approx((wrong + right) / 2)
    assert objective.max_grad_norm == 1.0


def test_an_epoch_yields_every_row_once() -> None:
    rows = task({"a": bytes(1 + n % 100 for n in range(1280))}).dataset.train
    generator = torch.Generator().manual_seed(1)
    batches = list(task().batches(nn.Module(), rows, generator, batch_size=4))
    assert [len(batch["text"]) for batch in batches] == [4, 4, 1]
    assert batches[0]["text"].dtype == torch.int64
    seen = sorted(torch.cat([batch["text"] for batch in batches]).tolist())
    assert seen == sorted(rows["text"].tolist())


@torch.no_grad()
def test_a_sample_goes_on_from_its_prompt() -> None:
    generator = torch.Generator().manual_seed(1)
    assert task(prompt="xa").generate(Successor(99.0), generator, num_bytes=5) == "bcdef"


@torch.no_grad()
def test_a_sample_is_the_generators_and_never_empty() -> None:
    def sample(seed: int) -> str:
        return task().generate(Successor(0.0), torch.Generator().manual_seed(seed), num_bytes=3000)

    assert sample(1) == sample(1) != sample(2)
    assert "\0" not in sample(1)
    assert "\x01" in sample(1)


@pytest.mark.rounding
@torch.no_grad()
def test_memory_goes_on_where_it_was_left() -> None:
    model = LanguageModel(4, 6, 1)
    text = torch.tensor([[*b"memory"]])
    whole, _ = model(text)
    _, memory = model(text[:, :3])
    rest, _ = model(text[:, 3:], memory)
    assert torch.allclose(whole[:, 3:], rest, atol=1e-6)


class Babble(Successor):
    """Goes on with dollars, control characters and broken UTF-8, which a figure has to survive."""

    def forward(self, text: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        logits = torch.full((*text.shape, BYTES), -99.0) * self.certainty
        logits[..., [ord("$"), ord("\\"), 7, 0xFF, ord("\n"), ord(" ")]] = 0
        return logits, memory


@torch.no_grad()
def test_the_figure_shows_any_text() -> None:
    (figure,) = task(prompt="$x").figures(Babble(1.0), task().dataset.test, torch.Generator()).values()
    figure.savefig(io.BytesIO(), format="svg")
    (shown,) = [text.get_text() for text in figure.axes[0].texts]
    assert shown.startswith("$x")
    assert shown.count("$") > SAMPLE_BYTES / 10
    assert "\x07" not in shown
    assert max(map(len, shown.split("\n"))) <= 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("hidden_size = 0", "hidden_size must be >= 1, got 0"),
        ("embedding_size = 0", "embedding_size must be >= 1, got 0"),
        ("num_layers = 1.5", "num_layers must be a whole number, got 1.5"),
        ("prompt = ''", "prompt must be text of at least one character, got ''"),
    ],
)
def test_options_that_are_refused(options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(TaskConfig(task="lstm-text", task_options=options), task().dataset)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of four documents that are easy to learn."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text("the quick brown fox " * (40 + number), encoding="utf-8")
    return folder


@pytest.mark.rounding
def test_it_learns_and_its_hash_does_not_depend_on_who_shares_a_node(
    tiny: Make, folder: Path, tmp_path: Path
) -> None:
    results = []
    for nodes in (1, 3):
        config = tiny(
            task="lstm-text",
            task_options="embedding_size = 16, hidden_size = 32",
            dataset=f"text:{folder}",
            partitioner="natural",
            batch_size=2,
            learning_rate=0.02,
            num_server_rounds=6,
            evaluate_every=0,
            run_dir=str(tmp_path / f"{nodes}-nodes"),
        )
        results.append(finish(config, num_nodes=nodes))
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    bits = results[0]["final"]["bits-per-character"]
    assert bits < 0.5 * results[0]["final"]["unigram-bits-per-character"]


@pytest.mark.bar
@pytest.mark.slow
def test_federated_text_is_as_good_as_centralized(tmp_path: Path) -> None:
    bits = {}
    for name in ("lstm-text", "lstm-text-centralized"):
        scenario = load_scenario(Path("simulations/configs") / f"{name}.toml")
        bits[name] = finish({**scenario, "run-dir": str(tmp_path / name)})["final"]["bits-per-character"]
    assert bits["lstm-text"] < 3.0
    assert bits["lstm-text"] <= 1.05 * bits["lstm-text-centralized"]
