"""The one form in which what a strategy says to a client travels: a record of arrays and a record of words.

Flower's messages may hold any number of records under any keys.
"""

from collections.abc import Collection, Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from strategies.rule import aux_arrays
from strategies.wire.arrays import record_of

ARRAYS, CONFIG = "arrays", "config"
"""Keys of the two records, as most of Flower's strategies have them too."""


def in_form(content: RecordDict, weights: Collection[str] = (), arrays_key: str = ARRAYS) -> RecordDict:
    """Return a message's content in two records.

    That of arrays holds the weights, and beside them as aux tensors what lies in others, whose keys are the
    kinds. That of words holds all configs and metrics; where two say the same thing, the first one is heard.
    Raises ValueError for a message without all the weights.
    """
    arrays = dict(content.array_records)
    main = _main(arrays, set(weights), arrays_key)
    record = arrays.pop(main)
    if arrays:
        beside: dict[str, Any] = {}
        for kind, tensors in arrays.items():
            beside |= aux_arrays(kind, dict(tensors))
        record = record_of({**record, **beside})
    said: list[Mapping[str, Any]] = [*content.config_records.values(), *content.metric_records.values()]
    if len(said) == 1 and isinstance(said[0], ConfigRecord):
        return RecordDict({ARRAYS: record, CONFIG: said[0]})
    words = {key: value for each in reversed(said) for key, value in each.items()}
    return RecordDict({ARRAYS: record, CONFIG: ConfigRecord(words)})


def listed(names: Collection[str]) -> str:
    """Return the first of these names, and how many more there are: "a, b and 7 more are"."""
    first = sorted(names)[:3]
    more = f" and {len(names) - len(first)} more" if len(names) > len(first) else ""
    return f"{', '.join(first)}{more} {'is' if len(names) == 1 else 'are'}"


def _main(arrays: Mapping[str, ArrayRecord], weights: set[str], arrays_key: str) -> str:
    """Return the key of the weights: the usual one, or that of the first record which holds them."""
    for key in sorted(arrays, key=lambda key: key not in (arrays_key, ARRAYS)):
        if weights <= arrays[key].keys():
            return key
    if not arrays:
        raise ValueError("sends a message without weights: put `arrays` into it")
    fullest = max(arrays.values(), key=lambda record: len(weights & record.keys()))
    raise ValueError(
        f"sends clients a part of the weights: {listed(weights - fullest.keys())} missing; start from the "
        "arrays that configure_train is given"
    )
