"""Kinds of data: the columns that all datasets of a kind have, as docs/data.md lists them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

INT64 = (torch.int64,)
FLOATS = (torch.float32, torch.float64)
NUMBERS = (torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, *FLOATS)

Limit = float | str
"""A number; or an axis, a number of `info`, or a list of names, of which the last one's place is meant."""


@dataclass(frozen=True)
class Column:
    """A column of a dataset's training and of its held-out examples."""

    name: str
    axes: tuple[str, ...]
    """Names of its axes; an axis of one name is of one length in all columns, and N is the examples."""
    dtypes: tuple[torch.dtype, ...]
    meaning: str
    low: Limit | None = None
    """The least value; None = any. Numbers are finite whatever the limits."""
    high: Limit | None = None
    """The largest value; None = any."""
    above_low: bool = False
    """Whether every value is larger than `low`."""
    with_classes: bool = False
    """Whether only datasets with classes have it."""


@dataclass(frozen=True)
class Entry:
    """What `Dataset.info` holds under a name."""

    name: str
    type: type
    """int, float, bool or str; tuple is a sequence of texts."""
    meaning: str
    optional: bool = False


@dataclass(frozen=True)
class Kind:
    """What a dataset of a kind holds."""

    columns: tuple[Column, ...]
    info: tuple[Entry, ...] = ()
    of_each_half: tuple[str, ...] = ()
    """Axes whose length may differ between training and held-out examples."""


KINDS: Mapping[str, Kind] = {
    "images": Kind(
        columns=(
            Column("image", ("N", "C", "H", "W"), NUMBERS, "pixels, channels first", low=0, high="max_value"),
            Column("label", ("N",), INT64, "class", low=0, high="classes", with_classes=True),
        ),
        info=(Entry("max_value", float, "value of full white, such as 255 or 1.0"),),
    ),
    "boxed-images": Kind(
        columns=(
            Column("image", ("N", "C", "H", "W"), NUMBERS, "pixels, channels first", low=0, high="max_value"),
            Column(
                "box",
                ("N", "M", "4"),
                FLOATS,
                "left, top, right and bottom of each thing, in pixels from the upper left; 0 behind the last",
                low=0,
            ),
            Column(
                "class",
                ("N", "M"),
                INT64,
                "class of each thing; -1 behind the last, -2 of a region that counts neither way",
                low=-2,
                high="classes",
            ),
        ),
        info=(
            Entry("max_value", float, "value of full white, such as 255 or 1.0"),
            Entry("skipped", int, "boxes that were left out", optional=True),
        ),
        of_each_half=("M",),
    ),
    "series": Kind(
        columns=(
            Column("window", ("N", "T"), FLOATS, "values that a forecast is made from"),
            Column("target", ("N",), FLOATS, "value to forecast"),
            Column(
                "scale",
                ("N",),
                FLOATS,
                "standard deviation of the series' training values",
                low=0,
                above_low=True,
            ),
            Column("series", ("N",), INT64, "which series it is from", low=0, high="series"),
            Column(
                "time", ("N",), (torch.int64, torch.float64), "time of the target; of dates, days since 1970"
            ),
        ),
        info=(
            Entry("series", tuple, "names of the series"),
            Entry("unit", str, 'unit of the values; "" = none'),
            Entry("dates", bool, "whether times are dates"),
            Entry("horizon", int, "steps from a window's last value to its target, else 1", optional=True),
            Entry(
                "longest_step", float, "longest step of time in an example, in median steps", optional=True
            ),
        ),
    ),
    "text": Kind(
        columns=(
            Column(
                "text",
                ("N", "T"),
                (torch.uint8,),
                "UTF-8: the byte before the example (0 = none), then those to predict; 0 fills up",
            ),
        ),
    ),
    "labelled-text": Kind(
        columns=(
            Column("text", ("N", "L"), (torch.uint8,), "UTF-8 of the text; 0 fills up"),
            Column("label", ("N",), INT64, "class", low=0, high="classes"),
        ),
        of_each_half=("L",),
    ),
    "tagged-sentences": Kind(
        columns=(
            Column("word", ("N", "T"), INT64, "place in `words`; -1 behind a sentence's end", -1, "words"),
            Column("tag", ("N", "T"), INT64, "place in `tags`; -1 behind a sentence's end", -1, "tags"),
            Column("length", ("N",), INT64, "words of the sentence", 1, "T"),
        ),
        info=(
            Entry("words", tuple, "every word there is"),
            Entry("tags", tuple, 'every IOB2 tag there is: "O", "B-PER", "I-PER"'),
        ),
        of_each_half=("T",),
    ),
    "parallel-text": Kind(
        columns=(
            Column("source", ("N", "S"), (torch.uint8,), "UTF-8 of the text to translate; 0 fills up"),
            Column("target", ("N", "T"), (torch.uint8,), "UTF-8 of its translation; 0 fills up"),
        ),
        info=(Entry("skipped", int, "pairs that were left out as too long", optional=True),),
        of_each_half=("S", "T"),
    ),
    "dialogue": Kind(
        columns=(
            Column(
                "source", ("N", "S"), (torch.uint8,), "UTF-8 of the turns before, 0x1E between; 0 fills up"
            ),
            Column("target", ("N", "T"), (torch.uint8,), "UTF-8 of the reply; 0 fills up"),
        ),
        info=(
            Entry("context_turns", int, "turns before a reply, at most"),
            Entry("max_bytes", int, "bytes of these turns together, and of a reply, at most"),
            Entry("skipped", int, "replies that were left out as too long", optional=True),
            Entry(
                "known", int, "replies that are not held out, as training has a turn of theirs", optional=True
            ),
        ),
        of_each_half=("S", "T"),
    ),
    "multimodal": Kind(
        columns=(
            Column(
                "image",
                ("N", "C", "H", "W"),
                (torch.uint8,),
                "pixels, channels first; zeros where an example has no picture",
                low=0,
                high="max_value",
            ),
            Column("text", ("N", "L"), (torch.uint8,), "UTF-8 of the text; 0 fills up, and stands for none"),
            Column("has_image", ("N",), (torch.uint8,), "whether there is a picture", low=0, high=1),
            Column("has_text", ("N",), (torch.uint8,), "whether there is a text", low=0, high=1),
            Column("label", ("N",), INT64, "class", low=0, high="classes"),
        ),
        info=(Entry("max_value", float, "value of full white, such as 255"),),
    ),
    "environments": Kind(
        columns=(Column("physics", ("N", "P"), FLOATS, "numbers that the environment is made with"),),
        info=(
            Entry("id", str, "gymnasium's id of the environment"),
            Entry("arguments", dict, "arguments of its constructor that all share", optional=True),
            Entry("physics", tuple, "names of the P numbers"),
            Entry("observation_size", int, "numbers in an observation"),
            Entry("frame_stack", int, "frames in an observation, of pictures", optional=True),
            Entry("frame_height", int, "pixels from top to bottom, of pictures", optional=True),
            Entry("frame_width", int, "pixels from left to right, of pictures", optional=True),
            Entry("frame_channels", int, "numbers of a pixel, of pictures", optional=True),
            Entry("max_value", float, "largest value of a pixel, of pictures", optional=True),
            Entry("num_actions", int, "actions"),
            Entry("first_action", int, "number of the first action"),
        ),
    ),
}
"""Kind -> what it holds. Of any other kind, a plugin's own, only what all kinds share is checked."""


