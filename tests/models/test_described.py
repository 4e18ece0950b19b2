"""What a dataset is like, to compare nodes by."""

import torch

from models.data.dataset import Dataset, Examples
from models.data.described import shapes_of_examples


def dataset(kind: str, **columns: tuple[int, ...]) -> Dataset:
    examples = Examples({name: torch.zeros(shape) for name, shape in columns.items()})
    return Dataset("toy", kind, examples, examples)


def test_the_shapes_of_one_example() -> None:
    images = dataset("images", label=(5,), image=(5, 1, 8, 8))
    assert shapes_of_examples(images) == {"image": (1, 8, 8), "label": ()}


def test_the_longest_sentence_may_be_another_elsewhere() -> None:
    sentences = dataset("tagged-sentences", word=(5, 9), tag=(5, 9), length=(5,))
    assert shapes_of_examples(sentences) == {"length": (), "tag": (-1,), "word": (-1,)}


def test_a_plugins_kind_and_columns_of_its_own() -> None:
    assert shapes_of_examples(dataset("graphs", edges=(5, 2, 7))) == {"edges": (2, 7)}
    assert shapes_of_examples(dataset("images", image=(5, 1, 8, 8), extra=(5, 3)))["extra"] == (3,)
