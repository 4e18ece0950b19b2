"""Tokens that one machine has learned and others take over."""

import json

import pytest

from models.data.tokens import LONGEST, SPECIAL, LearnedTokens
from models.text.backbone import SCRATCH, load_backbone
from strategies.wire.vocabulary import Vocabulary

SENTENCES = ["Ann saw Paris", "Bob saw Berlin and Ann", "Paris is in France"] * 3


def test_tokens_that_were_told_are_those_that_were_learned() -> None:
    learned = load_backbone(SCRATCH, SENTENCES)
    tokens = learned.learned_tokens()
    assert tokens is not None
    tokens.check()
    assert tokens.names[:5] == SPECIAL
    # As it travels, and whatever the text here.
    tokens = LearnedTokens(*(tuple(json.loads(json.dumps(part))) for part in (tokens.names, tokens.merges)))
    told = load_backbone(SCRATCH, ["Other words"], tokens=tokens)
    assert told.vocabulary_sha256 == learned.vocabulary_sha256
    assert told.learned_tokens() == tokens
    assert told.config.to_dict() == learned.config.to_dict()
    sentences = [["Ann", "saw", "Berlin"], ["Unseen", "words", "in", "Köln"]]
    (mine, first_of_mine), (theirs, first_of_theirs) = told.encode(sentences), learned.encode(sentences)
    assert mine["input_ids"].tolist() == theirs["input_ids"].tolist()
    assert first_of_mine.tolist() == first_of_theirs.tolist()
    unknown = told.tokenizer.unk_token_id
    assert unknown in told.encode([["Köln"]])[0]["input_ids"].flatten().tolist()
    assert unknown not in told.encode([["Paris"]])[0]["input_ids"].flatten().tolist()


def test_a_long_word_is_cut_into_tokens_that_travel() -> None:
    long = "".join(map(chr, range(0x4E00, 0x4E00 + 250)))
    learned = load_backbone(SCRATCH, [f"Ann saw {long}", f"{long} saw Ann"] * 3)
    tokens = learned.learned_tokens()
    assert tokens is not None
    assert "▁saw" in tokens.names
    # The trainer's limit is one more than the longest that it learns.
    assert 100 < max(map(len, tokens.names)) <= LONGEST
    Vocabulary(tokens=tokens.names, merges=tokens.merges).check()
    assert "".join(learned.tokenizer.tokenize(long)) == f"▁{long}"


@pytest.mark.parametrize(
    ("names", "merges", "why"),
    [
        (("a", *SPECIAL), (), "tokens must begin with"),
        ((*SPECIAL, "a", "a"), (), "be there once each"),
        ((*SPECIAL, "a"), ("a",), "of two parts each"),
        ((*SPECIAL, "a"), ("a", "b"), "of tokens that there are, got 'a' and 'b'"),
        ((*SPECIAL, "a", "b"), ("a", "b"), "of tokens that there are, got 'a' and 'b'"),
    ],
)
def test_what_no_machine_has_learned(names: tuple[str, ...], merges: tuple[str, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LearnedTokens(names, merges).check()
