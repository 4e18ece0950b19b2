"""BLEU and chrF: those of sacrebleu, whoever has which texts."""

import pytest
from sacrebleu.metrics import BLEU, CHRF

from models.task import merge_metrics
from models.text.translation_scores import TOKENIZERS, is_count, translation_metrics, translation_ratios

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


def test_clients_merge_to_the_scores_of_the_whole_corpus() -> None:
    """The means of the clients' own scores are others."""
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    clients = [translation_metrics(OUTPUTS[part], REFERENCES[part], "13a") for part in parts]
    merged = merge_metrics(clients)
    assert merged == translation_metrics(OUTPUTS, REFERENCES, "13a")
    bleu, chrf = (kind().corpus_score(OUTPUTS, [REFERENCES]).score for kind in (BLEU, CHRF))
    assert translation_ratios(merged) == {"bleu": bleu, "chrf": chrf}
    of_clients = [translation_ratios(metrics)["bleu"] for metrics in clients]
    assert sum(of_clients) / 3 != pytest.approx(bleu, abs=1)


def test_the_counts_are_those_of_n_grams() -> None:
    metrics = translation_metrics(["a b c d e"], ["a b c x e f"], "13a")
    assert metrics["length-ratio"] == (5, 6)
    precisions = [metrics[f"bleu-precision-{n}"] for n in (1, 2, 3, 4)]
    assert precisions == [(4, 5), (2, 4), (1, 3), (0, 2)]
    assert metrics["chrf-precision-1"] == (4, 5)
    assert metrics["chrf-recall-1"] == (4, 6)


@pytest.mark.rounding
def test_bleu_in_numbers() -> None:
    """3 of 4, 2 of 3, 1 of 2 and, smoothed, a half of 1; one word too few."""
    ratios = translation_ratios(translation_metrics(["a b c x"], ["a b c d e"], "13a"))
    brevity = 2.718281828459045 ** (1 - 5 / 4)
    assert ratios["bleu"] == pytest.approx(100 * brevity * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)


def test_nothing_is_made_of_nothing() -> None:
    assert translation_metrics([], [], "13a") == {}
    assert translation_ratios({}) == {}
    assert translation_ratios(translation_metrics([""], ["a"], "13a")) == {"bleu": 0.0, "chrf": 0.0}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_every_tokenizer_is_there(tokenizer: str) -> None:
    assert translation_ratios(translation_metrics(["一二三四五"] * 2, ["一二三四五"] * 2, tokenizer))["chrf"] == 100


def test_counts_are_told_from_what_people_read() -> None:
    metrics = translation_metrics(OUTPUTS, REFERENCES, "13a")
    assert [name for name in metrics if not is_count(name)] == ["length-ratio"]
