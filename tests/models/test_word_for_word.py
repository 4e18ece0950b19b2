"""The dictionary that translations are compared with."""

import pytest
import torch

from models.data.parallel_text import Pair, dataset_of, read
from models.text import word_for_word
from models.text.seq2seq import Translation
from models.text.word_for_word import learn_words, sample, translate_words

SOURCES = ["das rote Haus", "das Haus", "rote Rosen", "das Ei"]
TARGETS = ["the red house", "the house", "red roses", "the egg"]


def test_each_word_becomes_the_one_that_it_stands_with() -> None:
    dictionary = learn_words(SOURCES, TARGETS)
    assert dictionary == {"das": "the", "rote": "red", "Haus": "house", "Rosen": "roses", "Ei": "egg"}
    assert translate_words("das  neue rote Ei", dictionary) == "the neue red egg"


def test_of_words_that_are_alike_the_first_of_the_alphabet() -> None:
    assert learn_words(["x y"], ["b a"]) == {"x": "a", "y": "a"}


def test_of_many_pairs_the_same_few_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [Pair(f"wort{number}", f"word{number}") for number in range(50)]
    train = dataset_of("toy", pairs, pairs[:1]).train
    assert torch.equal(sample(train["source"], train["target"]), torch.arange(50))
    monkeypatch.setattr(word_for_word, "MOST_PAIRS", 7)
    learned = []
    # Another order, and a longer text that makes all rows longer, change nothing.
    longer = Pair("x" * 99, "y")
    for some in (pairs, pairs[::-1], [longer, *pairs]):
        dataset = dataset_of("toy", some, pairs[:1])
        rows = sample(dataset.train["source"], dataset.train["target"])
        assert rows.tolist() == sorted(rows.tolist())
        chosen = set(read(dataset.train["source"][rows]))
        assert len(chosen) == 7
        learned.append(chosen)
        assert set(Translation(dataset)._dictionary) == chosen
    assert learned[0] == learned[1]
    assert len(learned[0] & learned[2]) >= 6
