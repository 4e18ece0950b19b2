"""Dialogue: what an evaluation counts, in exact numbers; what is drawn; and that it learns.

tests/models/test_seq2seq.py has what it shares with translation.
"""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from finished import Make, finish, finish_alike
from torch import Tensor, nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.turns import Row, Window, dialogues
from models.registry import load_task
from models.task import Metrics, merge_metrics
from models.text.attention import Memory
from models.text.dialogue import Dialogue
from models.text.distinct import distinct
from models.text.unigram import Unigram
from simulations.scenario import load_scenario

END, SIZE = 257, 258
WIDE = Window(turns=2, num_bytes=100)
ROWS = [Row(["hi"], "aab", "x"), Row(["hi", "aab"], "b", "y")]


def task(train: list[Row] = ROWS, window: Window = WIDE, **options: Any) -> Dialogue:
    return Dialogue(dialogues("toy", train, train, window, natural=True), **options)


class Says(nn.Module):
    """Says the same to all, each token with a given probability, and each other one equally often."""

    def __init__(self, text: str, certainty: float = 0.9) -> None:
        super().__init__()
        self.tokens = torch.tensor([*text.encode(), END, *[END] * 200])
        self.certainty = nn.Parameter(torch.tensor(certainty))

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        memory = self.encode(source)
        return self.decode(inputs, self.start(memory), memory)[0]

    def encode(self, source: Tensor) -> Memory:
        states = torch.zeros(*source.shape, 1)
        return Memory(source, source != 0, states, states, states[:, 0])

    def start(self, memory: Memory) -> tuple[Tensor, ...]:
        return (torch.zeros(len(memory.tokens), dtype=torch.int64),)

    def decode(self, inputs: Tensor, state: tuple[Tensor, ...], memory: Memory) -> tuple[Tensor, Tensor, Any]:
        places = state[0].unsqueeze(1) + torch.arange(inputs.shape[1])
        others = (1 - self.certainty) / (SIZE - 1)
        hot = nn.functional.one_hot(self.tokens[places], SIZE)
        weights = torch.zeros(*inputs.shape, memory.tokens.shape[1])
        return (hot * (self.certainty - others) + others).log(), weights, (state[0] + inputs.shape[1],)


@torch.no_grad()
def evaluate(model: nn.Module, rows: list[Row] = ROWS, made: Dialogue | None = None) -> Metrics:
    data = dialogues("x", rows, rows, WIDE, natural=False).test
    return (made or task()).evaluate(model, data, torch.Generator())


def test_what_an_evaluation_counts() -> None:
    metrics = evaluate(Says("aab"))
    wrong = 0.1 / (SIZE - 1)
    # Of "aab" and its end all are as it says; of "b" and its end none is.
    assert metrics["perplexity"][0] == pytest.approx(-(4 * math.log(0.9) + 2 * math.log(wrong)))
    assert metrics["perplexity"][1] == 6
    ratios = task().ratios(metrics)
    assert ratios["perplexity"] == pytest.approx(0.9 ** (-4 / 6) * wrong ** (-2 / 6))
    assert metrics["bleu-length"] == (2, 2)
    assert metrics["bleu-1"] == (1, 2)
    assert (metrics["distinct-1"], metrics["distinct-2"]) == ((1, 2), (0, 0))
    assert (ratios["distinct-1"], ratios["distinct-2"]) == (0.5, 0.0)
    assert ratios.keys() == {task().metric, *task().metrics}
    assert task().ratios({}) == {}
    assert task().evaluate(Says("a"), task().dataset.train.take(torch.arange(0)), torch.Generator()) == {}


def test_the_unigram_knows_how_often_each_token_is_in_training() -> None:
    # Labels of training: a, a, b, end; b, end. Each of the 257 tokens counts once more.
    chances = {97: 3, 98: 3, END: 3, 99: 1}
    rows = [Row(["q"], "abc", "x")]
    total, count = evaluate(Says("a"), rows)["unigram-perplexity"]
    assert count == 4
    assert total == pytest.approx(-sum(math.log(chance / (6 + 257)) for chance in chances.values()))
    unigram = Unigram(4)
    unigram.learn(torch.tensor([[1, 1, 3], [1, 0, 0]]))
    assert unigram.loss(torch.tensor([[1, 0], [2, 0]])) == pytest.approx(-math.log(4 / 7) - math.log(1 / 7))


