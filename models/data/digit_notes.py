"""Digits of which a picture shows a part, and a smudged note says the rest.

Half of each picture of `mnist-5k` is hidden. Beside it is a note: the first name of whoever took it down, by
Faker, and the digit in words of one of several languages, by num2words, of which many letters cannot be read.
Either alone leaves many digits open that both together tell.
"""

from collections.abc import Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from models.core.config import TaskConfig, require
from models.data.dataset import Dataset
from models.data.images import load_mnist_5k
from models.data.modalities import IMAGE, MODALITIES, TEXT, Half, dataset_of, text_column

# num2words and Faker are imported where they are used: only those who ask for this dataset wait for them.

LANGUAGES = {"de": "de_DE", "en": "en_US", "es": "es_ES", "fr": "fr_FR", "nl": "nl_NL", "pl": "pl_PL"}
"""Language of the words -> locale of the names."""
CLIENTS = 12
"""Twice as many as languages: most of the notes of client n are in language n % 6."""
OWN_LANGUAGE = 0.8
"""Part of a client's notes that are in its own language; the others are in any."""
SMUDGED, SMUDGE = 0.6, "_"
"""Part of the letters that cannot be read, and what stands there."""
SIDE, WIDTH = 14, 40
"""Pixels of a side, and bytes of the longest note."""
NAMES = 50
"""First names of each language."""


def load_digit_notes(
    config: TaskConfig, image_only: int = 0, text_only: int = 0, missing: float = 0.0
) -> Dataset:
    """Return 4,000 training and 1,000 held-out digits, dealt to twelve natural clients.

    The first `image_only` clients have pictures alone, and the last `text_only` notes alone; of the other
    clients' rows a part `missing` lacks one of the two. Held-out rows have both. All is the same for every
    seed.
    """
    fits = image_only >= 0 and text_only >= 0 and image_only + text_only <= CLIENTS
    require(fits, "image_only and text_only", f">= 0 and together at most {CLIENTS}", [image_only, text_only])
    require(0 <= missing <= 1, "missing", "0 to 1", missing)
    digits = load_mnist_5k(config)
    client = np.arange(len(digits.train)) % CLIENTS
    train, test = (
        _half(half["image"].numpy(), half["label"].numpy(), owners, Random(number))
        for number, (half, owners) in enumerate([(digits.train, client.tolist()), (digits.test, [])])
    )
    sees = {IMAGE: client < CLIENTS - text_only, TEXT: client >= image_only}
    lost = np.random.default_rng(0).random((2, len(client)))
    for place, name in enumerate(MODALITIES):
        others = sees[MODALITIES[1 - place]]
        sees[name] = sees[name] & ~(others & (lost[0] < missing) & ((lost[1] < 0.5) == bool(place)))
    names = tuple(f"{list(LANGUAGES)[number % len(LANGUAGES)]}-{number}" for number in range(CLIENTS))
    halves = [_without(train, sees), test]
    return dataset_of("digit-notes", halves, digits.classes, client, names)


def _half(
    images: NDArray[np.uint8], labels: NDArray[np.int64], owners: Sequence[int], random: Random
) -> Half:
    """Return digits with their notes; without `owners` the notes are in any language."""
    # (N, 1, 28, 28) -> (N, 1, 14, 14): the means of 2 x 2 pixels
    small = images.reshape(len(images), 1, SIDE, 2, SIDE, 2).mean((3, 5)).round().astype(np.uint8)
    names, words = _names(), _words()
    notes = []
    for row, label in enumerate(labels.tolist()):
        _hide(small[row, 0], random)
        language = random.choice(list(LANGUAGES))
        if owners and random.random() < OWN_LANGUAGE:
            language = list(LANGUAGES)[owners[row] % len(LANGUAGES)]
        note = f"{random.choice(names[language])}: {_smudged(words[language][label], random)}"
        notes.append(note.encode())
    both = dict.fromkeys(MODALITIES, np.ones(len(labels), bool))
    return Half(small, text_column(notes, WIDTH), both, labels)


def _hide(image: NDArray[np.uint8], random: Random) -> None:
    """Hide the upper or lower, left or right half of a picture (H, W), where it lies."""
    half = slice(0, SIDE // 2) if random.random() < 0.5 else slice(SIDE // 2, SIDE)
    if random.random() < 0.5:
        image[half] = 0
    else:
        image[:, half] = 0


def _smudged(word: str, random: Random) -> str:
    return "".join(SMUDGE if random.random() < SMUDGED else letter for letter in word)


def _words() -> dict[str, list[str]]:
    """Return language -> the ten digits in words."""
    from num2words import num2words

    return {language: [str(num2words(digit, lang=language)) for digit in range(10)] for language in LANGUAGES}


def _names() -> dict[str, list[str]]:
    """Return language -> some first names."""
    from faker import Faker

    found = {}
    for language, locale in LANGUAGES.items():
        fake = Faker(locale)
        fake.seed_instance(0)
        found[language] = [fake.first_name() for _ in range(NAMES)]
    return found


def _without(half: Half, sees: dict[str, NDArray[np.bool_]]) -> Half:
    """Return the half without what its rows do not see."""
    image, text = half.image.copy(), half.text.copy()
    image[~sees[IMAGE]], text[~sees[TEXT]] = 0, 0
    return Half(image, text, sees, half.label)
