"""Parallel text: files as they are shipped, and the line that says what is none."""

from pathlib import Path

import pytest

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.datasets import load_dataset
from models.data.parallel import held_out
from models.data.parallel_text import read

GERMAN = ["Guten Morgen.", "Wie geht es dir?", "Äpfel\u2028und\xa0Birnen", "Danke.", "Bis bald!"]
ENGLISH = ["Good morning.", "How are you?", "Apples\u2028and\xa0pears", "Thank you.", "See you soon!"]
ALIGNED = "source = 'de', target = 'en'"


def load(path: Path, options: str = "") -> Dataset:
    load_dataset.cache_clear()  # a test may write the files anew
    return load_dataset(TaskConfig(dataset=f"parallel:{path}", dataset_options=options))


def pairs(data: Examples) -> list[tuple[str, str]]:
    return [*zip(read(data["source"]), read(data["target"]), strict=True)]


def write(folder: Path, **files: list[str]) -> Path:
    """Write files, with "_" for the dot in their names."""
    for name, lines in files.items():
        text = "".join(f"{line}\n" for line in lines)
        (folder / name.replace("_", ".")).write_bytes(text.encode())
    return folder


def table(lines: list[str], tmp_path: Path) -> Path:
    return write(tmp_path, pairs_tsv=lines) / "pairs.tsv"


def test_two_aligned_files(tmp_path: Path) -> None:
    dataset = load(
        write(tmp_path, news_de=GERMAN, news_en=ENGLISH) / "news", f"{ALIGNED}, test_fraction = 0.3"
    )
    assert dataset.kind == "parallel-text"
    assert dataset.client is None
    train, test = pairs(dataset.train), pairs(dataset.test)
    assert sorted(train + test) == sorted(zip(GERMAN, ENGLISH, strict=True))
    assert train
    assert test


def test_who_is_held_out_follows_from_the_source_alone(tmp_path: Path) -> None:
    lines = [f"{number % 100}\t{number}" for number in range(1000)]
    dataset = load(table(lines, tmp_path), "test_fraction = 0.2")
    train, test = ({source for source, _ in pairs(half)} for half in (dataset.train, dataset.test))
    assert not train & test
    assert 10 <= len(test) <= 30
    again = load(table(lines[::-1], tmp_path), "test_fraction = 0.2")
    assert {source for source, _ in pairs(again.test)} == test


def test_a_table_with_a_column_of_clients(tmp_path: Path) -> None:
    """As Tatoeba ships it: the columns in any order, and more of them."""
    lines = [f"{who}\t{number}\ten {number}\tde {number}\r" for number in range(40) for who in ("Bo", "Al")]
    dataset = load(
        table([*lines, "", "\t\t\t"][:-1], tmp_path),
        "source_column = 4, target_column = 3, client_column = 1",
    )
    assert dataset.client_names == ("Al", "Bo")
    assert dataset.client is not None
    assert pairs(dataset.train)[0][0].startswith("de ")
    assert pairs(dataset.train)[0][1].startswith("en ")
    assert set(dataset.client.tolist()) == {0, 1}


def test_a_folder_of_files_is_one_client_each_and_test_is_held_out(tmp_path: Path) -> None:
    write(tmp_path, books_de=GERMAN[:2], books_en=ENGLISH[:2], news_de=GERMAN[2:4], news_en=ENGLISH[2:4])
    write(tmp_path, test_de=GERMAN[4:], test_en=ENGLISH[4:], valid_de=["nie"], valid_en=["never"])
    (tmp_path / "README").write_text("no corpus", encoding="utf-8")
    dataset = load(tmp_path, ALIGNED)
    assert dataset.client_names == ("books", "news")
    assert dataset.client is not None
    assert dataset.client.tolist() == [0, 0, 1, 1]
    assert pairs(dataset.train) == [*zip(GERMAN[:4], ENGLISH[:4], strict=True)]
    assert pairs(dataset.test) == [(GERMAN[4], ENGLISH[4])]


