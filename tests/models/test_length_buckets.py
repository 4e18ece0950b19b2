"""Batches of sentences of about one length."""

import pytest
import torch

from models.text.length_buckets import bucketed, by_length
from models.text.pieces import Piece

LENGTHS = [5, 1, 9, 3, 7, 2, 8, 4, 6, 10]
PIECES = [Piece(number, 0, length, 0, length) for number, length in enumerate(LENGTHS)]


def drawn(batch_size: int, buckets: int, seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [rows.tolist() for rows in bucketed(PIECES, batch_size, buckets, generator)]


def test_without_buckets_batches_are_as_they_were_drawn() -> None:
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1)).tolist()
    assert drawn(4, 0) == [order[:4], order[4:8], order[8:]]


@pytest.mark.parametrize("buckets", [1, 2, 5])
def test_every_sentence_comes_once(buckets: int) -> None:
    assert sorted(row for rows in drawn(3, buckets) for row in rows) == list(range(10))


def test_batches_are_alike_in_length_and_come_in_any_order() -> None:
    """One window holds all ten: its batches are the shortest two, the next two, and so on."""
    batches = drawn(2, 5)
    lengths = [[LENGTHS[row] for row in rows] for rows in batches]
    assert sorted(lengths) == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert lengths != sorted(lengths)
    assert [sorted(rows) for rows in drawn(2, 5, seed=2)] != [sorted(rows) for rows in batches]


def test_a_window_is_sorted_by_itself() -> None:
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1)).tolist()
    windows = [order[:4], order[4:8], order[8:]]
    cut = [sorted(window, key=LENGTHS.__getitem__) for window in windows]
    halves = [tuple(half) for window in cut for half in (window[:2], window[2:]) if half]
    assert sorted(map(tuple, drawn(2, 2))) == sorted(halves)


def test_evaluation_takes_short_ones_first() -> None:
    assert [piece.end for piece in by_length(PIECES, 1)] == sorted(LENGTHS)
    assert by_length(PIECES, 0) == PIECES