def test_clients_merge_to_what_all_their_replies_have_but_for_what_is_distinct() -> None:
    rows = [*ROWS, Row(["so"], "one two three", "x"), Row(["no"], "one two", "x")]
    model = Says("one two three")
    parts = [evaluate(model, rows[:1]), evaluate(model, rows[1:2]), evaluate(model, rows[2:])]
    merged, whole = (task().ratios(each) for each in (merge_metrics(parts), evaluate(model, rows)))
    for name in ("perplexity", "unigram-perplexity", "bleu", "length-ratio"):
        assert merged[name] == pytest.approx(whole[name], rel=1e-12), name
    # Which words a client has written stays with it, so each of three counts its own three.
    assert (whole["distinct-1"], merged["distinct-1"]) == (3 / 12, 9 / 12)


def test_distinct_n() -> None:
    texts = [["a", "b", "a", "b"], ["a", "b"], ["c"]]
    assert distinct(texts, 1) == (3, 7)
    assert distinct(texts, 2) == (2, 4)  # ab, ba
    assert distinct([], 2) == (0, 0)


def test_a_perplexity_is_a_number_whatever_the_loss() -> None:
    assert math.isfinite(task().ratios({**evaluate(Says("a")), "perplexity": (1e9, 1)})["perplexity"])


@torch.no_grad()
def test_it_answers_the_turns_that_its_examples_would_have() -> None:
    class Repeats(Says):
        def encode(self, source: Tensor) -> Memory:
            self.tokens = torch.cat([source[0], self.tokens[-200:]])
            return super().encode(source)

    made = task(window=Window(2, 9))
    assert made.answer(Repeats(""), ["one", "two", "four"]) == "two\x1efour"
    assert made.answer(Repeats(""), ["one", "two", "eleven"]) == "eleven"


@torch.no_grad()
def test_a_reply_ends_at_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert task(longest=3).answer(Says("abcdef"), ["x"]) == "abc"
    assert task().answer(Says("a" * 150), ["x"]) == "a" * 100


@torch.no_grad()
def test_the_figure_shows_any_turn() -> None:
    rows = [Row(["a $x$", "\x07"], "b\n\n  c", "x"), Row(["n"], "m" * 900, "x"), *ROWS]
    made = task(rows)
    figures = made.figures(Says("aab"), made.dataset.test, torch.Generator().manual_seed(1))
    assert figures.keys() == {"dialogues"}
    figures["dialogues"].savefig(io.BytesIO(), format="svg")
    shown = [each.get_text() for each in figures["dialogues"].axes[0].texts]
    assert sum("written" in line for line in shown) == 4
    assert any("b    c" in line for line in shown)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("longest = -1", "longest must be >= 0, got -1"),
        ("beam = 0", "beam must be 1 to 100, got 0"),
        ("beem = 3", "unknown option of task dialogue 'beem': did you mean beam"),
    ],
)
def test_options_that_are_refused(options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(TaskConfig(task="dialogue", task_options=options), task().dataset)


def talks(folder: Path) -> Path:
    """Write dialogues that are easy to go on with, of two clients."""
    words = ["".join(chr(97 + (number // 5**place) % 5) for place in range(3)) for number in range(125)]
    lines = [
        {"turns": [f"{word}?", word.upper()], "client": f"{number % 2}"} for number, word in enumerate(words)
    ]
    path = folder / "talks.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.mark.rounding
def test_it_learns_and_its_hash_does_not_depend_on_who_shares_a_node(tiny: Make, tmp_path: Path) -> None:
    result = finish_alike(
        tiny,
        tmp_path,
        task="dialogue",
        task_options="embedding_size = 16, hidden_size = 32, longest = 8",
        dataset=f"dialogue:{talks(tmp_path)}",
        num_clients=2,
        partitioner="natural",
        batch_size=8,
        learning_rate=0.02,
        num_server_rounds=4,
        evaluate_every=0,
    )
    assert result["final"]["perplexity"] < result["final"]["unigram-perplexity"] / 2


@pytest.mark.bar
@pytest.mark.slow
def test_perplexity_is_at_most_half_of_the_unigram_s(tmp_path: Path) -> None:
    for name in ("dialogue", "dialogue-centralized"):
        scenario = load_scenario(Path("simulations/configs") / f"{name}.toml")
        best = finish({**scenario, "run-dir": str(tmp_path / name)})["tested"]["best"]
        assert best["perplexity"] <= best["unigram-perplexity"] / 2
