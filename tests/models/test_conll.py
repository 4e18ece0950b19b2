"""CoNLL column files of every usual kind."""

from pathlib import Path

import pytest
from places import CASES, CONLL

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.datasets import load_dataset
from models.data.tag_schemes import to_iob2


def load(folder: Path, options: str = "") -> Dataset:
    load_dataset.cache_clear()  # a test may write the files anew
    return load_dataset(
        TaskConfig(dataset=f"conll:{folder}", dataset_options=options, validation_fraction=0.0)
    )


def read(dataset: Dataset, data: Examples) -> list[list[tuple[str, str]]]:
    """Return the words and tags that the numbers stand for."""
    words, tags = dataset.info["words"], dataset.info["tags"]
    return [
        [(words[word], tags[tag]) for word, tag in zip(*pair, strict=True)]
        for pair in (
            (data["word"][row, :length], data["tag"][row, :length])
            for row, length in enumerate(data["length"].tolist())
        )
    ]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


def train_of(folder: Path, text: str, options: str = "") -> list[list[tuple[str, str]]]:
    dataset = load(write(folder, train=text, test=text), options)
    return read(dataset, dataset.train)


def test_a_folder_of_column_files() -> None:
    dataset = load(CONLL)
    assert dataset.kind == "tagged-sentences"
    assert dataset.info["tags"] == ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")
    train, test = read(dataset, dataset.train), read(dataset, dataset.test)
    assert train[0] == [
        ("Ada", "B-PER"),
        ("Lovelace", "I-PER"),
        ("wrote", "O"),
        ("to", "O"),
        ("Zürich", "B-LOC"),
        (".", "O"),
    ]
    assert [len(row) for row in train] == [6, 2, 8, 6, 5, 7]
    assert [len(row) for row in test] == [6, 5]
    assert dataset.train["word"].shape == (6, 8)
    assert dataset.train["word"][1].tolist()[2:] == dataset.train["tag"][1].tolist()[2:] == [-1] * 6
    # Three documents; the second of the four marks is that of a document without a sentence.
    assert dataset.client is not None
    assert dataset.client.tolist() == [0, 0, 1, 1, 2, 2]


def test_valid_is_held_out_where_there_is_no_test(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, train="a O", valid="b\tB-X\nc\tI-X\n\n\n"))
    assert read(dataset, dataset.test) == [[("b", "B-X"), ("c", "I-X")]]
    assert dataset.client is None


@pytest.mark.parametrize(
    ("case", "words"),
    [("conll_nbsp", {"\xa0", "10\xa0000"}), ("conll_u2028", {"a\u2028"}), ("conll_x85", {"\x85"})],
)
def test_words_keep_the_separators_of_unicode(case: str, words: set[str]) -> None:
    dataset = load(CASES / case)
    assert (len(dataset.train), len(dataset.test)) == (60, 20)
    assert words <= set(dataset.info["words"])
    assert sorted(dataset.train["length"].unique().tolist()) == [5, 6]
    assert dataset.info["tags"] == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_a_line_ends_at_a_line_feed_and_a_byte_order_mark_is_none_of_it(tmp_path: Path) -> None:
    assert train_of(tmp_path, "\ufeffa\rb\tO\r\n \t\r\nc \t B-X \r\n") == [[("a\rb", "O")], [("c", "B-X")]]


CONLL_U = """\
# newdoc id = one
# sent_id = 1
# text = Vámonos al mar, Ana, 10 000.
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnos\tPRON\t_\t_\t1\tobj\t_\t_
3\tAna\tAna\tPROPN\t_\t_\t1\tvocative\t_\tstart_char=9|ner=S-PER
4\t10 000\t10000\tNUM\t_\t_\t1\tnummod\t_\tSpaceAfter=No
5.1\tes\tser\tVERB\t_\t_\t_\t_\t_\t_

# newdoc id = two
# sent_id = 2
# text = # Ana
1\t#\t#\tSYM\t_\t_\t2\tdep\t_\t_
2\tAna\tAna\tPROPN\t_\t_\t0\troot\t_\tner=S-PER
"""


def test_conll_u(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, train=CONLL_U, test=CONLL_U), "word_column = 2")
    assert read(dataset, dataset.train) == [
        [("Vamos", "O"), ("nos", "O"), ("Ana", "B-PER"), ("10 000", "O")],
        [("#", "O"), ("Ana", "B-PER")],
    ]
    assert dataset.client is not None
    assert dataset.client.tolist() == [0, 1]


CONLL_2012 = """\
#begin document (bc/cctv/00/cctv_0000); part 000
bc/cctv/00/cctv_0000   0   0    In   IN  (TOP(S(PP*  -  -  -  Speaker#1       *   -
bc/cctv/00/cctv_0000   0   1   New  NNP       (NP*   -  -  -  Speaker#1  (GPE*   (12
bc/cctv/00/cctv_0000   0   2  York  NNP         *)   -  -  -  Speaker#1      *)  12)

bc/cctv/00/cctv_0000   0   0   Ann  NNP   (TOP(NP*   -  -  -  Speaker#1  (PERSON) -
bc/cctv/00/cctv_0000   0   1     #  NNP          *)  -  -  -  Speaker#1       *   -

#end document
#begin document (bc/cctv/00/cctv_0001); part 000
bc/cctv/00/cctv_0001   0   0    Hi   UH  (TOP(S(PP*  -  -  -  Speaker#1       *   -

#end document
"""


def test_conll_2012(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, train=CONLL_2012, test=CONLL_2012), "word_column = 4, tag_column = 11")
    assert read(dataset, dataset.train) == [
        [("In", "O"), ("New", "B-GPE"), ("York", "I-GPE")],
        [("Ann", "B-PERSON"), ("#", "O")],
        [("Hi", "O")],
    ]
    assert dataset.client is not None
    assert dataset.client.tolist() == [0, 0, 1]


