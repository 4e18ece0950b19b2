"""Beam search on models whose best sequence is known."""

import itertools
import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from models.text.beam import State, Step, beam_search

A, B, END, BEGIN = 0, 1, 2, 3


def table(chances: Mapping[tuple[int, ...], Mapping[int, float]]) -> Step:
    """Return a model that knows what follows which sequence; its state is the sequence, from 1 on."""

    def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        seen = torch.cat([state[0], tokens.unsqueeze(1)], 1)
        log_probs = torch.full((len(tokens), 4), -torch.inf)
        for row, sequence in enumerate(seen[:, 1:].tolist()):
            for token, chance in chances.get(tuple(sequence), {END: 1.0}).items():
                log_probs[row, token] = math.log(chance)
        return log_probs, (seen,)

    return step


def search(
    step: Step, width: int, num_sources: int = 1, limit: int = 9, penalty: float = 0.0
) -> list[list[int]]:
    state = (torch.empty(num_sources * width, 0, dtype=torch.int64),)
    limits = torch.full((num_sources,), limit)
    return beam_search(
        step, state, limits, begin=BEGIN, end=END, width=width, length_penalty=penalty, banned=[BEGIN]
    )


GARDEN_PATH = {
    (): {A: 0.6, B: 0.4},
    (A,): {A: 0.36, B: 0.34, END: 0.3},
    (B,): {B: 0.9, A: 0.1},
}
"""The likeliest first token leads to sequences of 0.22 at most, the other to one of 0.36."""


def test_a_beam_of_one_takes_the_likeliest_token_and_two_look_further() -> None:
    step = table(GARDEN_PATH)
    assert search(step, 1, num_sources=2) == [[A, A], [A, A]]
    assert search(step, 2, num_sources=2) == [[B, B], [B, B]]


@pytest.mark.parametrize(("penalty", "best"), [(0.0, [A]), (2.0, [B, B, B])])
def test_a_penalty_lets_long_sequences_win(penalty: float, best: list[int]) -> None:
    """log 0.5 / (7/6)^2 = -0.509 with one token and the end, log 0.4 / (9/6)^2 = -0.407 with three."""
    chances = {(): {A: 0.5, B: 0.4, BEGIN: 0.1}, (B,): {B: 1.0}, (B, B): {B: 1.0}}
    assert search(table(chances), 2, penalty=penalty) == [best]


def test_a_wide_beam_finds_what_is_best_of_all() -> None:
    """Of all sequences of up to four tokens of a random model, scored as the search does."""
    random = torch.Generator().manual_seed(1)
    chances = {}
    for length in range(5):
        for sequence in itertools.product((A, B), repeat=length):
            drawn = torch.rand(3, generator=random).softmax(0).tolist() if length < 4 else [0, 0, 1]
            chances[sequence] = {token: chance for token, chance in enumerate(drawn) if chance}

    def score(sequence: tuple[int, ...]) -> float:
        log_prob = sum(
            math.log(chances[sequence[:place]][token]) for place, token in enumerate((*sequence, END))
        )
        return log_prob / ((5 + len(sequence) + 1) / 6)

    best = max(
        (sequence for length in range(5) for sequence in itertools.product((A, B), repeat=length)), key=score
    )
    assert search(table(chances), 16, penalty=1.0) == [list(best)]


def test_one_that_does_not_end_is_cut_at_its_own_limit() -> None:
    endless = {
        sequence: {A: 0.7, B: 0.3} for n in range(9) for sequence in itertools.product((A, B), repeat=n)
    }
    state = (torch.empty(4, 0, dtype=torch.int64),)
    found = beam_search(table(endless), state, torch.tensor([2, 5]), begin=BEGIN, end=END, width=2)
    assert found == [[A, A], [A, A, A, A, A]]


def test_what_is_banned_is_not_written() -> None:
    state = (torch.empty(1, 0, dtype=torch.int64),)
    chances: dict[tuple[int, ...], dict[int, float]] = {(): {A: 0.9, B: 0.1}}
    found = beam_search(table(chances), state, torch.tensor([3]), begin=BEGIN, end=END, width=1, banned=[A])
    assert found == [[B]]


def test_rows_are_searched_by_themselves() -> None:
    """Each row begins with a state of its own, which its beams must keep."""

    def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        left, letter = state
        log_probs = torch.full((len(tokens), 4), -9.0)
        rows = torch.arange(len(tokens))
        log_probs[rows, torch.where(left > 0, letter, END)] = 0.0
        return log_probs, (left - 1, letter)

    state = (torch.tensor([1, 1, 3, 3]), torch.tensor([A, A, B, B]))
    found = beam_search(step, state, torch.tensor([9, 9]), begin=BEGIN, end=END, width=2)
    assert found == [[A], [B, B, B]]