def markdown(kind: str) -> str:
    """Return the table of a kind's columns, and of its `info`, as docs/data.md shows them."""
    rows = ["| column | shape | type | values | what it is |", "|---|---|---|---|---|"]
    for column in KINDS[kind].columns:
        dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in column.dtypes)
        name = f"`{column.name}`" + " (where there are classes)" * column.with_classes
        rows.append(
            f"| {name} | {shape_of(column)} | {dtypes} | {_values(column, kind)} | {column.meaning} |"
        )
    for entry in KINDS[kind].info:
        name = f'`info["{entry.name}"]`' + " (optional)" * entry.optional
        rows.append(f"| {name} | | {WORDS[entry.type]} | | {entry.meaning} |")
    return "\n".join(rows)


WORDS: Mapping[type, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    tuple: "tuple of texts",
    dict: "dict",
}
"""Type of an entry -> what it is called."""


def shape_of(column: Column) -> str:
    """Return the shape in words: "(N, C, H, W)"."""
    return f"({', '.join(column.axes)}{',' * (len(column.axes) == 1)})"


def _values(column: Column, kind: str) -> str:
    names = {entry.name for entry in KINDS[kind].info if entry.type is tuple} | {"classes"}
    high = f"the last of `{column.high}`" if column.high in names else f"`{column.high}`"
    if column.above_low:
        return f"finite, > {column.low}"
    if column.high is None and column.low is not None:
        return f"finite, >= {column.low}"
    if column.low is not None:
        return f"{column.low} to {'T' if column.high == 'T' else high}"
    return "finite" if column.dtypes[0].is_floating_point else "any"
