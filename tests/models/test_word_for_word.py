"""The dictionary that translations are compared with."""

from models.text.word_for_word import learn_words, translate_words

SOURCES = ["das rote Haus", "das Haus", "rote Rosen", "das Ei"]
TARGETS = ["the red house", "the house", "red roses", "the egg"]


def test_each_word_becomes_the_one_that_it_stands_with() -> None:
    dictionary = learn_words(SOURCES, TARGETS)
    assert dictionary == {"das": "the", "rote": "red", "Haus": "house", "Rosen": "roses", "Ei": "egg"}
    assert translate_words("das  neue rote Ei", dictionary) == "the neue red egg"


def test_of_words_that_are_alike_the_first_of_the_alphabet() -> None:
    assert learn_words(["x y"], ["b a"]) == {"x": "a", "y": "a"}