def test_a_folder_of_tables(tmp_path: Path) -> None:
    write(tmp_path, a_tsv=["eins\tone"], b_tsv=["zwei\ttwo"], dev_tsv=["drei\tthree"])
    dataset = load(tmp_path)
    assert dataset.client_names == ("a", "b")
    assert pairs(dataset.test) == [("drei", "three")]
    write(tmp_path, test_tsv=["vier\tfour"])
    load_dataset.cache_clear()
    dataset = load(tmp_path)
    assert dataset.client_names == ("a", "b")
    assert pairs(dataset.test) == [("vier", "four")]
    assert dataset.validation is not None
    assert pairs(dataset.validation) == [("drei", "three")]


def test_a_client_without_a_name_is_refused_by_its_line(tmp_path: Path) -> None:
    write(tmp_path, a_tsv=["eins\tone\ta", "zwei\ttwo\ta\x07"])
    with pytest.raises(
        UserError, match=r"a.tsv, line 2: the client in column 3 must be a name of at most 200"
    ):
        load(tmp_path, "client_column = 3")


def test_hidden_files_are_nobody_s(tmp_path: Path) -> None:
    write(tmp_path, a_de=GERMAN, a_en=ENGLISH, _b_de=["eins"], _b_en=["one"])
    dataset = load(tmp_path, ALIGNED)
    assert sorted(pairs(dataset.train) + pairs(dataset.test)) == sorted(zip(GERMAN, ENGLISH, strict=True))
    write(tmp_path, a_tsv=["eins\tone", "zwei\ttwo"], _b_tsv=["no table"])
    assert len(load(tmp_path).train) == 1


def test_what_is_empty_on_both_sides_is_no_pair_and_a_byte_order_mark_no_text(tmp_path: Path) -> None:
    write(
        tmp_path,
        train_de=["\ufeffeins", " ", "zwei"],
        train_en=["one", "", "two"],
        test_de=["a"],
        test_en=["b"],
    )
    assert pairs(load(tmp_path, ALIGNED).train) == [("eins", "one"), ("zwei", "two")]


def test_long_ones_are_left_out_where_that_is_said(tmp_path: Path) -> None:
    write(tmp_path, train_tsv=["kurz\tshort", "ein langer Text\tlong"], test_tsv=["a\tb"])
    dataset = load(tmp_path, "max_bytes = 10, skip_longer = true")
    assert pairs(dataset.train) == [("kurz", "short")]
    assert dataset.info["skipped"] == 1


