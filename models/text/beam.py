"""Beam search: a likely sequence, of a network that says how likely each next token is."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""What a network remembers of the tokens so far; the first axis of each tensor are the rows."""
Step = Callable[[Tensor, State], tuple[Tensor, State]]
"""(tokens (R,), state) -> log-probabilities of the next tokens (R, V), and the state to go on with."""


def beam_search(
    step: Step,
    state: State,
    limits: Tensor,
    *,
    begin: int,
    end: int,
    width: int,
    length_penalty: float = 0.0,
    banned: Sequence[int] = (),
) -> list[list[int]]:
    """Return for each of B sources the best sequence that is found, without `begin` and `end`.

    `state` is that of B * `width` rows, `width` for each source one after the other. The `width` likeliest
    beginnings of each are gone on with; `limits` (B,) says after how many tokens, with `end`, a source's last
    resort is the likeliest beginning as it is. A sequence of n tokens scores its log-probability divided by
    ((5 + n) / 6) ** `length_penalty` (Wu et al. 2016, arXiv:1609.08144, eq. 14), so that above 0 long ones
    have a chance. The search of a source ends when no beginning can become better than what it has found.
    """
    num_sources, device = len(limits), limits.device
    rows = torch.arange(num_sources, device=device).unsqueeze(1)  # (B, 1)
    scores = torch.full((num_sources, width), -torch.inf, device=device)
    scores[:, 0] = 0  # all beginnings are the same one at first
    tokens = torch.full((num_sources, width), begin, device=device)
    history = tokens.new_empty(num_sources, width, 0)
    best = torch.full((num_sources,), -torch.inf, device=device)
    found: list[list[int]] = [[] for _ in range(num_sources)]
    done = torch.zeros(num_sources, dtype=torch.bool, device=device)
    for length in range(1, int(limits.max()) + 1):
        log_probs, state = step(tokens.flatten(), state)
        log_probs = log_probs.float().index_fill(1, tokens.new_tensor([*banned]), -torch.inf)
        size = log_probs.shape[1]
        # Of twice as many at most one half ends here, so that enough go on.
        total = (scores.unsqueeze(2) + log_probs.view(num_sources, width, size)).flatten(1)
        top, place = total.topk(min(2 * width, width * size))
        beam, token = place // size, place % size
        ends = token == end

        ended, which = (top.where(ends, -torch.inf) / _norm(length, length_penalty)).max(1)
        better = (ended > best) & ~done
        best = ended.where(better, best)
        for row in better.nonzero()[:, 0].tolist():
            found[row] = history[row, beam[row, which[row]]].tolist()

        scores, kept = top.where(~ends, -torch.inf).topk(width)
        beam, tokens = beam.gather(1, kept), token.gather(1, kept)
        history = torch.cat([history[rows, beam], tokens.unsqueeze(2)], 2)
        state = tuple(each.index_select(0, (rows * width + beam).flatten()) for each in state)
        for row in ((limits == length) & ~done & best.isneginf()).nonzero()[:, 0].tolist():
            found[row] = history[row, 0].tolist()
        done |= (limits <= length) | (best >= scores[:, 0] / _norm(limits, length_penalty))
        if done.all():
            break
    return found


def _norm(length: "int | Tensor", penalty: float) -> "float | Tensor":
    return ((5 + length) / 6) ** penalty
