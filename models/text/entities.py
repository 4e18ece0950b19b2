"""Entities in sequences of BIO tags, and how many of them were found, by the rules of seqeval."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from models.task import Metrics

Tags = Sequence[str]


class Entity(NamedTuple):
    """The words from `start` up to, not including, `end`."""

    type: str
    start: int
    end: int


def entities(tags: Tags, strict: bool = False) -> set[Entity]:
    """Return the entities of a sentence.

    An I- tag that follows no tag of its type begins an entity, as in the CoNLL script and seqeval's default
    mode; `strict`, as in seqeval's strict mode under IOB2, it belongs to none.
    """
    found, kind, start = set(), "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, tagged = tag.partition("-")
        if prefix == "I" and tagged == kind:
            continue
        if kind:
            found.add(Entity(kind, start, place))
        begins = prefix == "B" or (prefix == "I" and not strict)
        kind, start = tagged if begins else "", place
    return found


def entity_metrics(pairs: Iterable[tuple[Tags, Tags]], types: Sequence[str], strict: bool = False) -> Metrics:
    """Return precision, recall and F1 over all entities, and of each of the `types`, as sums.

    `pairs` are the true and the predicted tags of sentences. With the entities that are right counted, all
    three are ratios of sums, 2 * right / (true + predicted) the F1, so that merging clients is exact.
    """
    right, true, predicted = (dict.fromkeys(types, 0) for _ in range(3))
    for true_tags, predicted_tags in pairs:
        wanted, given = entities(true_tags, strict), entities(predicted_tags, strict)
        for counts, found in ((right, wanted & given), (true, wanted), (predicted, given)):
            for entity in found:
                counts[entity.type] += 1
    metrics = _scores("", sum(right.values()), sum(true.values()), sum(predicted.values()))
    for kind in types:
        metrics |= _scores(f"-{kind}", right[kind], true[kind], predicted[kind])
    return metrics


def _scores(suffix: str, right: int, true: int, predicted: int) -> Metrics:
    return {
        f"f1{suffix}": (2 * right, true + predicted),
        f"precision{suffix}": (right, predicted),
        f"recall{suffix}": (right, true),
    }
