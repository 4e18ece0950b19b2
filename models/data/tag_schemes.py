"""Entity tags of every usual scheme, as IOB2: what datasets, tasks and scores speak of."""

import re
from collections.abc import Sequence

from models.data.held_out import label_name

OUTSIDE = "O"
_PREFIXED = re.compile(r"[BIESLU]-.+")
_BRACKETS = re.compile(r"(?:\((?P<type>[^()*\s]+))?\*?(?P<closes>\))?")
"""Of CoNLL-2012: "(PERSON*" begins an entity, "*" goes on, "*)" ends it, and "(GPE)" is one of one word."""


def is_tag(text: str) -> bool:
    """Whether a text is a tag of one of the schemes."""
    return text == OUTSIDE or bool(_PREFIXED.fullmatch(text) or _bracket(text))


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Return the tags of a sentence as IOB2: B- begins every entity, I- goes on.

    It reads IOB1 (Ramshaw & Marcus 1995, I- begins an entity unless one of its type stands before it), IOB2,
    BIOES or IOBES (S- is an entity of one word, E- the last of several), BILOU (U-, L-), and the brackets of
    CoNLL-2012. One rule serves all: a word begins an entity where its prefix says so, or where no entity of
    its type is open. Types come as `label_name` has them.
    """
    converted, open_type = [], ""
    for tag in map(label_name, tags):
        if found := _bracket(tag):
            kind, begins, ends = found["type"] or open_type, bool(found["type"]), bool(found["closes"])
        else:
            prefix, _, kind = tag.partition("-")
            begins, ends = prefix in ("B", "S", "U"), prefix in ("E", "S", "L", "U")
        if kind:
            converted.append(f"{'B' if begins or kind != open_type else 'I'}-{kind}")
        else:
            converted.append(OUTSIDE)
        open_type = "" if ends else kind
    return converted


def _bracket(tag: str) -> re.Match[str] | None:
    return _BRACKETS.fullmatch(tag) if "*" in tag or tag[:1] == "(" else None
