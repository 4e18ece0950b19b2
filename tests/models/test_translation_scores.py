"""BLEU and chrF: those of sacrebleu, whoever has which texts."""

import math
from collections.abc import Sequence

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from models.task import Metrics, merge_metrics
from models.text.translation_scores import TOKENIZERS, bleu, bleu_counts, chrf, chrf_counts

REFERENCES = [
    "the third of May, at four twenty",
    "two hundred euros",
    "for nineteen weeks, at ten past six",
    "on the twelfth of July",
    "forty kilometers",
    "at eleven thirty, ninety-nine Swiss francs",
]
OUTPUTS = [
    "the third of May, at five twenty",
    "two hundred euro",
    "at ten past six, for nineteen weeks",
    "on the twelfth of July",
    "",
    "at eleven thirty, ninety-nine Swiss francs and more",
]


def counts(outputs: Sequence[str], references: Sequence[str]) -> Metrics:
    return {**bleu_counts(outputs, references, "13a"), **chrf_counts(outputs, references)}


def test_clients_merge_to_the_scores_of_the_whole_corpus() -> None:
    """The mean of the clients' own scores is another."""
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    clients = [counts(OUTPUTS[part], REFERENCES[part]) for part in parts]
    merged = merge_metrics(clients)
    assert merged == counts(OUTPUTS, REFERENCES)
    assert bleu(merged) == BLEU().corpus_score(OUTPUTS, [REFERENCES]).score
    assert chrf(merged) == CHRF().corpus_score(OUTPUTS, [REFERENCES]).score
    assert sum(map(bleu, clients)) / 3 != pytest.approx(bleu(merged), abs=0.1)
    assert sum(map(chrf, clients)) / 3 != pytest.approx(chrf(merged), abs=0.1)


def test_the_counts_are_those_of_n_grams() -> None:
    metrics = counts(["a b c d e"], ["a b c x e f"])
    assert metrics["bleu-length"] == (5, 6)
    assert [metrics[f"bleu-{n}"] for n in (1, 2, 3, 4)] == [(4, 5), (2, 4), (1, 3), (0, 2)]
    assert metrics["chrf-precision-1"] == (4, 5)
    assert metrics["chrf-recall-1"] == (4, 6)


@pytest.mark.rounding
def test_bleu_in_numbers() -> None:
    """3 of 4, 2 of 3, 1 of 2 and, smoothed, a half of 1; one word too few."""
    metrics = bleu_counts(["a b c x"], ["a b c d e"], "13a", "mine")
    assert bleu(metrics, "mine") == pytest.approx(100 * math.exp(1 - 5 / 4) * (3 / 4 * 2 / 3 * 1 / 4) ** 0.25)


def test_an_output_without_a_word_scores_nothing() -> None:
    metrics = counts([""], ["a"])
    assert (bleu(metrics), chrf(metrics)) == (0, 0)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_every_tokenizer_is_there(tokenizer: str) -> None:
    texts = ["一 二 三 四 五"]
    assert bleu(bleu_counts(texts, texts, tokenizer)) == pytest.approx(100)
