"""Asking a run's model, and those beside it, about the same held-out examples, and keeping the answers."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.core.device import pinned
from models.core.errors import UserError, unknown
from models.core.seeds import generator_for
from models.explain.explanation import FEATURES, Explained, Explanation
from server.run_folder import write_bytes, write_json
from server.run_schema import EXPLANATIONS, Alike, ExplainedRow, ExplanationSummary
from simulations.explain.agreement import alike
from simulations.explain.kept import Kept

UNTRAINED = "untrained"


@dataclass(frozen=True)
class Answers:
    """What a method told."""

    summary: ExplanationSummary
    rows: Tensor
    """The held-out examples (N,)."""
    mine: Explanation
    theirs: Explanation | None
    """Of the model beside, where there is one."""


def methods_for(kept: Kept, beside: Kept | None, asked: Sequence[str]) -> list[str]:
    """Return the methods that are asked for, or else all that both tasks offer; UserError for another one."""
    both = [kept] if beside is None else [kept, beside]
    for each in both:
        for method in asked:
            if method not in each.task.explained_by:
                raise unknown(f"method for task {each.task_name}", method, each.task.explained_by)
    offered = [
        method for method in kept.task.explained_by if all(method in each.task.explained_by for each in both)
    ]
    if not offered:
        raise UserError(
            f"tasks {kept.task_name} and {both[-1].task_name} have no method in common: "
            f"{', '.join(kept.task.explained_by)} and {', '.join(both[-1].task.explained_by)}"
        )
    return list(dict.fromkeys(asked)) or offered


def check_comparable(kept: Kept, beside: Kept) -> None:
    """Raise UserError for runs on other data, or whose answers are others."""
    if kept.data_sha256 != beside.data_sha256:
        names = [each.config.dataset for each in (kept, beside)]
        both = f"{names[0]} and {names[1]}" if names[0] != names[1] else f"{names[0]}, read in two ways"
        raise UserError(
            f"explain compares runs on the same examples, and these have {both}: give a run beside "
            f"{kept.run.name} with its dataset and dataset-options"
        )
    if kept.task.dataset.classes != beside.task.dataset.classes:
        names = [", ".join(each.task.dataset.classes) for each in (kept, beside)]
        raise UserError(
            f"explain compares runs with the same classes: {kept.run.name} has {names[0]}, {beside.run.name} "
            f"{names[1]}"
        )


def chosen_rows(kept: Kept, num_examples: int) -> Tensor:
    """Return the held-out examples that are explained, drawn by the run's seed: the same for all methods."""
    size = len(kept.task.dataset.test)
    return torch.randperm(size, generator=generator_for(kept.config.seed, "explain"))[:num_examples]


def ask(kept: Kept, beside: Kept | None, method: str, rows: Tensor) -> Answers:
    """Explain what the run's model says of the rows; others are asked about the same answers."""
    data = kept.task.dataset.test.take(rows)
    with pinned(kept.config.threads), torch.enable_grad():
        mine = kept.task.explain(kept.model, data, method)
        asked = [each.asked for each in mine.examples]
        untrained = kept.task.explain(kept.untrained, data, method, asked)
        theirs, compared = None, None
        if beside is not None:
            theirs = beside.task.explain(beside.model, beside.task.dataset.test.take(rows), method, asked)
            compared = _compared(beside.run.name, mine, theirs)
    summary = ExplanationSummary(
        method=method,
        model=kept.which,
        weights_sha256=kept.weights_sha256,
        examples=[
            _row(row, each, theirs.examples[place] if theirs else None)
            for place, (row, each) in enumerate(zip(rows.tolist(), mine.examples, strict=True))
        ],
        shares=_shares(mine) if mine.form == FEATURES else {},
        untrained=_compared(UNTRAINED, mine, untrained),
        beside=compared,
    )
    return Answers(summary, rows, mine, theirs)


def keep(answers: Answers, folder: Path, names: Sequence[str]) -> None:
    """Write figure, numbers and summary into a run's folder; `names` are those of the runs."""
    from models.explain.figures import draw

    method = answers.summary.method
    told = [answers.mine] if answers.theirs is None else [answers.mine, answers.theirs]
    image = io.BytesIO()
    named = list(zip(names, told, strict=True))
    figure = draw(named, f"{method}: what counts for an answer, held-out examples")
    figure.savefig(image, format="png", dpi=110, metadata={"Software": None})
    where = folder / EXPLANATIONS
    try:
        where.mkdir(exist_ok=True)
        write_bytes(where / f"{method}.png", image.getvalue())
        write_bytes(where / f"{method}.csv", _table(answers, names).encode())
        write_json(where / f"{method}.json", answers.summary)
    except OSError as error:
        raise UserError(f"explain cannot write to {where} ({error.strerror}): make it writable") from error


def _compared(of: str, mine: Explanation, theirs: Explanation) -> Alike:
    for a, b in zip(mine.examples, theirs.examples, strict=True):
        if a.values.shape != b.values.shape:
            raise UserError(
                f"explain compares the same parts of an example: one model has {tuple(a.values.shape)}, {of} "
                f"{tuple(b.values.shape)}"
            )
    return alike(of, mine, theirs)


def _row(row: int, mine: Explained, theirs: Explained | None) -> ExplainedRow:
    return ExplainedRow(
        row=row,
        answer=mine.answer,
        truth=mine.truth,
        said=mine.said,
        score=_finite(mine.score),
        start=_finite(mine.start),
        gap=_finite(mine.gap),
        said_beside=theirs.said if theirs else None,
    )


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _shares(explanation: Explanation) -> dict[str, int | float | None]:
    from models.explain.figures import shares

    names = explanation.examples[0].parts
    return dict(zip(names, map(_finite, shares(explanation).tolist()), strict=True))


def _table(answers: Answers, names: Sequence[str]) -> str:
    """Return a line for each part of each example, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["example", "part", *names])
    told = [answers.mine] if answers.theirs is None else [answers.mine, answers.theirs]
    for place, row in enumerate(answers.rows.tolist()):
        columns = [explanation.examples[place].values.flatten().tolist() for explanation in told]
        for part, *numbers in zip(_parts(answers.mine.examples[place]), *columns, strict=True):
            writer.writerow([row, part, *numbers])
    return text.getvalue()


def _parts(example: Explained) -> Iterator[str]:
    """Yield the names of the parts; of a pixel LINE:COLUMN, from the upper left corner."""
    if example.values.ndim == 1:
        yield from example.parts
        return
    height, width = example.values.shape
    yield from (f"{line}:{column}" for line in range(height) for column in range(width))
