"""Pictures of one's own: a folder a class, or arrays in a file of NumPy's."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.core.toml import quoted
from models.data import cache, large, npz_files, pictures
from models.data.data_files import data_files
from models.data.dataset import Dataset
from models.data.datasets import load_dataset


def paint(path: Path, shades: Sequence[int], mode: str = "RGB", side: int = 4) -> None:
    """Write pictures of one shade each."""
    path.mkdir(parents=True, exist_ok=True)
    for number, shade in enumerate(shades):
        Image.new(mode, (side, side), shade if mode == "L" else (shade, 0, 255)).save(
            path / f"{number:02d}.png"
        )


def load(name: str, folder: Path, **options: Any) -> Dataset:
    given = quoted(options)
    return load_dataset(
        TaskConfig(dataset=name, data_dir=str(folder), dataset_options=given, validation_fraction=0.0)
    )


def test_a_folder_for_each_half_and_class(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "dog", [10, 20])
    paint(tmp_path / "train" / "cat", [30])
    paint(tmp_path / "test" / "dog", [40])
    (tmp_path / "train" / "dog" / "notes.txt").touch()
    (tmp_path / "train" / ".hidden").mkdir()
    dataset = load("images:.", tmp_path, size=2)
    assert (dataset.classes, dataset.label, dataset.info) == (("cat", "dog"), "label", {"max_value": 255})
    assert dataset.train["image"].shape == (3, 3, 2, 2)
    assert dataset.train["image"].dtype == torch.uint8
    assert dataset.train["image"][:, :, 0, 0].tolist() == [[30, 0, 255], [10, 0, 255], [20, 0, 255]]
    assert dataset.train["label"].tolist() == [0, 1, 1]
    assert dataset.test["image"][:, 0, 0, 0].tolist() == [40]
    assert dataset.test["label"].tolist() == [1]
    config = TaskConfig(dataset="images:.", data_dir=str(tmp_path))
    assert [file.name for file in data_files(config)] == [
        "test/dog/00.png",
        "train/cat/00.png",
        "train/dog/00.png",
        "train/dog/01.png",
    ]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_the_held_out_half_by_any_of_its_names(tmp_path: Path, name: str) -> None:
    paint(tmp_path / "train" / "cat", [10, 20], "L")
    paint(tmp_path / name / "cat", [30], "L")
    dataset = load("images:.", tmp_path, size=2, channels=1)
    assert [half["image"][:, 0, 0, 0].tolist() for half in (dataset.train, dataset.test)] == [[10, 20], [30]]
    assert (dataset.classes, dataset.client) == (("cat",), None)
    (tmp_path / "train.csv").write_text("file,label\ntrain/cat/01.png,a", encoding="utf-8")
    (tmp_path / f"{name}.csv").write_text("file,label\ntrain/cat/00.png,a", encoding="utf-8")
    load_dataset.cache_clear()
    assert load("images:.", tmp_path, size=2, channels=1).test["image"][:, 0, 0, 0].tolist() == [10]


def test_a_training_half_alone_is_no_client(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "cat", [10, 20])
    with pytest.raises(UserError, match=r"must hold a folder test or val or .* beside train, with pictures"):
        load("images:.", tmp_path)
    paint(tmp_path / "vehicles" / "train", [10] * 9)
    paint(tmp_path / "vehicles" / "car", [20] * 9)
    assert load("images:vehicles", tmp_path).classes == ("car", "train")


def test_without_halves_a_tenth_is_held_out(tmp_path: Path) -> None:
    paint(tmp_path / "a", range(15), "L")
    paint(tmp_path / "b", range(100, 105), "L")
    dataset = load("images:.", tmp_path, channels=1, size=4)
    assert dataset.train["image"].shape == (17, 1, 4, 4)
    shades = [each["image"][:, 0, 0, 0].tolist() for each in (dataset.train, dataset.test)]
    assert sorted([*shades[0], *shades[1]]) == [*range(15), *range(100, 105)]
    assert list(dataset.train["label"].tolist()) == [int(shade >= 100) for shade in shades[0]]


def test_equal_pictures_are_on_one_side(tmp_path: Path) -> None:
    paint(tmp_path / "a", [*range(10)] * 4, "L")
    dataset = load("images:.", tmp_path, channels=1, size=4)
    train, test = ({*half["image"][:, 0, 0, 0].tolist()} for half in (dataset.train, dataset.test))
    assert train | test == {*range(10)}
    assert test
    assert not train & test


def test_a_machine_that_lacks_a_class_numbers_them_as_all_do(tmp_path: Path) -> None:
    paint(tmp_path / "dog", [10] * 9)
    dataset = load("images:.", tmp_path, classes=["bird", "cat", "dog"])
    assert dataset.classes == ("bird", "cat", "dog")
    assert set(dataset.train["label"].tolist()) == {2}
    with pytest.raises(UserError, match="has a class 'dog', and classes names bird, cat: name it too"):
        load("images:.", tmp_path, classes=["bird", "cat"])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"size": 0}, "size must be 1 to 1024, got 0"),
        ({"size": 2**40}, "size must be 1 to 1024"),
        ({"channels": 2}, "channels must be 1 or 3, got 2"),
        ({"classes": "cat"}, "classes must be a list of names"),
        ({"classes": [1]}, "classes must be a list of names"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    paint(tmp_path / "dog", [1])
    with pytest.raises(UserError, match=why):
        load("images:.", tmp_path, **options)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must name a folder of pictures"):
        load("images:nowhere", tmp_path)
    with pytest.raises(UserError, match="holds no pictures: put a folder for each class there"):
        load("images:.", tmp_path)
    paint(tmp_path / "dog", [1, 2])
    (tmp_path / "dog" / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"dog/broken.jpg is no picture that can be read"):
        load("images:.", tmp_path)


def test_a_folder_above_a_class_is_a_client(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "rome" / "cat", [10, 20], "L")
    paint(tmp_path / "train" / "rome" / "dog", [30])
    paint(tmp_path / "train" / "berlin" / "dog", [40], side=9)
    paint(tmp_path / "test" / "cat", [50])
    dataset = load("images:.", tmp_path, size=3, channels=1)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train["image"].shape == (4, 1, 3, 3)
    assert dataset.train["label"].tolist() == [1, 0, 0, 1]
    assert dataset.client is not None
    assert dataset.client.tolist() == [0, 1, 1, 1]
    assert dataset.client_names == ("berlin", "rome")
    assert dataset.test["label"].tolist() == [0]


def test_of_one_half_every_client_keeps_its_own(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        paint(tmp_path / name / "x", range(100 * number, 100 * number + 20), "L")
    dataset = load("images:.", tmp_path, size=2, channels=1)
    assert dataset.client is not None
    assert (len(dataset.train), len(dataset.test)) == (36, 4)
    assert (dataset.train["image"][:, 0, 0, 0] // 100).tolist() == dataset.client.tolist()


def test_a_table_lists_pictures(tmp_path: Path) -> None:
    paint(tmp_path / "scans", [10, 20, 30], "L")
    lines = ["Bild;Art;Haus", "scans/02.png;gut;a", "scans/00.png;schlecht;b", "scans/01.png;gut;a"]
    (tmp_path / "train.csv").write_text("\n".join(lines), encoding="latin-1")
    (tmp_path / "test.csv").write_text("Bild;Art;Haus\nscans/00.png;gut;c", encoding="latin-1")
    given = {"file": "Bild", "label": "Art", "client": "Haus", "delimiter": ";", "encoding": "latin-1"}
    dataset = load("images:.", tmp_path, size=2, channels=1, **given)
    assert dataset.train["image"][:, 0, 0, 0].tolist() == [30, 10, 20]
    assert dataset.train["label"].tolist() == [0, 1, 0]
    assert dataset.client_names == ("a", "b")
    assert (dataset.test["label"].tolist(), len(dataset.test)) == ([0], 1)
    paint(tmp_path / "beside", [40], "L")
    config = TaskConfig(dataset="images:train.csv", data_dir=str(tmp_path), dataset_options=quoted(given))
    scans = ["scans/00.png", "scans/01.png", "scans/02.png"]
    assert [file.name for file in data_files(config)] == [*scans, "train.csv"]


def test_pictures_behind_a_link_are_seen_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    paint(tmp_path / "elsewhere", [10, 20], "L")
    paint(tmp_path / "data" / "a", [30, 40], "L")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    config = TaskConfig(dataset="images:data", data_dir=str(tmp_path))
    assert [file.name for file in data_files(config)] == ["a/00.png", "a/01.png", "b/00.png", "b/01.png"]
    for shades in ([10, 20], [50, 60]):
        paint(tmp_path / "elsewhere", shades, "L")
        load_dataset.cache_clear()
        dataset = load("images:data", tmp_path, channels=1)
        found = torch.cat([half["image"][:, 0, 0, 0] for half in (dataset.train, dataset.test)])
        assert sorted(found.tolist()) == sorted([30, 40, *shades])


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["test/cat", "test/dog"], "holds a folder test, and none that is called train: call the folder to"),
        (["Train/cat", "Test/cat"], "holds a folder Test, and none that is called train: call the folder to"),
        (["training/a", "testing/a"], "holds a folder testing, and none that is called train"),
        (
            ["train/a", "test/a", "val/a", "dev/a"],
            "one part, or test and one more for validation, got test and",
        ),
    ],
)
def test_parts_that_would_be_clients_are_refused(tmp_path: Path, names: list[str], why: str) -> None:
    for name in names:
        paint(tmp_path / name, [10, 20])
    with pytest.raises(UserError, match=why):
        load("images:.", tmp_path)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "train.csv",
            r"must hold test.csv or .* beside train.csv: add one, or name .*train.csv, of which a tenth",
        ),
        ("test.csv", "must hold train.csv beside test.csv, which is held out: add it"),
    ],
)
@pytest.mark.parametrize("kind", ["images", "multimodal"])
def test_a_table_without_its_other_half_is_not_ignored(
    tmp_path: Path, kind: str, name: str, why: str
) -> None:
    paint(tmp_path / "scans", [10, 20])
    (tmp_path / name).write_text("file,label\nscans/00.png,cat\n", encoding="utf-8")
    with pytest.raises(UserError, match=why):
        load(f"{kind}:.", tmp_path)


def test_a_picture_is_listed_once(tmp_path: Path) -> None:
    paint(tmp_path / "scans", [10, 20])
    listed = "file,label\nscans/00.png,cat\nscans/01.png,cat\nscans/00.png,dog\n"
    (tmp_path / "x.csv").write_text(listed, encoding="utf-8")
    with pytest.raises(
        UserError, match="line 4: file must be another picture than that of line 2, got 'scans/00"
    ):
        load("images:x.csv", tmp_path)


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    paint(tmp_path / "rome\udcff" / "cat", [10] * 9)
    with pytest.raises(UserError, match="client_names must be of printable characters, got 'rome"):
        load("images:.", tmp_path)


def test_what_does_not_fit_into_the_memory_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "a", range(15), "L")
    whole = load("images:.", tmp_path, channels=1, size=4)
    np.savez_compressed(tmp_path / "x.npz", image=GREY, label=LABELS)
    arrays = load("npz:x.npz", tmp_path)
    monkeypatch.setattr(large, "IN_MEMORY", 10)
    monkeypatch.setattr(npz_files, "_AT_ONCE", 31)
    monkeypatch.setenv("POLYFED_CACHE", str(tmp_path / "cache"))
    made = []
    monkeypatch.setattr(pictures, "zeros", lambda *of: made.append(large.zeros(*of)) or made[-1])
    load_dataset.cache_clear()
    assert torch.equal(load("images:.", tmp_path, channels=1, size=4).train["image"], whole.train["image"])
    assert all(isinstance(each, np.memmap) for each in made)
    assert torch.equal(load("npz:x.npz", tmp_path).train["image"], arrays.train["image"])


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (
            "file,label\n../x.png,a",
            "line 2: file must be a path below the folder of this file, without '..', got",
        ),
        ("file,label\n/x.png,a", "line 2: file must be a path below the folder of this file"),
        (
            "file,label\nx/00.png,a\nx/7.png,a",
            "line 3: file must be the path of a picture that is there, below",
        ),
        ("file,label,client\nx/00.png,a,b\tc", "line 2: client must be the name of a client, of at most 200"),
        ("file,label\nx/00.png,", "line 2: label must be filled in, or the row left out, got ''"),
        (
            "path,label\nx/00.png,a",
            "needs the columns file, label, and lacks file: it has 'path,label'; .*file = 'path', ",
        ),
        ("", "a.csv is empty: give rows with the columns file, label"),
        (
            'file,label\n"x/00.png,a',
            r"no row of a CSV file \(.*\); where a quote is a part of a value, write it",
        ),
        ("file,label", "holds no pictures"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, lines: str, why: str) -> None:
    paint(tmp_path / "x", [1])
    (tmp_path / "a.csv").write_text(lines, encoding="utf-8")
    with pytest.raises(UserError, match=why):
        load("images:a.csv", tmp_path)


def test_no_other_formats_are_opened(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "a" / "0.png", format="EPS")
    with pytest.raises(UserError, match=r"a/0.png is no picture .* \(cannot identify image file"):
        load("images:.", tmp_path)
    Image.new("L", (2, 2)).save(tmp_path / "a" / "0.png", format="PPM")
    with pytest.raises(UserError, match=r"a/0.png is no picture .* \(cannot identify image file"):
        load("images:.", tmp_path)


def test_pictures_of_other_kinds_keep_what_one_sees(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    grey = np.array([[0, 257], [32768, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "a" / "0.png")
    Image.fromarray(grey).save(tmp_path / "a" / "1.tif")
    drawing = np.zeros((2, 2, 4), np.uint8)
    drawing[0, 0, 3] = 255  # black, on black that is transparent
    Image.fromarray(drawing).save(tmp_path / "a" / "2.png")
    Image.fromarray(drawing).convert("LA").save(tmp_path / "a" / "3.png")
    palette = Image.fromarray(np.array([[1, 0], [0, 0]], np.uint8), "L").convert("P")
    palette.save(tmp_path / "a" / "4.png", transparency=0)
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8)).save(tmp_path / "a" / "5.png", exif=turned)
    dataset = load("images:.", tmp_path, size=2, channels=1)
    seen = torch.cat([dataset.train["image"], dataset.test["image"]])[:, 0].flatten(1).tolist()
    black_on_white = [0, 255, 255, 255]
    assert sorted(seen) == sorted(
        [[0, 1, 128, 255]] * 2 + [black_on_white] * 2 + [[1, 255, 255, 255], [3, 2, 1, 0]]
    )


@pytest.mark.parametrize(("kind", "mode"), [(np.int32, "I"), (np.float32, "F")])
def test_pictures_of_32_bits_are_refused(tmp_path: Path, kind: type, mode: str) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.ones((2, 2), kind)).save(tmp_path / "a" / "0.tif")
    with pytest.raises(
        UserError, match=rf"a/0.tif is no .* \(its pixels are numbers of 32 bits, mode {mode}: "
    ):
        load("images:.", tmp_path)


def test_pictures_beside_folders_of_them(tmp_path: Path) -> None:
    paint(tmp_path / "cat", [1])
    paint(tmp_path / "rome" / "cat", [1])
    with pytest.raises(
        UserError, match="of classes or of clients, and cat holds pictures while rome holds fold"
    ):
        load("images:.", tmp_path)


GREY = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 5), np.uint8)
"""(20, 3, 5): a shade each."""
LABELS = np.arange(20) % 3


@pytest.mark.parametrize("names", [("train_images", "train_labels"), ("x_train", "y_train")])
def test_arrays_of_both_halves(tmp_path: Path, names: tuple[str, str]) -> None:
    images, labels = names
    halves = {images: GREY, labels: LABELS[:, None]}
    halves |= {images.replace("train", "test"): GREY[:4], labels.replace("train", "test"): LABELS[:4, None]}
    np.savez(tmp_path / "x.npz", **halves)
    dataset = load("npz:x.npz", tmp_path)
    assert dataset.train["image"].shape == (20, 1, 3, 5)
    assert dataset.train["image"][:, 0, 0, 0].tolist() == [*range(20)]
    assert dataset.train["label"].tolist() == LABELS.tolist()
    assert dataset.test["label"].tolist() == [0, 1, 2, 0]
    assert dataset.classes == ("0", "1", "2")
    assert load("npz:x.npz", tmp_path, classes=["a", "b", "c", "d"]).classes == ("a", "b", "c", "d")


def test_arrays_of_one_half(tmp_path: Path) -> None:
    colour = np.stack([GREY, GREY + 100, GREY + 200], axis=-1)
    np.savez(tmp_path / "x.npz", image=colour, label=LABELS)
    dataset = load("npz:x.npz", tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (19, 1)
    assert dataset.train["image"].shape == (19, 3, 3, 5)
    for half in (dataset.train, dataset.test):
        shades = half["image"][:, :, 0, 0].tolist()
        assert [[each[0], each[0] + 100, each[0] + 200] for each in shades] == shades
        assert half["label"].tolist() == [each[0] % 3 for each in shades]


def test_validation_pictures_go_where_they_are_said_to_belong(tmp_path: Path) -> None:
    halves = {"train": GREY, "val": GREY[:3] + 100, "test": GREY[:2] + 200}
    arrays = {f"{half}_images": images for half, images in halves.items()}
    labels = {f"{half}_labels": LABELS[: len(images), None] for half, images in halves.items()}
    np.savez(tmp_path / "x.npz", **arrays, **labels)

    def shades(**options: Any) -> list[list[int]]:
        dataset = load("npz:x.npz", tmp_path, **options)
        return [half["image"][:, 0, 0, 0].tolist() for half in (dataset.train, dataset.test)]

    assert shades() == [[*range(20)], [200, 201]]
    assert shades(validation="train") == [[*range(20), 100, 101, 102], [200, 201]]
    assert shades(validation="test") == [[*range(20)], [100, 101, 102]]
    with pytest.raises(UserError, match="validation must be 'train', 'test' or '', got 'x'"):
        shades(validation="x")
    np.savez(tmp_path / "y.npz", image=GREY, label=LABELS)
    with pytest.raises(UserError, match=r"must hold .* for validation = 'train', it holds image, label"):
        load("npz:y.npz", tmp_path, validation="train")


def test_an_array_whose_columns_lie_together(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=np.asfortranarray(GREY), label=LABELS)
    np.savez(tmp_path / "y.npz", image=GREY, label=LABELS)
    assert torch.equal(load("npz:x.npz", tmp_path).train["image"], load("npz:y.npz", tmp_path).train["image"])


@pytest.mark.parametrize(
    ("arrays", "options", "why"),
    [
        (
            {"image": GREY},
            {},
            "must hold train_images and train_labels, x_train and y_train, or image and label",
        ),
        ({"image": GREY / 255, "label": LABELS}, {}, r"image must be uint8 of \(N, H, W\)"),
        ({"image": GREY[0], "label": LABELS}, {}, r"image must be uint8 of \(N, H, W\)"),
        (
            {"image": GREY, "label": LABELS[:3]},
            {},
            "label must be a whole number from 0 on for each of 20",
        ),
        (
            {"image": GREY, "label": LABELS - 1},
            {},
            "label must be a whole number from 0 on for each picture, got -1",
        ),
        (
            {"train_images": GREY, "train_labels": LABELS, "test_images": GREY},
            {},
            "holds test_images and no test_labels: save both, or neither",
        ),
        (
            {"train_images": GREY, "train_labels": LABELS, "val_images": GREY, "val_labels": LABELS},
            {},
            "holds val_images and val_labels and no test_images: say what they are for",
        ),
        ({"image": GREY, "label": LABELS / 2}, {}, "label must be a whole number from 0 on"),
        ({"image": GREY, "label": LABELS + 10**6}, {}, "labels must be < 10000, got 1000002"),
        (
            {"image": GREY, "label": LABELS},
            {"classes": ["a"]},
            "has a label 2, so classes must name 3 or more, got 1",
        ),
        ({"image": np.array([{}]), "label": LABELS}, {}, "it must hold arrays of numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict, options: dict[str, Any], why: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=why):
        load("npz:x.npz", tmp_path, **options)


def header(shape: str, kind: str = "|u1") -> bytes:
    """Return an array of NumPy's that claims a shape, and holds nothing."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"label": header("(1000000000000,)", "<i8")},
            r"label says that it is int64 \(1000000000000,\), and hol",
        ),
        ({"image": header(f"(1, {2**40}, {2**40}, 1)")}, "image says that it is uint8 "),
        (
            {"image": header("(100000000, 32, 32)")},
            r"image says that it is uint8 \(100000000, 32, 32\), and hol",
        ),
        ({"image": header("(-1, -8, 32)")}, "image says that it is uint8 "),
        (
            {"image": b"\x93NUMPY\x01\x00\x03\x00((("},
            r"cannot be read \(.+\): it must hold arrays of numbers",
        ),
        ({"image": b"hello"}, r"cannot be read \(.+\): it must hold arrays of numbers"),
    ],
)
def test_what_a_header_claims_is_not_believed(tmp_path: Path, changed: dict[str, bytes], why: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name in ("image", "label"):
            content = changed.get(name, header("(0,)", "<i8"))
            archive.writestr(f"{name}.npy", content)
    with pytest.raises(UserError, match=why):
        load("npz:x.npz", tmp_path)


def test_archives_that_numpy_did_not_write(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("image", b"")
        archive.writestr("label", b"")
    with pytest.raises(UserError, match="image and label; it holds nothing"):
        load("npz:x.npz", tmp_path)
    np.savez(tmp_path / "x.npz", image=GREY, label=LABELS)
    content = (tmp_path / "x.npz").read_bytes()
    entry, one = b"PK\x01\x02", b"PK\x03\x04"
    encrypted = bytearray(content)
    unknown = bytearray(content)
    for sign, flags in ((entry, 8), (one, 6)):
        place = content.find(sign)
        while place >= 0:
            encrypted[place + flags] |= 1
            unknown[place + flags + 2] = 77
            place = content.find(sign, place + 1)
    for changed, why in ((encrypted, "password required"), (unknown, "compression method is not supported")):
        (tmp_path / "x.npz").write_bytes(changed)
        load_dataset.cache_clear()
        with pytest.raises(UserError, match=f"x.npz cannot be read .*{why}.* it must hold arrays of numbers"):
            load("npz:x.npz", tmp_path)
