"""BLEU and chrF of a corpus as sums that add up over clients, by sacrebleu.

Both are made of counts of n-grams, so that what is merged from clients is what a corpus of all their texts has
(Papineni et al. 2002, "BLEU"; Popović 2015, "chrF").
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from models.task import Metrics

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU, CHRF

# sacrebleu is imported where it is used, so that a worker of another family does without.

TOKENIZERS = ("13a", "intl", "zh", "char", "none")
"""sacrebleu's, of those that need no files: how BLEU finds words."""
LENGTH, PRECISION = "length-ratio", "bleu-precision-"
CHRF_PRECISION, CHRF_RECALL = "chrf-precision-", "chrf-recall-"
_WORDS, _CHARACTERS = range(1, 5), range(1, 7)
"""Lengths of the n-grams."""


def translation_metrics(outputs: Sequence[str], references: Sequence[str], tokenizer: str) -> Metrics:
    """Return the counts that BLEU and chrF are made of: n-grams that are right, of those that are there."""
    if not outputs:
        return {}
    score = _bleu(tokenizer).corpus_score(outputs, [references])
    metrics: Metrics = {LENGTH: (score.sys_len, score.ref_len)}
    for n in _WORDS:
        metrics[f"{PRECISION}{n}"] = (score.counts[n - 1], score.totals[n - 1])
    by_text = _chrf()._extract_corpus_statistics(outputs, [references])
    counts = [sum(column) for column in zip(*by_text, strict=True)]
    for n in _CHARACTERS:
        given, wanted, right = counts[3 * n - 3 : 3 * n]
        metrics[f"{CHRF_PRECISION}{n}"] = (right, given)
        metrics[f"{CHRF_RECALL}{n}"] = (right, wanted)
    return metrics


def translation_ratios(metrics: Metrics) -> dict[str, float]:
    """Return `bleu` and `chrf`, from 0 to 100, of merged counts; nothing where there are none."""
    from sacrebleu.metrics import BLEU

    if LENGTH not in metrics or not metrics[LENGTH][1]:
        return {}
    right, given = zip(*(_whole(metrics, f"{PRECISION}{n}") for n in _WORDS), strict=True)
    length, reference_length = _whole(metrics, LENGTH)
    score = BLEU.compute_bleu([*right], [*given], length, reference_length, smooth_method="exp")
    counts = []
    for n in _CHARACTERS:
        matched, of_output = _whole(metrics, f"{CHRF_PRECISION}{n}")
        _, of_reference = _whole(metrics, f"{CHRF_RECALL}{n}")
        counts += [of_output, of_reference, matched]
    return {"bleu": float(score.score), "chrf": float(_chrf()._compute_f_score(counts))}


def is_count(name: str) -> bool:
    """Return whether a metric is only a part of `bleu` or `chrf`, which nobody wants to read by itself."""
    return name.startswith((PRECISION, CHRF_PRECISION, CHRF_RECALL))


def _whole(metrics: Mapping[str, tuple[float, float]], name: str) -> tuple[int, int]:
    total, weight = metrics[name]
    return round(total), round(weight)


@cache
def _bleu(tokenizer: str) -> "BLEU":
    from sacrebleu.metrics import BLEU

    # What is translated byte by byte ends in " ." where the reference does; that is no mistake to warn of.
    return BLEU(tokenize=tokenizer, force=True)


@cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics import CHRF

    return CHRF()
