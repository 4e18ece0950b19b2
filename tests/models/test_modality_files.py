"""Pictures and texts of one's own: tables and folders, what is missing, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.datasets import find_source, load_dataset
from models.data.modalities import read_texts
from models.data.modality_files import files_of_multimodal

SMALL = "size = 4, channels = 1, max_bytes = 20"


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)


def config(path: Path, options: str = SMALL) -> TaskConfig:
    return TaskConfig(dataset=f"multimodal:{path}", dataset_options=options, validation_fraction=0.0)


def test_a_table_has_both_columns_and_empty_cells(tmp_path: Path) -> None:
    for name, value in (("a", 10), ("b", 20), ("c", 30)):
        picture(tmp_path / "scans" / f"{name}.png", value)
    lines = ["scans/a.png,Grüße,cat,rome", "scans/b.png,,dog,oslo", ' ,"a, b",dog,rome']
    held_out = ["scans/c.png,,cat"]
    (tmp_path / "train.csv").write_text("\n".join(["image,text,label,client", *lines]), encoding="utf-8")
    (tmp_path / "test.csv").write_text(
        "\n".join(["image,text,label,client", *(f"{each},x" for each in held_out)]), encoding="utf-8"
    )
    dataset = load_dataset(config(tmp_path))
    assert (dataset.classes, dataset.client_names) == (("cat", "dog"), ("oslo", "rome"))
    assert dataset.client is not None
    assert dataset.client.tolist() == [1, 0, 1]
    train = dataset.train
    assert read_texts(train["text"]) == ["Grüße", "", "a, b"]
    assert train["text"].shape == (3, 20)
    assert (train["has_image"].tolist(), train["has_text"].tolist()) == ([1, 1, 0], [1, 0, 1])
    assert train["image"][:, 0, 0, 0].tolist() == [10, 20, 0]
    assert train["label"].tolist() == [0, 1, 1]
    assert dataset.test["image"].max() == 30
    found = {path.name for path in files_of_multimodal(config(tmp_path))}
    assert found == {"train.csv", "test.csv", "a.png", "b.png", "c.png"}


def test_a_folder_has_files_of_one_name(tmp_path: Path) -> None:
    for client in ("rome", "oslo"):
        for name in ("cat", "dog"):
            for number in range(4):
                picture(tmp_path / client / name / f"{number}.png", 10 * number)
                (tmp_path / client / name / f"{number}.txt").write_text(
                    f"{name} {number}\n", encoding="utf-8"
                )
    (tmp_path / "rome" / "cat" / "0.png").unlink()
    (tmp_path / "oslo" / "dog" / "9.txt").write_text("a dog", encoding="utf-8")
    (tmp_path / "oslo" / "dog" / "1.txt").unlink()
    dataset = load_dataset(config(tmp_path))
    assert len(dataset.train) + len(dataset.test) == 17
    assert dataset.client_names == ("oslo", "rome")
    both = [
        torch.cat([half[name] for half in (dataset.train, dataset.test)])
        for name in ("has_image", "has_text")
    ]
    assert [int(each.sum()) for each in both] == [15, 16]
    labels = torch.cat([dataset.train["label"], dataset.test["label"]]).tolist()
    texts = read_texts(torch.cat([dataset.train["text"], dataset.test["text"]]))
    assert all(
        text.startswith(dataset.classes[label])
        for text, label in zip(texts, labels, strict=True)
        if text[-1:].isdigit()
    )
    assert len(files_of_multimodal(config(tmp_path))) == 15 + 16


def test_files_of_it_are_kept_under_their_options(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    (tmp_path / "own.csv").write_text("picture;note;class\na.png;x;1\n;y;2\na.png;;2\n", encoding="latin-1")
    options = "image = 'picture', text = 'note', label = 'class', delimiter = ';', encoding = 'latin-1'"
    given = config(tmp_path / "own.csv", options)
    assert {path.name for path in files_of_multimodal(given)} == {"own.csv", "a.png"}
    assert load_dataset(given).classes == ("1", "2")
    assert find_source(given.dataset).kind == "multimodal"


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"dog/a.png": "", "dog/a.jpg": ""}, SMALL, "a.png is a second picture of a: an example has one"),
        ({"dog/a.txt": " \n"}, SMALL, "a.txt is empty, and there is no picture a: leave it out"),
        ({"dog/a.txt": "x" * 21}, SMALL, "a.txt must be a text of at most 20 bytes without zeros, got 21"),
        ({"dog/a.txt": "x", "rome/dog/a.txt": "x"}, SMALL, "must hold folders of classes or of clients"),
        ({"dog/a.md": "x"}, SMALL, "holds no pictures and no texts"),
        ({"dog/a.txt": "x"}, "max_bytes = 0", "max_bytes must be 1 to 16384, got 0"),
        ({"dog/a.txt": "x"}, "classes = ['cat']", "has a class 'dog', and classes names cat"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    tmp_path: Path, files: dict[str, str], options: str, message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".txt"):
            (tmp_path / name).write_text(content, encoding="utf-8")
        else:
            (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError) as error:
        load_dataset(config(tmp_path, options))
    assert message in str(error.value)


def test_what_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("image,text,label\n../secret.png,x,1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2: image must be a path below the folder of this file"):
        load_dataset(config(tmp_path / "own.csv"))
