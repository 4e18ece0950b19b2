"""docs/data.md: every wrong input that it names gets the line that it shows, and its examples load."""

import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.core.toml import quoted
from models.data.datasets import load_dataset

PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
GOOD = '{"text": "a", "label": "b"}\n'


class Wrong(NamedTuple):
    """What is written, and how it is asked for."""

    files: Mapping[str, bytes | str]
    dataset: str
    options: Mapping[str, Any] = {}


def picture(side: int = 4, mode: str = "L") -> bytes:
    file = BytesIO()
    Image.new(mode, (side, side)).save(file, "png" if mode == "L" else "tiff")
    return file.getvalue()


def arrays(**given: Any) -> bytes:
    file = BytesIO()
    np.savez(file, **given)
    return file.getvalue()


def talk(content: bytes | str) -> Wrong:
    return Wrong({"talks.jsonl": content}, "dialogue:talks.jsonl")


def kitti(line: str, label: str = "000001") -> dict[str, bytes | str]:
    return {"scans/image_2/000001.png": PNG, f"scans/label_2/{label}.txt": line}


def coco(**changes: Any) -> dict[str, bytes | str]:
    """Return a picture, and an annotation of it in COCO's format, with changes to either's entry."""
    image = {"id": 1, "file_name": "a.png", "width": 4, "height": 4}
    box = {"id": 5, "image_id": 1, "category_id": 3, "bbox": [0, 0, 2, 2]}
    for entry in (image, box):
        entry |= {key: value for key, value in changes.items() if key in entry}
    images = [image, {**image, "id": 2}] if changes.get("again") else [image]
    categories = changes.get("categories", [{"id": 3, "name": "dog"}])
    held = {"images": images, "annotations": [box], "categories": categories}
    return {"scans/a.png": PNG, "scans/all.json": json.dumps(held)}


