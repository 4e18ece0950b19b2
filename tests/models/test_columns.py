"""What a dataset of each kind must hold, and the line that says what is wrong with another."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.columns import check_dataset
from models.data.dataset import Dataset, Examples
from models.data.datasets import DATASETS, load_dataset
from models.data.kinds import KINDS
from models.data.source import Source

LABEL = torch.tensor([0, 1, 2, 0])


def images(**changes: Any) -> Dataset:
    rows = Examples({"image": torch.full((4, 3, 8, 8), 255, dtype=torch.uint8), "label": LABEL})
    whole = Dataset(
        "toy", "images", rows, rows, label="label", classes=("a", "b", "c"), info={"max_value": 255}
    )
    return replace(whole, **changes)


def boxed_images() -> Dataset:
    def rows(most: int) -> Examples:
        box = torch.tensor([1.0, 0.0, 8.0, 8.0]).expand(4, most, 4)
        columns = {"image": torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "box": box}
        return Examples({**columns, "class": torch.tensor([0, -1]).repeat(4, most)[:, :most]})

    return Dataset(
        "toy", "boxed-images", rows(2), rows(3), classes=("a",), info={"max_value": 255, "skipped": 0}
    )


def series() -> Dataset:
    n = torch.ones(4, dtype=torch.float64)
    columns = {"window": torch.ones(4, 30, dtype=torch.float64), "target": n, "scale": n, "time": n}
    rows = Examples({**columns, "series": torch.tensor([0, 0, 1, 1])})
    info = {"series": ("x", "y"), "unit": "", "dates": False}
    return Dataset("toy", "series", rows, rows, ordered=True, info=info)


def text() -> Dataset:
    rows = Examples({"text": torch.zeros(4, 129, dtype=torch.uint8)})
    return Dataset("toy", "text", rows, rows)


def sentences() -> Dataset:
    def rows(longest: int) -> Examples:
        word = torch.full((4, longest), -1)
        word[:, :2] = 0
        return Examples({"word": word, "tag": word.clone(), "length": torch.full((4,), 2)})

    return Dataset("toy", "tagged-sentences", rows(3), rows(5), info={"words": ("Paris",), "tags": ("O",)})


def pairs() -> Dataset:
    def rows(longest: int) -> Examples:
        return Examples({side: torch.ones(4, longest, dtype=torch.uint8) for side in ("source", "target")})

    return Dataset("toy", "parallel-text", rows(3), rows(5), info={"skipped": 0})


def turns() -> Dataset:
    made = pairs()
    return replace(made, kind="dialogue", info={"context_turns": 1, "max_bytes": 5, "known": 0})


def labelled_text() -> Dataset:
    def rows(longest: int) -> Examples:
        return Examples({"text": torch.full((4, longest), 65, dtype=torch.uint8), "label": torch.arange(4)})

    return Dataset("toy", "labelled-text", rows(3), rows(5), label="label", classes=("a", "b", "c", "d"))


def multimodal() -> Dataset:
    text, has = torch.full((4, 9), 65, dtype=torch.uint8), torch.ones(4, dtype=torch.uint8)
    columns = images().train.columns
    rows = Examples({**columns, "text": text, "has_image": has, "has_text": has.clone()})
    return Dataset(
        "toy", "multimodal", rows, rows, label="label", classes=("a", "b", "c"), info={"max_value": 255}
    )


def environments() -> Dataset:
    rows = Examples({"physics": torch.ones(4, 1, dtype=torch.float64)})
    sizes = {"observation_size": 4, "num_actions": 2, "first_action": 0}
    return Dataset("toy", "environments", rows, rows, info={"id": "X-v0", "physics": ("mass",), **sizes})


WHOLE: dict[str, Callable[[], Dataset]] = {
    "images": images,
    "boxed-images": boxed_images,
    "series": series,
    "text": text,
    "labelled-text": labelled_text,
    "tagged-sentences": sentences,
    "parallel-text": pairs,
    "dialogue": turns,
    "multimodal": multimodal,
    "environments": environments,
}


def changed(dataset: Dataset, half: str = "train", **columns: Tensor | None) -> Dataset:
    """Return the dataset with these columns in one half; None takes one out."""
    merged = {**getattr(dataset, half).columns, **columns}
    examples = Examples({name: column for name, column in merged.items() if column is not None})
    return replace(dataset, **{half: examples})


def refusal(dataset: Any, kind: str | None = None) -> str:
    with pytest.raises(UserError) as error:
        check_dataset("toy", kind or dataset.kind, dataset)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_whole_passes_and_each_column_and_entry_is_needed(kind: str) -> None:
    whole = WHOLE[kind]()
    check_dataset("toy", kind, whole)
    for column in KINDS[kind].columns:
        for half in ("train", "test"):
            if column.name == next(iter(whole.train.columns)) and len(whole.train.columns) == 1:
                continue  # without it there are no examples
            said = refusal(changed(whole, half, **{column.name: None}))
            assert said.startswith(f"dataset 'toy': {half} column {column.name!r} is missing: ")
    for entry in KINDS[kind].info:
        lacking = {name: value for name, value in whole.info.items() if name != entry.name}
        if entry.optional:
            check_dataset("toy", kind, replace(whole, info=lacking))
        else:
            said = refusal(replace(whole, info=lacking))
            assert said.startswith(f"dataset 'toy': info[{entry.name!r}] is missing: ")


@pytest.mark.parametrize("name", ["digits", "mnist-5k", "stocks", "sine", "pydoc", "pii", "gym:CartPole-v1"])
def test_built_in_datasets_are_what_their_kinds_promise(name: str) -> None:
    dataset = load_dataset(TaskConfig(dataset=name))  # it checks them
    assert KINDS[dataset.kind].columns[0].name in dataset.train.columns


IMAGE, NAN = torch.zeros(4, 3, 8, 8), torch.full((4, 3, 8, 8), float("nan"))
OF_TRAIN = "dataset 'toy': train "


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": LABEL[:, None]}, "column 'label' must be (N,), got (4, 1); use .squeeze(1)"),
        (
            {"label": torch.eye(4, dtype=torch.int64)},
            "column 'label' must be (N,), got (4, 4); use .argmax(1) if it is one-hot",
        ),
        ({"label": LABEL.float()}, "column 'label' must be int64, got float32; use .long()"),
        ({"label": LABEL.int()}, "column 'label' must be int64, got int32; use .long()"),
        ({"label": LABEL + 1}, "column 'label' must have values in 0 to 2 (classes), got 1 to 3"),
        ({"label": LABEL - 1}, "column 'label' must have values in 0 to 2 (classes), got -1 to 1"),
        (
            {"label": LABEL[:3]},
            "column 'label' must have a value for each of the 4 examples of 'image', got the shape (3,)",
        ),
        (
            {"label": torch.tensor(1)},
            "column 'label' must have a value for each of the 4 examples of 'image', got the shape ()",
        ),
        (
            {"image": IMAGE.permute(0, 2, 3, 1)},
            "column 'image' must be (N, C, H, W), got (4, 8, 8, 3), which looks like (N, H, W, C); "
            "use .permute(0, 3, 1, 2)",
        ),
        (
            {"image": IMAGE[:, 0]},
            "column 'image' must be (N, C, H, W), got (4, 8, 8), which looks like (N, H, W); "
            "use .unsqueeze(1)",
        ),
        ({"image": IMAGE.flatten(1)}, "column 'image' must be (N, C, H, W), got (4, 192)"),
        (
            {"image": IMAGE.bool()},
            "column 'image' must be uint8 or int16 or int32 or int64 or float16 or float32 or float64, "
            "got bool; use .to(torch.uint8)",
        ),
        ({"image": NAN}, "column 'image' must be finite, got nan to nan; leave such examples out"),
        ({"image": IMAGE - 1}, "column 'image' must have values in 0 to 255 (max_value), got -1 to -1"),
        ({"image": IMAGE + 256}, "column 'image' must have values in 0 to 255 (max_value), got 256 to 256"),
        (
            {"image": IMAGE.numpy()},
            "column 'image' must be a torch.Tensor, got numpy.ndarray; use torch.from_numpy",
        ),
        (
            {"image": IMAGE[:0], "label": LABEL[:0]},
            "must hold at least one example, got none: hold out fewer",
        ),
    ],
)
def test_images_that_are_refused(columns: dict[str, Any], message: str) -> None:
    assert refusal(changed(images(), **columns)).startswith(OF_TRAIN + message)


def test_held_out_images_are_of_the_size_of_the_others() -> None:
    said = refusal(changed(images(), "test", image=torch.zeros(4, 1, 8, 8)))
    assert said == "dataset 'toy': test column 'image' must be (N, C, H, W) with C = 3, got (4, 1, 8, 8)"
    none = Examples({name: column[:0] for name, column in images().test.columns.items()})
    assert refusal(images(test=none)).startswith(
        "dataset 'toy': test must hold at least one example, got none"
    )


def test_images_need_no_labels_unless_they_have_classes() -> None:
    check_dataset(
        "toy", "images", changed(changed(images(classes=(), label=None), label=None), "test", label=None)
    )
    many = torch.zeros(4, 12, 64, 64)  # satellites see more than three colours
    check_dataset("toy", "images", changed(changed(images(), image=many), "test", image=many))


@pytest.mark.parametrize("value", [0, -1, float("inf"), "255", True, None])
def test_white_is_a_positive_number(value: object) -> None:
    said = refusal(images(info={"max_value": value}))
    assert said == f"dataset 'toy': info['max_value'] must be a number > 0, got {value!r}"


@pytest.mark.parametrize(
    ("kind", "columns", "message"),
    [
        ("series", {"target": torch.ones(4, 1)}, "column 'target' must be (N,), got (4, 1); use .squeeze(1)"),
        ("series", {"scale": torch.zeros(4)}, "column 'scale' must have values > 0, got 0 to 0"),
        ("series", {"series": LABEL}, "column 'series' must have values in 0 to 1 (series), got 0 to 2"),
        (
            "series",
            {"window": torch.full((4, 30), torch.inf)},
            "column 'window' must be finite, got inf to inf",
        ),
        (
            "text",
            {"text": torch.zeros(4, 9)},
            "column 'text' must be uint8, got float32; use .to(torch.uint8)",
        ),
        (
            "tagged-sentences",
            {"word": torch.zeros(4, 3, dtype=torch.int64)},
            "column 'word' must be -1 from its sentence's 'length' on and nowhere before, got otherwise",
        ),
        (
            "tagged-sentences",
            {"tag": torch.full((4, 4), -1)},
            "column 'tag' must be (N, T) with T = 3, got (4, 4)",
        ),
        (
            "tagged-sentences",
            {"length": torch.full((4,), 4)},
            "column 'length' must have values in 1 to 3 (T), got 4 to 4",
        ),
    ],
)
def test_other_kinds_that_are_refused(kind: str, columns: dict[str, Tensor], message: str) -> None:
    assert refusal(changed(WHOLE[kind](), **columns)).startswith(OF_TRAIN + message)


@pytest.mark.parametrize(
    ("ordered", "group", "message"),
    [
        (False, np.arange(4.0), "group must be a NumPy array of a whole number for each of the 4 training"),
        (True, np.arange(4), "group must be None where ordered is true: the last examples are set apart"),
    ],
)
def test_groups_that_are_refused(ordered: bool, group: np.ndarray, message: str) -> None:
    whole = WHOLE["tagged-sentences"]()
    assert message in refusal(replace(whole, ordered=ordered, group=group))


def test_physics_are_named() -> None:
    said = refusal(replace(environments(), info={**environments().info, "physics": ("mass", "length")}))
    assert said == "dataset 'toy': info['physics'] must name each of the 1 columns of 'physics'"


@pytest.mark.parametrize(
    ("client", "names", "message"),
    [
        (
            np.arange(3),
            (),
            "client must be a NumPy array of a whole number for each of the 4 training examples",
        ),
        (
            np.arange(4.0),
            (),
            "client must be a NumPy array of a whole number for each of the 4 training examples",
        ),
        (
            torch.arange(4),
            (),
            "client must be a NumPy array of a whole number for each of the 4 training examples",
        ),
        (
            np.array([-1, 0, 1, 2]),
            (),
            "clients must be numbered 0 to n - 1, each with a training example, got -1 to",
        ),
        (
            np.array([1, 2, 3, 4]),
            (),
            "clients must be numbered 0 to n - 1, each with a training example, got 1 to 4",
        ),
        (
            np.array([0, 0, 2, 2]),
            (),
            "clients must be numbered 0 to n - 1, each with a training example, got some of 0 to 2",
        ),
        (np.array([0, 0, 1, 1]), ("a",), "client_names must name each of the 2 clients, got 1 names"),
        (
            np.array([0, 0, 1, 1]),
            ("a", "b\udcff"),
            r"client_names must be of printable characters, got 'b\udcff'; rename it",
        ),
    ],
)
def test_natural_clients_that_are_refused(client: Any, names: tuple[str, ...], message: str) -> None:
    assert refusal(images(client=client, client_names=names)).startswith(f"dataset 'toy': {message}")


def test_of_a_kind_of_its_own_only_what_all_share_is_checked() -> None:
    rows = Examples({"x": torch.full((2, 9), torch.nan), "y": torch.tensor([[0.5], [1.5]])})
    table = Dataset("toy", "table", rows, rows)
    check_dataset("toy", "table", table)
    said = refusal(replace(table, label="y"))
    assert said == "dataset 'toy': classes must name the classes of its label 'y', got none"
    table = replace(table, classes=("a", "b"))
    said = refusal(replace(table, label="y"))
    assert said == "dataset 'toy': train column 'y' must be (N,), got (2, 1); use .squeeze(1)"
    assert refusal(replace(table, label="z")).startswith(
        "dataset 'toy': train column 'z' is missing: class, (N,)"
    )
    assert refusal(changed(table, y=torch.ones(3))).startswith(
        "dataset 'toy': train column 'y' must have a value"
    )
    assert refusal(table, "tables") == "dataset 'toy' must be of its source's kind 'tables', got 'table'"
    assert refusal(3, "table") == "dataset 'toy' must be loaded as a models.Dataset, got int"
    assert (
        refusal(replace(table, train=rows.columns))
        == "dataset 'toy': train must be models.Examples, got dict"
    )


def test_what_is_loaded_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = changed(images(), label=LABEL[:, None])
    monkeypatch.setitem(DATASETS, "mine", Source("images", lambda config: wrong))
    with pytest.raises(
        UserError, match=r"^dataset 'mine': train column 'label' must be \(N,\), got \(4, 1\)"
    ):
        load_dataset(TaskConfig(dataset="mine"))
