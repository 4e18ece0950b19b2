"""Text in windows of bytes: every byte is predicted once, and any folder of files can be read."""

from pathlib import Path

import pytest
import torch

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Examples
from models.data.datasets import load_dataset
from models.data.text import EMPTY, WINDOW, windows_of


def predicted(rows: Examples) -> bytes:
    """All bytes that the rows predict, in their order."""
    return bytes(byte for byte in rows["text"][:, 1:].flatten().tolist() if byte != EMPTY)


def test_every_byte_is_predicted_once_from_the_one_before() -> None:
    content = bytes(1 + number % 250 % 127 for number in range(300))
    dataset = windows_of("toy", {"a": content, "b": b"xyz"})
    text = dataset.train["text"]
    assert text.shape == (3 + 1, 1 + WINDOW)
    assert text[0].tolist() == [EMPTY, *content[:128]]
    assert text[1].tolist() == list(content[127:256])
    assert text[2].tolist() == list(content[255:270]) + [EMPTY] * (256 + 129 - 1 - 270)
    assert text[3].tolist() == [EMPTY, *b"xyz"] + [EMPTY] * 125
    # The last tenth is held out; three bytes are too few to hold out any.
    assert dataset.test["text"].tolist() == [[*content[269:], *[EMPTY] * 98]]
    assert dataset.client is not None
    assert dataset.client.tolist() == [0, 0, 0, 1]


def test_whole_windows_are_not_followed_by_an_empty_one() -> None:
    dataset = windows_of("toy", {"a": b"a" * 1280})  # 9 windows of 128, and one held out
    assert len(dataset.train) == 9
    assert len(dataset.test) == 1
    assert not (dataset.train["text"][1:] == EMPTY).any()


def test_pydoc_is_all_there() -> None:
    from pydoc_data.topics import topics

    dataset = load_dataset(TaskConfig(dataset="pydoc", validation_fraction=0.0))
    assert dataset.client is not None
    documents = [topics[name].encode() for name in sorted(topics)]
    assert dataset.client.max() + 1 == len(documents)
    for number in (0, len(documents) - 1):
        rows = dataset.train.take((dataset.client == number).nonzero()[0])
        assert (
            predicted(rows)
            == documents[number][: len(documents[number]) - round(len(documents[number]) / 10)]
        )
    held_out = [document[len(document) - round(len(document) / 10) :] for document in documents]
    assert predicted(dataset.test) == b"".join(held_out)


def test_each_file_of_a_folder_is_a_client(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("b" * 200, encoding="utf-8")
    (tmp_path / "a.md").write_text("ä" * 10, encoding="utf-8")
    (tmp_path / ".hidden").write_text("no", encoding="utf-8")
    (tmp_path / "below").mkdir()
    dataset = load_dataset(TaskConfig(dataset=f"text:{tmp_path}"))
    assert (dataset.name, dataset.kind) == (f"text:{tmp_path}", "text")
    assert dataset.client is not None
    assert dataset.client.tolist() == [0, 1, 1]
    assert predicted(dataset.train.take(torch.tensor([0]))).decode() == "ä" * 9
    relative = load_dataset(TaskConfig(dataset=f"text:{tmp_path.name}", data_dir=str(tmp_path.parent)))
    assert torch.equal(relative.train["text"], dataset.train["text"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "document 'a' of dataset 'text:.*' is empty: leave it out"),
        (b"a\0b", "document 'a' of dataset 'text:.*' holds a zero byte: leave it out"),
        (b"\xff\xfe", "document 'a' of dataset 'text:.*' is no UTF-8 text: .* can't decode byte 0xff"),
        (None, "holds no text files: put one a client there"),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_dataset(TaskConfig(dataset=f"text:{tmp_path}"))


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(UserError, match="must name a folder of text files, got /no/such"):
        load_dataset(TaskConfig(dataset="text:/no/such"))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + b"ab" * 100)
    dataset = load_dataset(TaskConfig(dataset=f"text:{tmp_path}"))
    assert predicted(dataset.train)[:4] == b"abab"


def test_any_encoding_becomes_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(("\ufeff" + "Zürich " * 40).encode("utf-16"))
    config = TaskConfig(dataset=f"text:{tmp_path}", dataset_options="encoding = 'utf-16'")
    assert predicted(load_dataset(config).train).decode().startswith("Zürich Zürich")
    latin = TaskConfig(dataset=f"text:{tmp_path}", dataset_options="encoding = 'utf-32'")
    with pytest.raises(
        UserError, match=r"a.txt is not in utf-32 \(.*\): save it as UTF-8, or name its encod"
    ):
        load_dataset(latin)