def test_conll_2003_as_it_is_distributed(tmp_path: Path) -> None:
    """IOB1 without a header; "#" is a word, not a comment."""
    text = (
        "-DOCSTART- -X- O O\n\nU.N. NNP I-NP I-ORG\nEU NNP I-NP B-ORG\n\n# NN I-NP O\nRome NNP I-NP I-LOC\n"
    )
    assert train_of(tmp_path, text) == [[("U.N.", "B-ORG"), ("EU", "B-ORG")], [("#", "O"), ("Rome", "B-LOC")]]


def test_numbered_exports(tmp_path: Path) -> None:
    text = "# source = a\n1\tAnna\tB-PER\t-\n2\tlives\tO\t-\n\n# source = b\n1\tRome\tB-LOC\t-\n"
    expected = [[("Anna", "B-PER"), ("lives", "O")], [("Rome", "B-LOC")]]
    assert train_of(tmp_path, text, "word_column = 2, tag_column = 3") == expected
    assert train_of(tmp_path, text, "word_column = -3, tag_column = -2") == expected


def test_comments_are_comments_only_where_every_document_has_them(tmp_path: Path) -> None:
    documents = "-DOCSTART- O\n\n# id 1 is not O\na O\n\nx O\n# O\n\n-DOCSTART- O\n\n# id 2 is not O\nb O\n"
    assert train_of(tmp_path, documents) == [[("a", "O")], [("x", "O"), ("#", "O")], [("b", "O")]]
    one_without = documents.replace("# id 2 is not O\n", "")
    assert train_of(tmp_path, one_without)[0] == [("#", "O"), ("a", "O")]
    assert train_of(tmp_path, "# 1 O\na O\n\n# 2 O\nb O") == [[("a", "O")], [("b", "O")]]
    assert train_of(tmp_path, "# 1 O\na O\n\nb O") == [[("#", "O"), ("a", "O")], [("b", "O")]]


@pytest.mark.parametrize(
    ("given", "iob2"),
    [
        ("I-A I-A B-A I-B O I-A", "B-A I-A B-A B-B O B-A"),  # IOB1
        ("B-A I-A B-A B-B O B-A", "B-A I-A B-A B-B O B-A"),  # IOB2
        ("B-A E-A S-A S-B O B-A I-A E-A", "B-A I-A B-A B-B O B-A I-A I-A"),  # BIOES
        ("B-A L-A U-A U-B O B-A I-A L-A", "B-A I-A B-A B-B O B-A I-A I-A"),  # BILOU
        ("S-A I-A E-A I-A", "B-A B-A I-A B-A"),  # an entity that has ended does not go on
        ("(A* * *) (A) * (B*) (A* *)", "B-A I-A I-A B-A O B-B B-A I-A"),  # CoNLL-2012
        ("B-first-name I-first-name", "B-first-name I-first-name"),
    ],
)
def test_schemes_become_iob2(given: str, iob2: str) -> None:
    assert to_iob2(given.split()) == iob2.split()


BAD_LINE = (
    "expected a word in column 1 and in column -1 its tag (O, B-TYPE, I-TYPE, or one of BIOES, BILOU or "
    "CoNLL-2012), got {!r}; other columns are set by word_column and tag_column in dataset-options"
)


@pytest.mark.parametrize("line", ["Paris", "Paris NNP X-LOC", "Paris B-", "Paris _"])
def test_a_line_that_is_not_understood_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(UserError) as error:
        load(write(tmp_path, train=f"a O\n\n{line}\n", test="a O"))
    assert str(error.value) == f"{tmp_path}/train.txt, line 3: {BAD_LINE.format(line)}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tAnna\tB-PER\n2\tlives\tO\n\n1\tRome\tB-LOC\n", "has running numbers where words should be: set"),
        (CONLL_U, "has running numbers where words should be: set word_column in dataset-options to"),
        (
            "".join(f"doc1 {n} word{n} O\n" for n in range(30)),
            "has 'doc1' in every line where words should be",
        ),
    ],
)
def test_a_column_without_words_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        train_of(tmp_path, text)
    assert "\n" not in str(error.value)


def test_sentences_of_numbers_are_sentences(tmp_path: Path) -> None:
    assert train_of(tmp_path, "1 O\n3 O\n\n2 O")[0] == [("1", "O"), ("3", "O")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("word_column = 0", "word_column must be a column from 1 on, or from -1 back, got 0"),
        ("tag_column = 1", "tag_column must be another column than word_column, got 1"),
        ("word_column = 9", "train.txt, line 1: expected a word in column 9 and in column -1"),
        ("word_column = '2'", "word_column must be a whole number, got '2'"),
        ("words_column = 2", "unknown option of dataset conll:.* 'words_column': did you mean word_column"),
    ],
)
def test_options_that_do_not_fit(options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(CASES / "conll_nbsp", options)


def test_files_that_are_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.txt cannot be read .*: a conll folder holds train.txt, and"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"test.txt holds no sentence: a line is a word and its tag"):
        load(write(tmp_path, train="a O", test="\n\n"))


def test_any_encoding(tmp_path: Path) -> None:
    for half in ("train", "test"):
        (tmp_path / f"{half}.txt").write_bytes("Zürich B-LOC\nso O\n".encode("latin-1"))
    assert load(tmp_path, "encoding = 'latin-1'").info["words"] == ("Zürich", "so")
    with pytest.raises(
        UserError, match=r"cannot be read .* in UTF-8, or as encoding in dataset-options says"
    ):
        load(tmp_path)
    with pytest.raises(UserError, match="encoding must be one that Python knows"):
        load(tmp_path, "encoding = 'base64'")
