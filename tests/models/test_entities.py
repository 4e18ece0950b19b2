"""Entities and their scores, held against seqeval."""

import random

import pytest
from seqeval.metrics import classification_report
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2

from models.task import merge_metrics
from models.text.entities import Entity, entities, entity_metrics

TYPES = ["LOC", "MISC", "PER"]
TAGS = ["O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in "BI")]
MODES = [(False, {}), (True, {"mode": "strict", "scheme": IOB2})]


@pytest.mark.parametrize(
    ("tags", "lenient", "strict"),
    [
        ("O O", set(), set()),
        ("B-PER I-PER O", {("PER", 0, 2)}, {("PER", 0, 2)}),
        ("B-PER B-PER", {("PER", 0, 1), ("PER", 1, 2)}, {("PER", 0, 1), ("PER", 1, 2)}),
        ("O I-PER I-PER", {("PER", 1, 3)}, set()),
        ("B-PER I-LOC I-LOC", {("PER", 0, 1), ("LOC", 1, 3)}, {("PER", 0, 1)}),
        ("I-LOC B-LOC I-LOC", {("LOC", 0, 1), ("LOC", 1, 3)}, {("LOC", 1, 3)}),
        ("B-A-B I-A-B", {("A-B", 0, 2)}, {("A-B", 0, 2)}),
    ],
)
def test_the_entities_of_a_sentence(tags: str, lenient: set[Entity], strict: set[Entity]) -> None:
    assert entities(tags.split()) == lenient == {(k, s, e + 1) for k, s, e in get_entities(tags.split())}
    assert entities(tags.split(), strict=True) == strict


def drawn(num_sentences: int, seed: int) -> list[list[str]]:
    """Return sentences of random tags, most of them no BIO that anybody would write."""
    draw = random.Random(seed)
    return [draw.choices(TAGS, weights=[4, *[1] * 6], k=1 + row % 9) for row in range(num_sentences)]


@pytest.mark.parametrize(("strict", "options"), MODES)
def test_scores_are_those_of_seqeval(strict: bool, options: dict[str, object]) -> None:
    true, noise = drawn(300, 1), drawn(300, 2)
    predicted = [
        wanted if row % 2 else other for row, (wanted, other) in enumerate(zip(true, noise, strict=True))
    ]
    report = classification_report(true, predicted, output_dict=True, **options)
    metrics = entity_metrics(zip(true, predicted, strict=True), TYPES, strict)
    for name, suffix in [("micro avg", ""), *((kind, f"-{kind}") for kind in TYPES)]:
        for ours, theirs in [("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")]:
            total, weight = metrics[ours + suffix]
            assert 0 < total < weight
            assert total / weight == pytest.approx(report[name][theirs], abs=1e-12)
        assert metrics[f"recall{suffix}"][1] == report[name]["support"]


def test_scores_are_sums_in_exact_numbers() -> None:
    true = ["B-PER", "I-PER", "O", "B-LOC", "O"]
    predicted = ["B-PER", "I-PER", "O", "B-PER", "B-LOC"]
    assert entity_metrics([(true, predicted)], ["LOC", "PER"]) == {
        "f1": (2, 5),
        "precision": (1, 3),
        "recall": (1, 2),
        "f1-LOC": (0, 2),
        "precision-LOC": (0, 1),
        "recall-LOC": (0, 1),
        "f1-PER": (2, 3),
        "precision-PER": (1, 2),
        "recall-PER": (1, 1),
    }


def test_merged_clients_score_as_one() -> None:
    true, predicted = drawn(90, 3), drawn(90, 4)
    pairs = list(zip(true, predicted, strict=True))
    parts = [entity_metrics(pairs[start : start + 30], TYPES) for start in (0, 30, 60)]
    assert merge_metrics(parts) == entity_metrics(pairs, TYPES)


def test_clients_without_an_entity_name_the_same_metrics() -> None:
    nothing = entity_metrics([(["O"], ["O"])], TYPES)
    assert nothing.keys() == entity_metrics([(TAGS, TAGS)], TYPES).keys()
    assert set(nothing.values()) == {(0, 0)}
