"""Writing texts with an encoder-decoder: the likeliest that beam search finds."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.text.beam import beam_search
from models.text.encoder_decoder import Recurrent
from models.text.vocabulary import PAD, Vocabulary

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Writer:
    """How texts are written."""

    vocabulary: Vocabulary
    beam: int
    """Beginnings that are gone on with."""
    length_penalty: float
    longest: int = 0
    """Tokens of the longest text that is written, with its end; 0 is twice those of its source, and ten."""

    def write(self, model: Any, source: Tensor) -> list[str]:
        """Return what is written for UTF-8 with zeros behind (N, S), uint8."""
        outputs = [""] * len(source)
        for rows in (source != 0).sum(1).argsort(stable=True).split(EVALUATION_BATCH):
            found = self.search(model, self.vocabulary.encode(source[rows]))
            for row, tokens in zip(rows.tolist(), found, strict=True):
                outputs[row] = self.vocabulary.decode(tokens)
        return outputs

    def search(self, model: Any, source: Tensor) -> list[list[int]]:
        """(B, S) -> the tokens of each text; one that does not end is as long as may be."""
        device = next(model.parameters()).device
        memory = model.encode(source.to(device))
        start = model.start(memory)
        memory = memory.repeat(self.beam)
        limits = 2 * (source != PAD).sum(1).to(device) + 10
        if self.longest:
            limits = torch.full_like(limits, self.longest)

        def step(tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            log_probs, _, after = model.decode(tokens.unsqueeze(1), state, memory)
            return log_probs[:, 0], after

        return beam_search(
            step,
            tuple(each.repeat_interleave(self.beam, 0) for each in start),
            limits,
            begin=self.vocabulary.begin,
            end=self.vocabulary.end,
            width=self.beam,
            length_penalty=self.length_penalty,
            banned=(PAD, self.vocabulary.begin),
        )

    def attended(self, model: Any, source: Tensor) -> tuple[list[str], list[str], Tensor]:
        """(1, S) -> its tokens, those of its translation with `end`, and the weights (T, S) of each."""
        device = next(model.parameters()).device
        tokens = self.vocabulary.encode(source)
        (found,) = self.search(model, tokens)
        memory = model.encode(tokens.to(device))
        inputs = torch.tensor([[self.vocabulary.begin, *found]], device=device)
        state: Recurrent = model.start(memory)
        _, weights, _ = model.decode(inputs, state, memory)
        shown, written = (self.vocabulary.labels(each) for each in (tokens[0].tolist(), found))
        return shown, [*written, "∎"], weights[0].float().cpu()
