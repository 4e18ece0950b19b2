"""Attention and the encoder-decoder: exact weights, steps that agree with whole targets, copying."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.text.attention import Additive, Memory, Multiplicative
from models.text.encoder_decoder import DECODERS, Encoder, EncoderDecoder, _mixed
from models.text.vocabulary import PAD

SOURCE = torch.tensor([[3, 1, 4, 1, 5], [2, 6, PAD, PAD, PAD]])
INPUTS = torch.tensor([[7, 3, 1, 4], [7, 2, 6, PAD]])


def memory(states: Tensor, attention: Additive | Multiplicative) -> Memory:
    """Return what an attention sees of the states of one source (S, H), whose last place is padding."""
    inside = torch.ones(1, len(states), dtype=torch.bool)
    inside[0, -1] = False
    tokens = inside.long()
    return Memory(tokens, inside, states[None], attention.keys(states[None]), torch.zeros(1, states.shape[1]))


def network(attention: str, copy: bool = False) -> EncoderDecoder:
    torch.manual_seed(1)
    return EncoderDecoder(8, 6, 4, attention, copy)


@pytest.mark.rounding
@torch.no_grad()
def test_luongs_weights_are_the_softmax_of_products() -> None:
    attention = Multiplicative(2)
    attention.of_source.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))  # W h swaps the two numbers
    states = torch.tensor([[5.0, 0.0], [5.0, math.log(3)], [0.0, 9.0]])
    weights = attention(torch.tensor([[[1.0, 0.0], [2.0, 0.0]]]), memory(states, attention))
    assert weights[0].tolist() == [pytest.approx([1 / 4, 3 / 4, 0]), pytest.approx([1 / 10, 9 / 10, 0])]


@pytest.mark.rounding
@torch.no_grad()
def test_bahdanaus_weights_are_the_softmax_of_a_hidden_layer() -> None:
    attention = Additive(2)
    for layer in (attention.of_state, attention.of_source):
        nn.init.eye_(layer.weight)
    nn.init.zeros_(attention.of_state.bias)
    attention.score.weight.copy_(torch.tensor([[2.0, 0.0]]))
    # 2 tanh(1 + h) is 0 for h = -1, and ln 2 where 1 + h is the atanh of half of it.
    states = torch.tensor([[-1.0, 7.0], [math.atanh(math.log(2) / 2) - 1, -7.0], [9.0, 9.0]])
    weights = attention(torch.tensor([[[1.0, 0.0]]]), memory(states, attention))
    assert weights[0, 0].tolist() == pytest.approx([1 / 3, 2 / 3, 0])


@pytest.mark.rounding
@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("attention", DECODERS)
@torch.no_grad()
def test_steps_agree_with_a_target_that_is_known(attention: str, copy: bool) -> None:
    model = network(attention, copy)
    whole = model(SOURCE, INPUTS)
    assert whole.shape == (2, 4, 8)
    assert torch.allclose(whole.exp().sum(2), torch.ones(2, 4), atol=1e-5)
    read = model.encode(SOURCE)
    state, steps = model.start(read), []
    for tokens in INPUTS.split(1, dim=1):
        log_probs, weights, state = model.decode(tokens, state, read)
        assert torch.allclose(weights.sum(2), torch.ones(2, 1))
        assert weights[1, 0, 2:].tolist() == [0, 0, 0]
        steps.append(log_probs)
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-6)


@pytest.mark.rounding
@pytest.mark.parametrize("attention", DECODERS)
@torch.no_grad()
def test_who_is_beside_a_text_does_not_matter(attention: str) -> None:
    model = network(attention)
    together, alone = model(SOURCE, INPUTS)[1:, :3], model(SOURCE[1:, :2], INPUTS[1:, :3])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.rounding
@torch.no_grad()
def test_reading_from_both_ends_is_torchs_lstm_of_packed_texts() -> None:
    torch.manual_seed(1)
    encoder, both = Encoder(3, 8), nn.LSTM(3, 4, batch_first=True, bidirectional=True)
    for suffix, part in (("", encoder.ahead), ("_reverse", encoder.back)):
        for name, weight in part.named_parameters():
            getattr(both, name + suffix).copy_(weight)
    texts, lengths = torch.randn(3, 6, 3), torch.tensor([2, 6, 1])
    states, last = encoder(texts, lengths)
    packed, (ends, _) = both(pack_padded_sequence(texts, lengths, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    for row, length in enumerate(lengths.tolist()):
        assert torch.allclose(states[row, :length], expected[row, :length], atol=1e-6)
    assert torch.allclose(last, ends.transpose(0, 1).flatten(1), atol=1e-6)


@pytest.mark.rounding
def test_what_is_copied_is_added_to_what_is_written() -> None:
    written = torch.tensor([[[0.5, 0.5, 0.0, 0.0]]])
    weights, tokens = torch.tensor([[[0.25, 0.5, 0.25]]]), torch.tensor([[2, 0, 2]])
    mixed = _mixed(written, weights, torch.tensor([[[0.2]]]), tokens).exp()
    assert mixed[0, 0].tolist() == pytest.approx([0.1 + 0.4, 0.1, 0.4, 1e-12])


@pytest.mark.parametrize(("attention", "copy"), [("luong", True), ("bahdanau", False)])
def test_every_weight_learns(attention: str, copy: bool) -> None:
    model = network(attention, copy)
    model(SOURCE, INPUTS)[..., 3].sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


@torch.no_grad()
def test_a_text_without_a_token_is_survived() -> None:
    assert network("luong")(torch.zeros(1, 3, dtype=torch.int64), INPUTS[:1]).isfinite().all()