IMAGES, NUMBERS = np.zeros((20, 28, 28), np.uint8), np.zeros(20, np.int64)
PNG = picture()
MIXED, FINDS = "multimodal:finds.csv", "image,text,label\n"
SIZES = "1 1 1 1 1 1 1"
"""The last of KITTI's columns, which are not read."""
WRONG: Mapping[str, Mapping[str, Wrong]] = {
    "## Your own pictures": {
        "a file that is no picture": Wrong({"scans/dog/broken.jpg": "no picture"}, "images:scans"),
        "pixels of 32 bits": Wrong({"scans/cat/1.tif": picture(mode="F")}, "images:scans"),
        "`train` with nothing to hold out": Wrong({"scans/train/cat/1.png": PNG}, "images:scans"),
        "`test` with nothing to train on, or halves by another name": Wrong(
            {"scans/Test/cat/1.png": PNG, "scans/Train/cat/1.png": PNG}, "images:scans"
        ),
        "`train.csv` with nothing to hold out": Wrong({"scans/train.csv": "file,label\n"}, "images:scans"),
        "a picture that is listed twice": Wrong(
            {
                "labels.csv": "file,label\ncat/1.png,a\ncat/0.png,a\ncat/1.png,b\n",
                "cat/0.png": PNG,
                "cat/1.png": PNG,
            },
            "images:labels.csv",
        ),
        "`DIR` without pictures": Wrong({"scans/notes.txt": ""}, "images:scans"),
        "pictures beside folders of them": Wrong(
            {"scans/cat/1.png": PNG, "scans/rome/cat/1.png": PNG}, "images:scans"
        ),
        "a class that `classes` does not name": Wrong(
            {"scans/dog/1.png": PNG}, "images:scans", {"classes": ["bird", "cat"]}
        ),
        "a table's file that is not there": Wrong(
            {"labels.csv": "file,label\ncat/1.png,a\ncat/8.png,a", "cat/1.png": PNG}, "images:labels.csv"
        ),
        "a table's file elsewhere": Wrong(
            {"labels.csv": "file,label\ncat/1.png,a\n../1.png,a", "cat/1.png": PNG}, "images:labels.csv"
        ),
        "an array of other numbers": Wrong(
            {"scans.npz": arrays(train_images=IMAGES / 2, train_labels=NUMBERS)}, "npz:scans.npz"
        ),
        "labels that are none": Wrong(
            {"scans.npz": arrays(train_images=IMAGES, train_labels=NUMBERS / 2)}, "npz:scans.npz"
        ),
        '`validation = "train"` without them': Wrong(
            {"scans.npz": arrays(train_images=IMAGES, train_labels=NUMBERS, test_images=IMAGES)},
            "npz:scans.npz",
            {"validation": "train"},
        ),
    },
    "## Pictures and texts": {
        "neither picture nor text": Wrong({"finds.csv": FINDS + "a.png,,coin\n,,coin", "a.png": PNG}, MIXED),
        "a picture that is not there": Wrong(
            {"finds.csv": FINDS + "a.png,,coin\nb.png,,coin", "a.png": PNG}, MIXED
        ),
        "a picture elsewhere": Wrong(
            {"finds.csv": FINDS + "a.png,,coin\n../a.png,,coin", "a.png": PNG}, MIXED
        ),
        "a text that is too long": Wrong(
            {"finds.csv": FINDS + ",a coin,coin\n,a coin of bronze,coin"}, MIXED, {"max_bytes": 8}
        ),
        "no class": Wrong({"finds.csv": FINDS + ",a coin,coin\n,a pot,"}, MIXED),
        "a table without texts": Wrong({"finds.csv": "image,label\na.png,coin", "a.png": PNG}, MIXED),
        "two pictures of one name": Wrong(
            {"scans/cat/1.jpg": PNG, "scans/cat/1.png": PNG}, "multimodal:scans"
        ),
        "a folder without either": Wrong({"scans/notes.md": ""}, "multimodal:scans"),
        "`train` with nothing to hold out": Wrong(
            {"scans/train/cat/1.png": PNG, "scans/eval/cat/1.png": PNG}, "multimodal:scans"
        ),
    },
    "## Pictures with boxes": {
        "an object with too few columns": Wrong(kitti("Car 8 4 24 12"), "kitti:scans"),
        "a side that is no number": Wrong(kitti(f"Car 0 0 0 8 4 wide 12 {SIZES}"), "kitti:scans"),
        "a box that ends before it begins": Wrong(kitti(f"Car 0 0 0 24 4 8 12 {SIZES}"), "kitti:scans"),
        "a type that is not KITTI's": Wrong(kitti(f"Bus 0 0 0 8 4 24 12 {SIZES}"), "kitti:scans"),
        "a picture without its labels": Wrong(kitti("", label="000002"), "kitti:scans"),
        "a folder of something else": Wrong({"scans/cat/1.png": PNG}, "kitti:scans"),
        "`train` with nothing to hold out": Wrong(
            {f"scans/{half}/image_2/1.png": PNG for half in ("train", "eval")}, "kitti:scans"
        ),
        "a byte that is not UTF-8": Wrong(
            {"scans/image_2/000001.png": PNG, "scans/label_2/000001.txt": b"\xff"}, "kitti:scans"
        ),
        "a picture of another size": Wrong(coco(width=5), "coco:scans"),
        "one picture twice": Wrong(coco(again=True), "coco:scans"),
        "no categories": Wrong(coco(categories=[]), "coco:scans"),
        "held-out pictures alone": Wrong({"scans/test.json": "{}"}, "coco:scans"),
        "a category in `ignore` that is not there": Wrong(coco(), "coco:scans", {"ignore": ["dgo"]}),
        "a class of KITTI's that is ignored too": Wrong(
            kitti(""), "kitti:scans", {"classes": ["Car"], "ignore": ["Car"]}
        ),
        "a file that is no JSON": Wrong({"scans/all.json": "no JSON"}, "coco:scans"),
        "JSON of another form": Wrong({"scans/all.json": '{"images": []}'}, "coco:scans"),
        "several files": Wrong({"scans/a.json": "{}", "scans/b.json": "{}"}, "coco:scans"),
        "an annotation of an image that is not there": Wrong(coco(image_id=9), "coco:scans"),
        "an annotation of a category that is not there": Wrong(coco(category_id=4), "coco:scans"),
        "a box that is none": Wrong(coco(bbox=[8, 4, -2, 8]), "coco:scans"),
        "a picture that is not there": Wrong(coco(file_name="c.png"), "coco:scans"),
        "a picture elsewhere": Wrong(coco(file_name="../a.png"), "coco:scans"),
        "a category that `classes` does not name": Wrong(coco(), "coco:scans", {"classes": ["cat"]}),
    },
    "### What is refused": {
        "other names of columns": Wrong({"prices.csv": "time,price,client"}, "csv:prices.csv"),
        "an empty file": Wrong({"prices.csv": ""}, "csv:prices.csv"),
        "another encoding": Wrong(
            {"prices.csv": "value,time,client\n1,1,Zürich".encode("latin-1")}, "csv:prices.csv"
        ),
        "an encoding that does not exist": Wrong(
            {"prices.csv": ""}, "csv:prices.csv", {"encoding": "klingon"}
        ),
        "a text where a number should be": Wrong(
            {"prices.csv": "value,time,client\n1,1,a\nhigh,2,a"}, "csv:prices.csv"
        ),
        "thousands beside `decimal = ','`": Wrong(
            {"prices.csv": "value;time;client\n980;1;a\n1.010;2;a"},
            "csv:prices.csv",
            {"delimiter": ";", "decimal": ","},
        ),
        "a client that is none": Wrong(
            {"prices.csv": 'value,time,client\n1,1,a\n1,2,"a\tb"'}, "csv:prices.csv"
        ),
        "an empty value": Wrong({"prices.csv": "value,time,client\n1,1,a\n,2,a"}, "csv:prices.csv"),
        "a date of another form": Wrong(
            {"prices.csv": "value,time,client\n1,01/02/2024,a"}, "csv:prices.csv"
        ),
        "one time twice": Wrong({"prices.csv": "value,time,client\n1,2,a\n2,1,b\n3,2,a"}, "csv:prices.csv"),
        "a row that is cut": Wrong({"prices.csv": "value,time,client\n1,1"}, "csv:prices.csv"),
        "a line that is no JSON": Wrong({"letters.json": GOOD + '{"text": "a"'}, "json:letters.json"),
        "a JSON object without a name": Wrong({"letters.json": GOOD + '{"text": "a"}'}, "json:letters.json"),
        "a text that is none": Wrong(
            {"letters.json": GOOD + '{"text": 3, "label": "b"}'}, "json:letters.json"
        ),
        "a class that `classes` does not name": Wrong(
            {"letters.json": GOOD * 2}, "json:letters.json", {"classes": ["c"]}
        ),
        "one column as two": Wrong({"letters.json": GOOD}, "json:letters.json", {"text": "label"}),
        "options of both kinds": Wrong(
            {"letters.json": GOOD}, "json:letters.json", {"text": "a", "value": "b"}
        ),
        "a file that is no Parquet": Wrong({"prices.parquet": "time,value,client"}, "parquet:prices.parquet"),
    },
    "## Dialogues": {
        "a line that is no JSON": talk('{"turns": ["a", "b"]}\n{"turns": ["c", "d"'),
        "other names": talk('{"messages": ["a", "b"]}'),
        "a dialogue of one turn": talk('{"turns": ["Hello."]}'),
        "a turn that is no text": talk('{"turns": ["a", 3]}'),
        "an empty turn": talk('{"turns": ["a", " "]}'),
        "a turn that is too long": talk('{"turns": ["a", "%s"]}' % ("b" * 501)),
        "a client that is none": talk('{"turns": ["a", "b"], "client": " "}'),
        "another encoding": talk('{"turns": ["Zürich", "b"]}'.encode("latin-1")),
        "turns that are all known": talk('{"turns": ["a", "B"]}\n{"turns": ["c", "b "]}'),
        "a folder without such files": Wrong({"talks.txt": ""}, "dialogue:."),
    },
    "### Environments that are refused": {
        "an id that does not exist": Wrong({}, "gym:Cartpool-v1"),
        "actions that are not discrete": Wrong({}, "gym:Pendulum-v1"),
        "episodes without an end": Wrong({}, "gym:Blackjack-v1"),
        "physics that it has not": Wrong({}, "gym:CartPole-v1?lenght=0.5"),
        "a key twice": Wrong({}, "gym:CartPole-v1?envs=8&envs=4"),
        "a number of environments that is none": Wrong({}, "gym:CartPole-v1?envs=two"),
        "physics that lead to no number": Wrong({}, "gym:CartPole-v1?length=0"),
        "a range from high to low": Wrong({}, "gym:CartPole-v1?length=2..1"),
        "no frames": Wrong({}, "gym:CartPole-v1?frame_stack=0"),
        "a module that is not there": Wrong({}, "gym:nowhere:X-v0"),
    },
}
CASES = [pytest.param(section, given, id=given) for section, cases in WRONG.items() for given in cases]


