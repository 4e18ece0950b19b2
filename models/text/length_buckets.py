"""Batches of texts of about one length, which spend less on padding."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.text.pieces import Piece


def bucketed(
    pieces: Sequence[Piece], batch_size: int, buckets: int, generator: torch.Generator
) -> Sequence[Tensor]:
    """Return the rows of each batch of an epoch, all shuffled; with `buckets`, alike in length."""
    return bucketed_by(torch.tensor([_length(piece) for piece in pieces]), batch_size, buckets, generator)


def bucketed_by(
    lengths: Tensor, batch_size: int, buckets: int, generator: torch.Generator
) -> Sequence[Tensor]:
    """Return the rows of each batch of an epoch, all shuffled; with `buckets`, alike in `lengths` (N,).

    So many batches at a time are drawn, sorted by length and cut; then the batches are shuffled, so that
    short texts do not come first. 0 leaves each batch as it was drawn.
    """
    drawn = torch.randperm(len(lengths), generator=generator)
    if not buckets:
        as_drawn: Sequence[Tensor] = drawn.split(batch_size)
        return as_drawn
    batches: list[Tensor] = []
    for together in drawn.split(buckets * batch_size):
        batches += together[lengths[together].argsort(stable=True)].split(batch_size)
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def by_length(pieces: Sequence[Piece], buckets: int) -> list[Piece]:
    """Return pieces in the order in which they are evaluated: with `buckets`, short ones first."""
    return sorted(pieces, key=_length) if buckets else [*pieces]


def _length(piece: Piece) -> int:
    return piece.end - piece.start
