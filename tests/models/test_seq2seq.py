"""Translation: batches and losses in exact numbers, what is evaluated and drawn; and that it learns."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from finished import Make, finish
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.parallel_text import EMPTY, Pair, dataset_of
from models.registry import load_task
from models.task import merge_metrics
from models.text import text_to_text
from models.text.attention import Memory
from models.text.seq2seq import Translation
from models.text.teacher_forcing import cross_entropy, summed
from simulations.scenario import load_scenario

BEGIN, END, SIZE = 256, 257, 258
PAIRS = [Pair("ab c", "abc d e"), Pair("é", "f"), Pair("three four five six", "one two three four")]


def task(pairs: list[Pair] | None = None, **options: Any) -> Translation:
    return Translation(dataset_of("toy", pairs or PAIRS, PAIRS[:1]), **options)


class Parrot(nn.Module):
    """Writes its source, sure of each byte by `certainty`."""

    def __init__(self, certainty: float) -> None:
        super().__init__()
        self.certainty = nn.Parameter(torch.tensor(certainty))

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        memory = self.encode(source)
        return self.decode(inputs, self.start(memory), memory)[0]

    def encode(self, source: Tensor) -> Memory:
        states = torch.zeros(*source.shape, 1)
        return Memory(source, source != EMPTY, states, states, states[:, 0])

    def start(self, memory: Memory) -> tuple[Tensor, ...]:
        return (torch.zeros(len(memory.tokens), dtype=torch.int64), memory.tokens)

    def decode(self, inputs: Tensor, state: tuple[Tensor, ...], memory: Memory) -> tuple[Tensor, Tensor, Any]:
        place, source = state
        places = place.unsqueeze(1) + torch.arange(inputs.shape[1])
        behind = nn.functional.pad(source, (0, 200), value=EMPTY)
        following = behind.gather(1, places)
        logits = nn.functional.one_hot(following.where(following != EMPTY, END), SIZE) * self.certainty
        weights = nn.functional.one_hot(places.clamp(max=source.shape[1] - 1), source.shape[1]).float()
        return logits.log_softmax(2), weights, (place + inputs.shape[1], source)


def evaluate(pairs: list[Pair], certainty: float = 20.0) -> dict[str, tuple[float, float]]:
    with torch.no_grad():
        return task().evaluate(Parrot(certainty), dataset_of("x", pairs, pairs).train, torch.Generator())


def test_inputs_begin_and_labels_end() -> None:
    data = task([Pair("ab", "xyz"), Pair("é", "w")]).dataset.train
    batch = task().batch(data, torch.Generator())
    assert batch["source"].tolist() == [[97, 98], [0xC3, 0xA9]]
    assert batch["inputs"].tolist() == [[BEGIN, 120, 121, 122], [BEGIN, 119, 0, 0]]
    assert batch["labels"].tolist() == [[120, 121, 122, END], [119, END, 0, 0]]
    (objective,) = task().objectives
    assert objective.terms(batch) == 6
    assert objective.max_grad_norm == 1.0


@pytest.mark.parametrize("length_buckets", [0, 2])
def test_an_epoch_yields_every_pair_once_and_no_more_padding_than_it_must(length_buckets: int) -> None:
    pairs = [Pair("s" * n, "t" * n) for n in range(1, 10)]
    made = task(pairs, length_buckets=length_buckets)
    generator = torch.Generator().manual_seed(1)
    batches = list(made.batches(nn.Module(), made.dataset.train, generator, batch_size=4))
    lengths = [(batch["source"] != 0).sum(1).tolist() for batch in batches]
    assert sorted(length for each in lengths for length in each) == list(range(1, 10))
    assert [batch["source"].shape[1] for batch in batches] == [max(each) for each in lengths]
    assert [batch["labels"].shape[1] for batch in batches] == [1 + max(each) for each in lengths]


@pytest.mark.rounding
def test_the_loss_is_the_mean_over_tokens_without_padding() -> None:
    batch = task().batch(task([Pair("ab", "ab"), Pair("c", "d")]).dataset.train, torch.Generator())
    total = math.log(math.e**5 + SIZE - 1)
    loss = float(cross_entropy(Parrot(5.0), batch).detach())
    assert loss == pytest.approx((4 * (total - 5) + total) / 5)  # of "ab", "d" and two ends it foresees four


@pytest.mark.rounding
def test_what_an_evaluation_counts() -> None:
    metrics = evaluate([Pair("one two three four", "one two three four"), Pair("one two", "one two three")])
    ratios = task().ratios(metrics)
    assert metrics["exact-match"] == (1, 2)
    assert metrics["bleu-length"] == (6, 7)
    assert ratios.keys() == {"bleu", "chrf", "word-for-word-bleu", "exact-match", "length-ratio", "loss"}
    assert ratios["length-ratio"] == 6 / 7
    assert ratios["bleu"] == pytest.approx(
        100 * math.exp(1 - 7 / 6)
    )  # every n-gram is right, a word is missing
    assert metrics["loss"][1] == 19 + 14
    assert task().ratios({}) == {}
    assert task().evaluate(Parrot(1.0), task().dataset.train.take(torch.arange(0)), torch.Generator()) == {}


def test_clients_merge_to_what_all_their_texts_have() -> None:
    pairs = [*PAIRS, Pair("a b c d", "a b c d e")]
    parts = [evaluate(pairs[:1]), evaluate(pairs[1:3]), evaluate(pairs[3:])]
    merged, whole = (task().ratios(metrics) for metrics in (merge_metrics(parts), evaluate(pairs)))
    assert {**merged, "loss": 0} == {**whole, "loss": 0}
    assert merged["loss"] == pytest.approx(whole["loss"])


def of_words(folder: Path, pairs: list[Pair], **options: Any) -> Translation:
    """Return a task whose tokens are 300 words."""
    words = {"[UNK]": 0, **{f"w{number}": number for number in range(1, 300)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return task(pairs, backbone=str(folder), embedding_size=4, hidden_size=4, **options)


@torch.no_grad()
def test_a_source_in_which_a_tokenizer_finds_no_token(tmp_path: Path) -> None:
    made = of_words(tmp_path, [Pair("\t", "w1 w2"), Pair(" ", "w3")], copy=True)
    data, generator, model = made.dataset.train, torch.Generator(), made.build()
    assert made.batch(data, generator)["source"].tolist() == [[0], [0]]
    assert made.evaluate(model, data, generator)["loss"][1] == 3 + 2
    assert made.figures(model, data, generator).keys() == {"translations", "attention"}


@torch.no_grad()
def test_an_evaluation_holds_few_log_probabilities_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = of_words(tmp_path, [Pair(f"w{n}", f"w{n + 1} " * (1 + n % 3)) for n in range(1, 71)])
    data, shapes = made.dataset.train, []
    model = made.build()
    model.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(output.shape)))
    whole = made.evaluate(model, data, torch.Generator())["loss"]
    assert shapes == [(64, 4, 303), (6, 4, 303)]
    # Those of the labels as 64-bit numbers, and nothing else, are what the sum is of.
    batches = [made.batch(data.at(rows), torch.Generator()) for rows in torch.arange(70).split(64)]
    log_probs = [model(batch["source"], batch["inputs"]).double() for batch in batches]
    sums = [float(summed(each, batch["labels"])) for each, batch in zip(log_probs, batches, strict=True)]
    assert whole[0] == pytest.approx(sum(sums), rel=1e-14)
    shapes.clear()
    monkeypatch.setattr(text_to_text, "LOG_PROBS", 20 * 4 * 303 + 1)
    parted = made.evaluate(model, data, torch.Generator())["loss"]
    assert shapes == [*[(20, 4, 303)] * 3, (4, 4, 303), (6, 4, 303)]
    assert parted == (pytest.approx(whole[0]), whole[1])
    monkeypatch.setattr(text_to_text, "LOG_PROBS", 1)
    shapes.clear()
    made.evaluate(model, data, torch.Generator())
    assert shapes == [(1, 4, 303)] * 70


@torch.no_grad()
def test_translations_come_in_the_order_of_their_sources() -> None:
    sources = dataset_of("x", [Pair(text, "t") for text in ("long ones", "é", "four")], PAIRS).train["source"]
    assert task().writer.write(Parrot(20.0), sources) == ["long ones", "é", "four"]
    assert task(beam=1).writer.write(Parrot(20.0), sources) == ["long ones", "é", "four"]


def test_pairs_that_were_left_out_are_told_of() -> None:
    assert task().notes() == ()
    ((_, line),) = Translation(dataset_of("toy", PAIRS, PAIRS, skipped=1200)).notes()
    assert line.startswith("1,200 pairs are left out, as one of their texts is longer than max_bytes;")


class Babble(Parrot):
    """Writes dollars, control characters and broken UTF-8, which a figure has to survive."""

    def decode(self, inputs: Tensor, state: tuple[Tensor, ...], memory: Memory) -> tuple[Tensor, Tensor, Any]:
        log_probs, weights, after = super().decode(inputs, state, memory)
        babble = torch.full_like(log_probs, -99.0)
        babble[..., [ord("$"), 7, 0xC3]] = -1.0
        babble[..., END] = -2.0
        return babble, weights, after


@torch.no_grad()
def test_the_figures_show_any_text() -> None:
    for model in (Parrot(20.0), Babble(1.0)):
        data = dataset_of("x", [Pair("a $x$", "b"), *PAIRS], PAIRS).train
        figures = task().figures(model, data, torch.Generator().manual_seed(1))
        assert figures.keys() == {"translations", "attention"}
        for figure in figures.values():
            figure.savefig(io.BytesIO(), format="svg")
        maps = [axes for axes in figures["attention"].axes if axes.images]
        assert len(maps) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("attention = 'dot'", "attention must be 'bahdanau' or 'luong', got 'dot'"),
        ("hidden_size = 3", "hidden_size must be an even number >= 2, got 3"),
        ("embedding_size = 0", "embedding_size must be >= 1, got 0"),
        ("beam = 0", "beam must be 1 to 100, got 0"),
        ("length_penalty = -1.0", "length_penalty must be 0 to 5, got -1.0"),
        ("bleu_tokenizer = 'spm'", "bleu_tokenizer must be '13a' or 'intl' or 'zh' or 'char' or 'none'"),
        ("backbone = 'bert'", "backbone must be 'bytes', 'minilm', or an absolute path"),
    ],
)
def test_options_that_are_refused(options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(TaskConfig(task="seq2seq", task_options=options), task().dataset)


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """Return a table of words that are easy to translate, of two clients."""
    words = ["".join(chr(97 + (number // 5**place) % 5) for place in range(3)) for number in range(125)]
    lines = [f"{word}\t{word.upper()}\t{number % 2}" for number, word in enumerate(words)]
    path = tmp_path / "words.tsv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.rounding
def test_it_learns_and_its_hash_does_not_depend_on_who_shares_a_node(
    tiny: Make, pairs_file: Path, tmp_path: Path
) -> None:
    results = []
    for nodes in (1, 2):
        config = tiny(
            task="seq2seq",
            task_options="embedding_size = 16, hidden_size = 32, copy = true",
            dataset=f"parallel:{pairs_file}",
            dataset_options="client_column = 3",
            num_clients=2,
            partitioner="natural",
            batch_size=8,
            learning_rate=0.02,
            num_server_rounds=8,
            evaluate_every=0,
            run_dir=str(tmp_path / f"{nodes}-nodes"),
        )
        results.append(finish(config, num_nodes=nodes))
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert results[0]["final"]["exact-match"] > 0.5


@pytest.mark.bar
@pytest.mark.slow
def test_federated_translation_is_as_good_as_centralized(tmp_path: Path) -> None:
    bleu = {}
    for name in ("seq2seq", "seq2seq-centralized"):
        scenario = load_scenario(Path("simulations/configs") / f"{name}.toml")
        bleu[name] = finish({**scenario, "run-dir": str(tmp_path / name)})["best"]["bleu"]
    assert min(bleu.values()) >= 80
    assert bleu["seq2seq"] >= 0.95 * bleu["seq2seq-centralized"]
