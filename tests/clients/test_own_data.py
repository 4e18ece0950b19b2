"""Nodes with data of their own, in whatever form a task's data has."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict
from PIL import Image
from raw_files import KITTI, write_kitti

from clients.node_config import NodeConfig
from clients.simulated import SIMULATED
from clients.worker import worker_of
from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.datasets import Source
from server.app import app as server_app
from simulations.runtime.flower import FlowerOutcome
from simulations.runtime.in_process import InProcessGrid
from simulations.runtime.launch import launch
from simulations.terminal import make_console

Write = Callable[[Path, int], None]
"""(a machine's folder, its number): writes what it has."""


class RealNodes(InProcessGrid):
    """Nodes with disks of their own, which are not the server's."""

    interchangeable_nodes = False

    def __init__(self, run_config: dict[str, Value], folder: Path, num_nodes: int = 2, **owner: str) -> None:
        super().__init__(run_config, num_nodes)
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
    words = f"To be or not to be {'äöü'[number]}. "  # each has a letter of its own
    (folder / "letters" / "one.txt").write_text(words * (40 + number), encoding="utf-8")


def letters(folder: Path, number: int) -> None:
    """Write texts of two classes, one of which the first node alone has."""
    rows = [f"text {place},{'yes' if place % 2 or number else 'no'}" for place in range(12)]
    (folder / "letters.csv").write_text("letter,wish\n" + "\n".join(rows), encoding="latin-1")


def sentences(folder: Path, number: int) -> None:
    tagged = ["Ann B-PER\nsaw O\nParis B-LOC\n", "Bob B-PER\nsat O\n"][number % 2 :]
    for half in ("train", "test"):
        (folder / "tagged").mkdir(exist_ok=True)
        (folder / "tagged" / f"{half}.txt").write_text("\n".join(tagged * 4), encoding="utf-8")


def pairs(folder: Path, number: int) -> None:
    for ending, words in (("de", ("eins", "zwei", "drei", "vier")), ("en", ("one", "two", "three", "four"))):
        (folder / f"mine.{ending}").write_text("\n".join(words[: 3 + number % 2]), encoding="utf-8")


def talks(folder: Path, number: int) -> None:
    lines = [
        json.dumps({"turns": [f"how is {place}?", f"{place} is fine", "so"]}) for place in range(20 + number)
    ]
    (folder / "talks.jsonl").write_text("\n".join(lines), encoding="utf-8")


def notes(folder: Path, number: int) -> None:
    """Write a table of pictures and texts; the first node has no texts."""
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(folder / "a.png")
    rows = [f"a.png,{f'note {place}' * bool(number)},{'yes' if place % 2 else 'no'}" for place in range(12)]
    (folder / "notes.csv").write_text("image,text,label\n" + "\n".join(rows), encoding="utf-8")


def boxes(folder: Path, number: int) -> None:
    """Write pictures with one object each, but for the first node's, which have four."""
    write_kitti(folder / "street", lines=KITTI[: 1 if number else None])


@pytest.mark.parametrize(
    ("task", "dataset", "write", "options"),
    [
        ("multimodal", "multimodal:notes.csv", notes, "size = 8, channels = 1"),
        ("detect", "kitti:street", boxes, "width = 64, height = 32"),
        ("cnn", "images:scans", pictures, "size = 8, channels = 1, classes = ['cat', 'dog']"),
        ("vae", "npz:scans.npz", arrays, "classes = ['a', 'b', 'c']"),
        ("lstm-forecast", "csv:prices.csv", series, "window = 10"),
        ("lstm-text", "text:letters", text, ""),
        ("masked-lm", "text:letters", text, ""),
        ("ner", "conll:tagged", sentences, "types = ['LOC', 'PER']"),
        ("seq2seq", "parallel:mine", pairs, "source = 'de', target = 'en'"),
        ("dialogue", "dialogue:talks.jsonl", talks, "context_turns = 1"),
        (
            "text-classify",
            "csv:letters.csv",
            letters,
            "text = 'letter', label = 'wish', encoding = 'latin-1'",
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


def mixed_pictures(folder: Path, names: str, seed: int) -> None:
    for half in ("train", "test"):
        for name in names.split():
            (folder / "scans" / half / name).mkdir(parents=True)
            for number in range(6):
                pixels = np.random.default_rng([seed, number, len(name)]).integers(0, 256, (8, 8), np.uint8)
                Image.fromarray(pixels).save(folder / "scans" / half / name / f"{number}.png")


def mixed_arrays(folder: Path, names: str, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (12, 8, 8), np.uint8)
    np.savez(folder / "scans.npz", image=image, label=np.resize([*map(int, names.split())], 12))


def mixed_table(folder: Path, names: str, seed: int) -> None:
    rows = [f"Ann{seed} saw {name} today,{name}" for name in names.split()] * 4
    for half in ("train", "test"):
        (folder / "notes").mkdir(exist_ok=True)
        (folder / "notes" / f"{half}.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")


def mixed_sentences(folder: Path, names: str, seed: int) -> None:
    tagged = [f"Ann{seed} B-{name}\nsat O\n" for name in names.split()]
    for half in ("train", "test"):
        (folder / "tagged").mkdir(exist_ok=True)
        (folder / "tagged" / f"{half}.txt").write_text("\n".join(tagged * 4), encoding="utf-8")


@dataclass(frozen=True)
class Mixed:
    """A federation whose nodes have different labels, and what a run needs to learn from it."""

    config: dict[str, Value]
    folder: Path

    def run(self, name: str, *, simulated: bool = False, away: int | None = None, **changes: Value) -> Path:
        """Run with these changes of the config; return the run folder."""
        run_dir = self.config["run-dir"] if changes.get("resume") else str(self.folder / name)
        config = {**self.config, "run-dir": run_dir, **changes}
        grid = RealNodes(config, self.folder, len(LABELS_OF[str(config["dataset"])]))
        for node in list(grid.contexts):
            if simulated:
                del grid.contexts[node].node_config["state-path"]
                grid.contexts[node].node_config[SIMULATED] = True
            if node == away:
                del grid.contexts[node]
        grid.interchangeable_nodes = simulated
        server_app(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config))
        return Path(str(run_dir))


LABELS_OF = {
    "images:scans": ("cat dog", "fox", "dog hen"),
    "npz:scans.npz": ("0 1", "3", "1 11"),
    "conll:tagged": ("PER LOC", "ORG", "LOC"),
    "csv:notes": ("2 10", "fox", "1 2"),
}
"""What each of three nodes has; the server has what the first has."""
UNION = {
    "images:scans": ("cat", "dog", "fox", "hen"),
    "npz:scans.npz": tuple(map(str, range(12))),
    "conll:tagged": ("LOC", "ORG", "PER"),
    "csv:notes": ("1", "2", "10", "fox"),
}
ADDED: dict[str, dict[str, list[str]]] = {
    "images:scans": {"node 1": ["fox"], "node 2": ["hen"]},
    "npz:scans.npz": {"node 1": ["2", "3"], "node 2": [*map(str, range(2, 12))]},
    "conll:tagged": {"node 1": ["ORG"]},
    "csv:notes": {"node 1": ["fox"], "node 2": ["1"]},
}


MADE_OF: dict[str, tuple[Callable[[Path, str, int], None], dict[str, Any]]] = {
    "images": (mixed_pictures, {"dataset_options": "size = 8, channels = 1", "num_server_rounds": 2}),
    "npz": (mixed_arrays, {"num_server_rounds": 1}),
    # From scratch: the tokens are learned from the server's sentences.
    "conll": (mixed_sentences, {"task": "ner", "num_server_rounds": 1}),
    "csv": (mixed_table, {"task": "text-classify", "num_server_rounds": 1}),
}
"""Who writes a machine's data (folder, labels, seed), and what a run that learns from it needs."""


@pytest.fixture(params=LABELS_OF)
def mixed(tiny: Callable[..., dict[str, Value]], tmp_path: Path, request: pytest.FixtureRequest) -> Mixed:
    dataset = str(request.param)
    write, given = MADE_OF[dataset.partition(":")[0]]
    for number, name in enumerate(("server", "node-0", "node-1", "node-2")):
        (tmp_path / name).mkdir()
        write(tmp_path / name, LABELS_OF[dataset][max(number - 1, 0)], number)
    alike = {"num_clients": 3, "batch_size": 4, "data_dir": str(tmp_path / "server"), "partitioner": "iid"}
    return Mixed(tiny(dataset=dataset, **alike, **given), tmp_path)


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert (found["status"], found["refused_nodes"]) == ("completed", [])
    return found


def test_nodes_agree_on_labels_and_end_in_the_hash_of_the_simulation(mixed: Mixed) -> None:
    dataset = str(mixed.config["dataset"])
    folder = mixed.run("nodes")
    agreed = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    assert agreed["labels"] == [*UNION[dataset]]
    assert agreed["by_node"] == ADDED[dataset]
    expected = result(folder)["weights_sha256"]
    assert result(mixed.run("simulated", simulated=True))["weights_sha256"] == expected
    # As if whoever starts the run had known all labels.
    option = "types" if dataset.startswith("conll") else "classes"
    named = f"{option} = {[*UNION[dataset]]}"
    options = ", ".join(filter(None, [str(mixed.config["dataset-options"]), named]))
    by_hand = mixed.run("by-hand", **{"dataset-options": options})
    assert not (by_hand / "labels.json").exists()
    assert result(by_hand)["weights_sha256"] == expected


@pytest.mark.parametrize("mixed", ["images:scans"], indirect=True)
def test_a_run_that_goes_on_keeps_its_labels_whoever_takes_part(mixed: Mixed) -> None:
    whole = result(mixed.run("whole", **{"num-server-rounds": 3, "clients-per-round": 1}))
    again = Mixed(mixed.config | {"run-dir": str(mixed.folder / "part")}, mixed.folder)
    result(again.run("part", **{"num-server-rounds": 2, "clients-per-round": 1}))
    resumed = {"num-server-rounds": 3, "clients-per-round": 1, "resume": True}
    assert result(again.run("part", **resumed))["weights_sha256"] == whole["weights_sha256"]
    without = {**resumed, "num-server-rounds": 4, "node-timeout": 0.2}
    assert result(again.run("part", away=1, **without))["server_round"] == 4  # the fox alone was node 1's


@pytest.mark.parametrize("mixed", ["images:scans"], indirect=True)
@pytest.mark.parametrize("buffer_size", [0, 3])
def test_the_command_goes_on_with_a_run_of_real_nodes(mixed: Mixed, buffer_size: int) -> None:
    """As `polyfed deploy run --resume` does: its own plan has the labels and the time of the run."""
    whole = result(mixed.run("whole", **{"buffer-size": buffer_size}))
    folder = mixed.run("part", **{"buffer-size": buffer_size, "num-server-rounds": 1})
    config = {**mixed.config, "run-dir": str(folder), "buffer-size": buffer_size, "resume": True}

    def on_nodes(run_config: dict[str, Value], *_: Any, **__: Any) -> FlowerOutcome:
        grid, context = RealNodes(run_config, mixed.folder, 3), {"node_config": {}, "state": RecordDict()}
        server_app(grid, Context(run_id=1, node_id=0, run_config=run_config, **context))
        return FlowerOutcome("completed", 1, "")

    console = make_console(quiet=True)
    with launch(config, runtime="flower", verbose=False, console=console, on_flower=on_nodes) as ended:
        assert ended.status == "completed"
    assert result(folder)["weights_sha256"] == whole["weights_sha256"]


@pytest.mark.parametrize("mixed", ["images:scans", "conll:tagged"], indirect=True)
def test_a_node_may_host_several_clients_with_a_folder_each(mixed: Mixed) -> None:
    if str(mixed.config["dataset"]).startswith("images"):  # clients evaluate, and remember something
        mixed.config.update({"fraction-evaluate": 1.0, "local-test-fraction": 0.25, "keep-optimizer": True})
    expected = result(mixed.run("nodes"))["weights_sha256"]
    for node, clients in ((0, (0, 2)), (1, (1,))):
        (mixed.folder / f"host-{node}").mkdir()
        for client in clients:
            (mixed.folder / f"host-{node}" / f"client-{client}").symlink_to(mixed.folder / f"node-{client}")
    config = {**mixed.config, "run-dir": str(mixed.folder / "hosted")}
    grid = RealNodes(config, mixed.folder, 2)
    for node, clients in ((0, "0, 2"), (1, 1)):
        grid.contexts[node].node_config |= {
            "data-path": str(mixed.folder / f"host-{node}"),
            "clients": clients,
        }
    server_app(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config))
    assert result(mixed.folder / "hosted")["weights_sha256"] == expected
    lines = (mixed.folder / "hosted" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert {tuple(json.loads(line)["clients"]) for line in lines[1:]} == {(0, 1, 2)}


def pets(config: TaskConfig) -> Dataset:
    """Return pictures of two kinds, whose names stand in a folder's file."""
    names = tuple(Path(config.data_dir, "labels.txt").read_text(encoding="utf-8").split())
    half = Examples({"image": torch.zeros(4, 1, 8, 8), "label": torch.tensor([0, 1, 0, 1])})
    return Dataset("pets", "images", half, half, "label", names, info={"max_value": 1.0})


PETS = Source("images", pets)
"""Whose labels all machines must have alike."""


def test_clients_of_one_node_must_have_the_same_labels_where_none_are_agreed_on(tmp_path: Path) -> None:
    """Each of theirs has two, so that the model is the same, and what the numbers stand for is not."""
    for client, names in ((0, "cat dog"), (1, "dog eel")):
        (tmp_path / f"client-{client}").mkdir()
        (tmp_path / f"client-{client}" / "labels.txt").write_text(names, encoding="utf-8")
    node = NodeConfig.from_flower({"data-path": str(tmp_path), "clients": "0, 1"})
    config = TaskConfig(dataset="test_own_data:PETS")
    said = r"^the data of client 1 in .* has the labels dog, eel, and that of client 0 cat, dog: in dataset"
    with pytest.raises(UserError, match=said):
        worker_of(config, node)
    (tmp_path / "client-1" / "labels.txt").write_text("cat dog", encoding="utf-8")
    assert sorted(worker_of(config, node).apart) == [0, 1]


def test_clients_of_one_node_must_have_data_for_one_model(tmp_path: Path) -> None:
    for client, side in ((3, 8), (5, 6)):
        folder = tmp_path / f"client-{client}"
        folder.mkdir()
        np.savez(folder / "scans.npz", image=np.zeros((4, side, side), np.uint8), label=np.zeros(4, int))
    node = NodeConfig.from_flower({"data-path": str(tmp_path), "clients": "3, 5"})
    config = TaskConfig(dataset="npz:scans.npz")
    with pytest.raises(
        UserError, match=r"^the data of client 5 in .*client-5 makes another model than that of"
    ):
        worker_of(config, node)
    (tmp_path / "client-5" / "scans.npz").unlink()
    with pytest.raises(
        UserError, match=r"must name a file that numpy\.savez wrote, got .*client-5/scans\.npz"
    ):
        worker_of(config, node)
