"""A network that reads a sequence and writes another: an LSTM each, with attention between them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.text.attention import Additive, Memory, Multiplicative
from models.text.vocabulary import PAD

BAHDANAU, LUONG = "bahdanau", "luong"
_LEAST = 1e-12
"""The least probability that a token is given where probabilities are mixed, whose logarithm is finite."""

Recurrent = tuple[Tensor, Tensor]
"""A decoder's hidden and cell state, (B, H) each."""


class Encoder(nn.Module):
    """An LSTM that reads from both ends; padding changes nothing.

    It computes what `nn.LSTM` does of a packed sequence, several times as fast on a CPU: each text is turned
    around within its length, so that the way back is a plain LSTM too, and padding comes last both ways.
    """

    def __init__(self, embedding_size: int, size: int) -> None:
        super().__init__()
        self.ahead = nn.LSTM(embedding_size, size // 2, batch_first=True)
        self.back = nn.LSTM(embedding_size, size // 2, batch_first=True)

    def forward(self, embedded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, E), (B,) -> outputs (B, S, H), and those of both ends (B, H)."""
        places = torch.arange(embedded.shape[1], device=embedded.device)
        behind = lengths.unsqueeze(1) - 1 - places
        turned = behind.where(behind >= 0, places).unsqueeze(2)  # (B, S, 1)
        ahead, _ = self.ahead(embedded)
        back, _ = self.back(embedded.take_along_dim(turned, 1))
        back = back.take_along_dim(turned, 1)
        end = ahead.take_along_dim((lengths - 1).view(-1, 1, 1), 1).squeeze(1)
        return torch.cat([ahead, back], 2), torch.cat([end, back[:, 0]], 1)


class BahdanauDecoder(nn.Module):
    """An LSTM that is told at every step what the state before it attends to (arXiv:1409.0473, A.2.2).

    The steps follow one another in training too, which takes longer than Luong's.
    """

    def __init__(self, embedding_size: int, size: int) -> None:
        super().__init__()
        self.attention = Additive(size)
        self.cell = nn.LSTMCell(embedding_size + size, size)

    def forward(
        self, embedded: Tensor, state: Recurrent, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor, Recurrent]:
        """(B, T, E) -> outputs and contexts (B, T, H), weights (B, T, S), and the state to go on with."""
        outputs: list[Tensor] = []
        contexts: list[Tensor] = []
        attended: list[Tensor] = []
        for token in embedded.unbind(1):
            weights = self.attention(state[0].unsqueeze(1), memory)  # (B, 1, S)
            context = (weights @ memory.states).squeeze(1)
            state = self.cell(torch.cat([token, context], 1), state)
            outputs.append(state[0])
            contexts.append(context)
            attended.append(weights.squeeze(1))
        return torch.stack(outputs, 1), torch.stack(contexts, 1), torch.stack(attended, 1), state


class LuongDecoder(nn.Module):
    """An LSTM whose outputs attend to the source (arXiv:1508.04025, section 3.1).

    What is attended to is not fed to the next step, so that all steps of a target that is known are computed
    at once.
    """

    def __init__(self, embedding_size: int, size: int) -> None:
        super().__init__()
        self.attention = Multiplicative(size)
        self.lstm = nn.LSTM(embedding_size, size, batch_first=True)

    def forward(
        self, embedded: Tensor, state: Recurrent, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor, Recurrent]:
        """(B, T, E) -> outputs and contexts (B, T, H), weights (B, T, S), and the state to go on with."""
        hidden, cell = (each.unsqueeze(0) for each in state)
        outputs, (hidden, cell) = self.lstm(embedded, (hidden.contiguous(), cell.contiguous()))
        weights = self.attention(outputs, memory)
        return outputs, weights @ memory.states, weights, (hidden.squeeze(0), cell.squeeze(0))


DECODERS: Mapping[str, type[BahdanauDecoder] | type[LuongDecoder]] = {
    BAHDANAU: BahdanauDecoder,
    LUONG: LuongDecoder,
}


class EncoderDecoder(nn.Module):
    """A bidirectional LSTM that reads, a decoder that attends and writes, and one embedding for both.

    With `copy` a token is either written or copied from where the decoder attends to, by a gate that it
    learns (See et al. 2017, arXiv:1704.04368, eq. 8 and 9).
    """

    def __init__(
        self, vocabulary_size: int, embedding_size: int, hidden_size: int, attention: str, copy: bool
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=PAD)
        self.encoder = Encoder(embedding_size, hidden_size)
        self.begin = nn.Linear(hidden_size, 2 * hidden_size)
        self.decoder = DECODERS[attention](embedding_size, hidden_size)
        self.combine = nn.Linear(2 * hidden_size, hidden_size)
        self.head = nn.Linear(hidden_size, vocabulary_size)
        self.gate = nn.Linear(2 * hidden_size + embedding_size, 1) if copy else None

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        """(B, S), (B, T), both with PAD behind -> log-probabilities of each next token (B, T, V)."""
        memory = self.encode(source)
        log_probs, _, _ = self.decode(inputs, self.start(memory), memory)
        return log_probs

    def encode(self, source: Tensor) -> Memory:
        """Read sources (B, S), with PAD behind the last token."""
        inside = source != PAD
        inside[:, 0] = True  # so that there is something to attend to where a tokenizer found no token
        states, last = self.encoder(self.embedding(source), inside.sum(1))
        return Memory(source, inside, states, self.decoder.attention.keys(states), last)

    def start(self, memory: Memory) -> Recurrent:
        """Return the state with which a decoder begins."""
        hidden, cell = self.begin(memory.last).tanh().chunk(2, 1)
        return hidden, cell

    def decode(self, inputs: Tensor, state: Recurrent, memory: Memory) -> tuple[Tensor, Tensor, Recurrent]:
        """Go on from a state with tokens (B, T).

        Return the log-probabilities of each next token (B, T, V), the weights that each has given to the
        source (B, T, S), and the state to go on with.
        """
        embedded = self.embedding(inputs)
        outputs, contexts, weights, state = self.decoder(embedded, state, memory)
        both = torch.cat([contexts, outputs], 2)
        log_probs = self.head(self.combine(both).tanh()).log_softmax(2)
        if self.gate is not None:
            write = self.gate(torch.cat([both, embedded], 2)).sigmoid().float()  # (B, T, 1)
            log_probs = _mixed(log_probs.float().exp(), weights.float(), write, memory.tokens)
        return log_probs, weights, state


def _mixed(written: Tensor, weights: Tensor, write: Tensor, tokens: Tensor) -> Tensor:
    """Return the logarithm of write * written + (1 - write) * what the weights say of the source's tokens.

    (B, T, V), (B, T, S), (B, T, 1), (B, S) -> (B, T, V)
    """
    places = tokens.unsqueeze(1).expand_as(weights)
    return (write * written).scatter_add(2, places, (1 - write) * weights).clamp(min=_LEAST).log()