def lines_of(section: str) -> dict[str, str]:
    """Return what a section says is given -> the line that it shows."""
    text = PAGE.partition(f"\n{section}\n")[2].partition("\n##")[0].partition("| given | the line |")[2]
    return dict(re.findall(r"^\| (.+?) \| `(.+)` \|$", text, re.MULTILINE))


@pytest.mark.parametrize("section", WRONG)
def test_every_wrong_input_of_the_page_is_tried(section: str) -> None:
    assert lines_of(section).keys() == WRONG[section].keys()


@pytest.mark.parametrize(("section", "given"), CASES)
def test_it_gets_the_line_of_the_page(section: str, given: str, tmp_path: Path) -> None:
    wrong, shown = WRONG[section][given], lines_of(section)[given]
    if ".parquet" in shown and find_spec("pyarrow") is None:
        pytest.skip("pyarrow is an extra")
    for name, content in wrong.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    config = TaskConfig(dataset=wrong.dataset, data_dir=str(tmp_path), dataset_options=quoted(wrong.options))
    with pytest.raises(UserError) as error:
        load_dataset(config)
    said = str(error.value).replace(f"{tmp_path}/", "").replace(str(tmp_path), "scans")
    assert re.fullmatch(re.escape(shown).replace(re.escape("..."), ".*"), said), said


EXAMPLES: Mapping[str, tuple[str, str]] = {
    "/data/prices.csv": (
        "cp1252",
        "Ort;Tag;Preis\n"
        + "\n".join(f"Zürich;{1 + n % 28:02}.{1 + n // 28:02}.2024;{n},5" for n in range(50)),
    ),
    "/data/letters.csv": (
        "utf-8",
        "office,title,letter,topic\n" + "\n".join(f"{n % 4},Hello,{n} times,{n % 3}" for n in range(20)),
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_load(name: str, tmp_path: Path) -> None:
    command = re.search(rf"dataset=csv:{name} [^`]*?\"dataset-options=([^\"]*)\"", PAGE)
    assert command
    encoding, text = EXAMPLES[name]
    (tmp_path / Path(name).name).write_text(text, encoding=encoding)
    config = TaskConfig(dataset=f"csv:{tmp_path / Path(name).name}", dataset_options=command[1])
    dataset = load_dataset(config)
    assert dataset.client_names == {"prices": ("Zürich",), "letters": ("0", "1", "2", "3")}[Path(name).stem]
