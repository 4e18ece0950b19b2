"""Nodes with data of their own, in whatever form a task's data has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from PIL import Image

from clients.simulated import SIMULATED
from models.core.config import Value
from server.app import app as server_app
from simulations.runtime.in_process import InProcessGrid

Write = Callable[[Path, int], None]
"""(a machine's folder, its number): writes what it has."""


class RealNodes(InProcessGrid):
    """Nodes with disks of their own, which are not the server's."""

    interchangeable_nodes = False

    def __init__(self, run_config: dict[str, Value], folder: Path, **owner: str) -> None:
        super().__init__(run_config, 2)
        for node, context in self.contexts.items():
            del context.node_config[SIMULATED]
            context.node_config |= {
                "data-path": str(folder / f"node-{node}"),
                "state-path": str(folder / "state"),
            }
            context.node_config |= owner


def pictures(folder: Path, number: int) -> None:
    for half in ("train", "test"):
        for name in ("cat", "dog")[: number + 1]:  # the first node has no dogs
            (folder / "scans" / half / name).mkdir(parents=True)
            for shade in range(6):
                image = Image.new("L", (8, 8), 40 * shade + number)
                image.save(folder / "scans" / half / name / f"{shade}.png")


def arrays(folder: Path, number: int) -> None:
    image = np.full((12, 8, 8), 20 * number, np.uint8)
    np.savez(folder / "scans.npz", image=image, label=np.arange(12) % (number + 1))


def series(folder: Path, number: int) -> None:
    rows = [f"{name},{time},{time % 7 + number}" for name in "ab"[: number + 1] for time in range(60)]
    (folder / "prices.csv").write_text("client,time,value\n" + "\n".join(rows) + "\n", encoding="utf-8")


def text(folder: Path, number: int) -> None:
    (folder / "letters").mkdir()
    (folder / "letters" / "one.txt").write_text("To be or not to be. " * (40 + number), encoding="utf-8")


def letters(folder: Path, number: int) -> None:
    rows = [f"text {place},{'yes' if place % 2 or number else 'no'}" for place in range(12)]
    (folder / "letters.csv").write_text("letter,wish\n" + "\n".join(rows), encoding="latin-1")


def sentences(folder: Path, number: int) -> None:
    tagged = ["Ann B-PER\nsaw O\nParis B-LOC\n", "Bob B-PER\nsat O\n"][number % 2 :]
    for half in ("train", "test"):
        (folder / "tagged").mkdir(exist_ok=True)
        (folder / "tagged" / f"{half}.txt").write_text("\n".join(tagged * 4), encoding="utf-8")


@pytest.mark.parametrize(
    ("task", "dataset", "write", "options"),
    [
        ("cnn", "images:scans", pictures, "size = 8, channels = 1, classes = ['cat', 'dog']"),
        ("vae", "npz:scans.npz", arrays, "classes = ['a', 'b', 'c']"),
        ("lstm-forecast", "csv:prices.csv", series, "window = 10"),
        ("lstm-text", "text:letters", text, ""),
        ("ner", "conll:tagged", sentences, "types = ['LOC', 'PER']"),
        (
            "text-classify",
            "csv:letters.csv",
            letters,
            "text = 'letter', label = 'wish', classes = ['no', 'yes'], encoding = 'latin-1'",
        ),
    ],
)
def test_nodes_train_on_data_of_their_own(
    tiny: Callable[..., dict[str, Value]],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    task: str,
    dataset: str,
    write: Write,
    options: str,
) -> None:
    for number, name in enumerate(("node-0", "node-1", "server")):
        (tmp_path / name).mkdir()
        write(tmp_path / name, number)
    given: dict[str, Any] = {"task": task, "dataset": dataset, "dataset_options": options, "num_clients": 2}
    given |= {"data_dir": str(tmp_path / "server"), "num_server_rounds": 1, "partitioner": "iid"}
    owner: dict[str, str] = {}
    if task in ("ner", "text-classify"):  # whose numbers of tokens all machines must have alike
        owner["backbone"] = str(request.getfixturevalue("bert_folder"))
        given["task_options"] = f"backbone = '{owner['backbone']}'"
    config = tiny(**given)
    grid = RealNodes(config, tmp_path, **owner)
    server_app(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config))
    folder = Path(str(config["run-dir"]))
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["status"] == "completed"
    row = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert (row["clients"], row["failures"]) == ([0, 1], [])
    assert not (folder / "partition.json").exists()  # the server does not see who holds what
