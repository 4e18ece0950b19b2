"""BLEU and chrF of a corpus as sums that add up over clients, by sacrebleu.

Both are made of counts of n-grams, so that what is merged from clients is what a corpus of all their texts
has (Papineni et al. 2002, "BLEU"; Popović 2015, "chrF").
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from models.task import Metrics

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

# sacrebleu is imported where it is used, so that a worker of another family does without.

TOKENIZERS = ("13a", "intl", "zh", "char", "none")
"""sacrebleu's, of those that need no files: how BLEU finds words."""
BLEU_NAME, CHRF_NAME, LENGTH = "bleu", "chrf", "length-ratio"
_WORDS, _CHARACTERS = range(1, 5), range(1, 7)
"""Lengths of the n-grams."""


def bleu_counts(
    outputs: Sequence[str], references: Sequence[str], tokenizer: str, name: str = BLEU_NAME
) -> Metrics:
    """Return what the BLEU called `name` is made of.

    `NAME-1` to `NAME-4` are the n-grams of the outputs that are right, of those that there are; `NAME-length`
    the words of the outputs, of those of the references.
    """
    score = _bleu(tokenizer).corpus_score(outputs, [references])
    counts = zip(_WORDS, score.counts, score.totals, strict=True)
    return {
        f"{name}-length": (score.sys_len, score.ref_len),
        **{f"{name}-{n}": (right, given) for n, right, given in counts},
    }


def chrf_counts(outputs: Sequence[str], references: Sequence[str]) -> Metrics:
    """Return what chrF is made of: the n-grams of characters that are right, of all on either side."""
    by_text = _chrf()._extract_corpus_statistics(outputs, [references])
    counts = [sum(column) for column in zip(*by_text, strict=True)]
    metrics: Metrics = {}
    for n in _CHARACTERS:
        given, wanted, right = counts[3 * n - 3 : 3 * n]
        metrics |= {f"{CHRF_NAME}-precision-{n}": (right, given), f"{CHRF_NAME}-recall-{n}": (right, wanted)}
    return metrics


def words(text: str, tokenizer: str) -> list[str]:
    """Return the words that BLEU finds in a text."""
    found: str = _bleu(tokenizer).tokenizer(text)
    return found.split()


def bleu(metrics: Metrics, name: str = BLEU_NAME) -> float:
    """Return the BLEU, from 0 to 100, of merged `bleu_counts`, smoothed as sacrebleu does by default."""
    from sacrebleu.metrics.bleu import BLEU

    right, given = zip(*(_whole(metrics, f"{name}-{n}") for n in _WORDS), strict=True)
    length, wanted = _whole(metrics, f"{name}-length")
    return float(BLEU.compute_bleu([*right], [*given], length, wanted, smooth_method="exp").score)


def chrf(metrics: Metrics) -> float:
    """Return the chrF2, from 0 to 100, of merged `chrf_counts`."""
    counts = []
    for n in _CHARACTERS:
        right, given = _whole(metrics, f"{CHRF_NAME}-precision-{n}")
        _, wanted = _whole(metrics, f"{CHRF_NAME}-recall-{n}")
        counts += [given, wanted, right]
    return float(_chrf()._compute_f_score(counts))


def _whole(metrics: Metrics, name: str) -> tuple[int, int]:
    total, weight = metrics[name]
    return round(total), round(weight)


@cache
def _bleu(tokenizer: str) -> "BLEU":
    from sacrebleu.metrics.bleu import BLEU

    # Texts that end in " ." do so where the reference does; that is no mistake to warn of.
    return BLEU(tokenize=tokenizer, force=True)


@cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()