WRONG: dict[str, tuple[dict[str, list[str]], str, str]] = {
    "lines-that-are-missing": (
        {"train_de": GERMAN, "train_en": ENGLISH[:4]},
        ALIGNED,
        r"train\.de has 5 lines and train\.en 4: line n of one must be the translation of line n of",
    ),
    "one-side-empty": (
        {"train_de": GERMAN, "train_en": [*ENGLISH[:2], " ", *ENGLISH[3:]]},
        ALIGNED,
        r"train\.de and train\.en, line 3: the target is empty and its other side is not: leave both out$",
    ),
    "too-few-columns": (
        {"train_tsv": ["eins\tone", "zwei two"]},
        "",
        r"train\.tsv, line 2: expected 2 columns or more with tabs between, got 1: 'zwei two'$",
    ),
    "no-client": (
        {"train_tsv": ["eins\tone\tAl", "zwei\ttwo\t "]},
        "client_column = 3",
        r"train\.tsv, line 2: the client in column 3 is empty: name it$",
    ),
    "too-long": (
        {"train_tsv": ["eins\tone", "x\t" + "y" * 501]},
        "",
        r"train\.tsv, line 2: the target has 501 bytes, more than max_bytes \(500\): set it higher in dat",
    ),
    "a-zero-byte": (
        {"train_tsv": ["eins\tone\0"]},
        "",
        r"train\.tsv, line 1: the target holds a zero byte, which no text does: leave the pair out$",
    ),
    "one-file-alone": (
        {"train_de": GERMAN},
        ALIGNED,
        r"train\.en is missing: line-aligned files are train\.de and train\.en$",
    ),
    "no-endings": (
        {"train_de": GERMAN, "train_en": ENGLISH},
        "",
        r"holds no table with the ending \.tsv: put some there, or name the endings of line-aligned files",
    ),
    "one-ending": ({"train_de": GERMAN}, "source = 'de'", "^source must be set where target is, or neither"),
    "a-folder-as-an-ending": (
        {"train_de": GERMAN, "train_en": ENGLISH},
        "source = 'x/de', target = 'en'",
        r"^source must be an ending of files such as 'de', without / and \\ and without its dot, got 'x/de'$",
    ),
    "signs-for-any-folder": (
        {"train_de": GERMAN, "train_en": ENGLISH},
        "source = 'de', target = '**/en'",
        r"^target must be an ending of files such as 'de', without / and \\ and .* dot, got '\*\*/en'$",
    ),
    "an-ending-with-its-dot": (
        {"train_de": GERMAN, "train_en": ENGLISH},
        "source = '.de', target = 'en'",
        "^source must be an ending of files such as 'de', without .* its dot, got '.de'$",
    ),
    "columns-of-aligned-files": (
        {"train_de": GERMAN, "train_en": ENGLISH},
        f"{ALIGNED}, client_column = 3",
        r"^source_column, target_column and client_column must be those of a table, got \[1, 2, 3\]$",
    ),
    "nothing-to-train-on": (
        {"test_tsv": ["eins\tone"]},
        "",
        "must hold a file to train on beside test: add one$",
    ),
    "a-third-part-that-is-held-out": (
        {"train_tsv": ["eins\tone"], "val_tsv": ["zwei\ttwo"], "dev_tsv": ["drei\tthree"]},
        "",
        "^what is held out must be one part, or test and one more for validation, got val and dev: rename or",
    ),
    "one-column-twice": (
        {"train_tsv": ["eins\tone"]},
        "client_column = 2",
        r"^source_column, target_column and client_column must be three different columns, got \[1, 2, 2\]$",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_parallel_text_is_refused_by_its_line(case: str, tmp_path: Path) -> None:
    files, options, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, **files), options)


def test_another_encoding_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes("eins\tone\nÄpfel\tapples\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.tsv, line 2: not in UTF-8 \(.+\): save it as UTF-8$"):
        load(tmp_path / "a.tsv")


def test_a_path_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"news is neither a table nor a folder: give one, or the path of two"
    ):
        load(tmp_path / "news")
    with pytest.raises(UserError, match=r"news\.de is missing: line-aligned files are news\.de and news\.en"):
        load(tmp_path / "news", ALIGNED)


def test_a_small_file_has_one_text_on_either_side(tmp_path: Path) -> None:
    assert held_out({"one", "two", "three"}, 1e-9) == held_out({"three", "two", "one"}, 1e-9)
    assert len(held_out({"one", "two", "three"}, 1e-9)) == 1
    assert len(held_out({"one", "two", "three"}, 1 - 1e-9)) == 2
    dataset = load(table(["a\tb", "a\tc", "d\te"], tmp_path), "test_fraction = 0.000001")
    assert (len(dataset.train), len(dataset.test)) in ((1, 2), (2, 1))
    for lines in (["a\tb"], []):
        with pytest.raises(UserError, match="must hold at least one example, got none"):
            load(table(lines, tmp_path))


def test_one_of_two_aligned_files_is_no_path_of_both(tmp_path: Path) -> None:
    write(tmp_path, news_de=GERMAN, news_en=ENGLISH)
    with pytest.raises(
        UserError, match=r"news\.de is one file, and source and target are the endings of two: le"
    ):
        load(tmp_path / "news.de", ALIGNED)
