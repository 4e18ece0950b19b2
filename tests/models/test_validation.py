"""Validation examples: which training rows are set apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples, Rows
from models.data.datasets import load_dataset
from models.data.fingerprint import data_sha256
from models.data.parallel_text import Pair, dataset_of
from models.data.turns import Conversation, Window, dialogues, rows_of
from models.data.validation import with_validation
from simulations.report.page import write_report
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


def dataset(num: int, *, label: list[int] | None = None, client: list[int] | None = None) -> Dataset:
    """Return rows 0 to num - 1, each with its own number."""
    columns = {"row": torch.arange(num)}
    if label is not None:
        columns["label"] = torch.tensor(label)
    return Dataset(
        "toy",
        "toys",
        Examples(columns),
        Examples({name: column[:1] for name, column in columns.items()}),
        label=None if label is None else "label",
        classes=() if label is None else tuple(map(str, range(max(label) + 1))),
        client=None if client is None else np.array(client, dtype=np.int64),
    )


def parts(split: Dataset) -> tuple[list[int], list[int]]:
    """Return the rows that are trained on, and those for validation."""
    assert split.validation is not None
    return split.train["row"].tolist(), split.validation["row"].tolist()


def test_every_class_is_held_out_in_proportion() -> None:
    label = [0] * 60 + [1] * 30 + [2] * 10
    split = with_validation(dataset(100, label=label), 0.1)
    train, held_out = parts(split)
    assert sorted(train + held_out) == list(range(100))
    assert train == sorted(train)
    assert held_out == sorted(held_out)
    assert np.bincount(np.array(label)[held_out]).tolist() == [6, 3, 1]


def test_every_client_is_held_out_in_proportion_and_keeps_its_number() -> None:
    client = [0] * 50 + [1] * 30 + [2] * 20
    split = with_validation(dataset(100, client=client), 0.2)
    train, held_out = parts(split)
    assert np.bincount(np.array(client)[held_out]).tolist() == [10, 6, 4]
    assert split.client is not None
    assert split.client.tolist() == [client[row] for row in train]


def test_a_client_and_a_class_keep_an_example() -> None:
    split = with_validation(dataset(6, label=[0, 0, 0, 0, 0, 1], client=[0, 1, 1, 1, 1, 1]), 0.9)
    train, _ = parts(split)
    assert split.client is not None
    assert set(split.client.tolist()) == {0, 1}
    assert set(split.train["label"].tolist()) == {0, 1}
    assert len(train) == 2


def test_a_group_is_set_apart_as_a_whole() -> None:
    """Ten groups of three, of which a fifth are two."""
    group = [row // 3 for row in range(30)]
    told = Dataset(**{**vars(dataset(30)), "group": np.array(group)})
    split = with_validation(told, 0.2)
    train, held_out = parts(split)
    assert len(held_out) == 6
    assert not {group[row] for row in train} & {group[row] for row in held_out}
    assert split.group is not None
    assert split.group.tolist() == [group[row] for row in train]


def test_groups_of_unequal_size_come_near_the_fraction_of_rows() -> None:
    """One of 900 rows is far from a tenth of 1,000; those of one to nineteen rows are not all small."""
    sizes = [900, *range(1, 20)]
    group = np.repeat(np.arange(20), sizes)
    told = Dataset(**{**vars(dataset(len(group))), "group": group})
    held_out = np.unique(group[parts(with_validation(told, 0.1))[1]])
    assert 0 not in held_out
    assert abs(sum(sizes[each] for each in held_out) - 109) <= 10
    assert max(sizes[each] for each in held_out) > 10


def test_turns_of_a_dialogue_and_translations_of_a_source_are_groups() -> None:
    """Two dialogues that end and begin alike are two; one is one though a turn of it is left out."""
    said = [Conversation(["bye", "1", "bye"], "x"), Conversation(["bye", "long" * 9, "2", "3", "bye"], "x")]
    told, left_out = rows_of(said, Window(2, 20))
    talks = dialogues("toy", told, told, Window(2, 20), natural=True)
    assert talks.group is not None
    assert (talks.group.tolist(), left_out) == ([0, 0, 1, 1], 2)
    words = dataset_of("toy", [Pair("one", "eins"), Pair("two", "zwei"), Pair("one", "ein")], [])
    assert words.group is not None
    assert words.group.tolist() == [0, 1, 0]


def test_too_few_examples_leave_none_for_validation() -> None:
    natural = dataset(4, client=[0, 1, 2, 3])
    assert with_validation(natural, 0.5) is natural
    few = dataset(3)
    assert with_validation(few, 0.1) is few


def test_a_run_says_that_nothing_could_be_set_apart(tiny: Make, tmp_path: Path) -> None:
    few = tiny(validation_fraction=0.0001, num_server_rounds=1, evaluate_every=0)
    run_in_process(few)
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "Dataset digits has too few examples to set any apart for validation: the test examples" in log
    report = write_report([tmp_path / "run"]).read_text(encoding="utf-8")
    assert "There were too few examples to set any apart for validation" in report


def test_of_what_is_ordered_the_last_of_each_client_are_held_out() -> None:
    told = dataset(25, client=[0] * 10 + [1] * 10 + [2] * 5)
    split = with_validation(Dataset(**{**vars(told), "ordered": True}), 0.2)
    assert parts(split)[1] == [8, 9, 18, 19, 24]


def test_of_many_short_sequences_some_are_held_out() -> None:
    """A tenth of each, by itself, would be none of four."""
    split = with_validation(
        Dataset(**{**vars(dataset(40, client=[row // 4 for row in range(40)])), "ordered": True}), 0.1
    )
    _, held_out = parts(split)
    assert len(held_out) == 4
    assert all(row % 4 == 3 for row in held_out)
    assert max(held_out) >= 20  # not those of the first clients alone
    assert split.client is not None
    assert set(split.client.tolist()) == set(range(10))


def test_series_of_one_row_keep_it_and_another_gives_more() -> None:
    client = [0, 1, 2, *[3] * 17]
    split = with_validation(Dataset(**{**vars(dataset(20, client=client)), "ordered": True}), 0.5)
    assert parts(split)[1] == [*range(11, 20)]


def test_of_several_series_of_a_client_each_is_held_out_at_its_end(tmp_path: Path) -> None:
    stocks = load_dataset(TaskConfig(task="lstm-forecast", dataset="stocks", validation_fraction=0.1))
    assert stocks.validation is not None
    for series in range(5):
        before = stocks.train["time"][stocks.train["series"] == series]
        after = stocks.validation["time"][stocks.validation["series"] == series]
        test = stocks.test["time"][stocks.test["series"] == series]
        assert before.max() < after.min()
        assert after.max() < test.min()
        assert abs(len(after) - 0.1 * (len(before) + len(after))) <= 1  # rounded over all series together


def test_the_same_rows_whatever_the_seed() -> None:
    one, other = (load_dataset(TaskConfig(dataset="digits", seed=seed)) for seed in (1, 2))
    assert one.validation is not None
    assert other.validation is not None
    assert torch.equal(one.validation["image"], other.validation["image"])
    assert len(one.validation) == 144
    assert len(one.train) == 1293


def test_none_where_none_are_asked_for() -> None:
    whole = load_dataset(TaskConfig(dataset="digits", validation_fraction=0.0))
    assert whole.validation is None
    assert len(whole.train) == 1437
    worlds = TaskConfig(task="dqn", dataset="gym:CartPole-v1", num_clients=2)
    assert load_dataset(worlds.model_copy(update={"validation_fraction": 0.0})).validation is None
    with_worlds = load_dataset(worlds)
    assert with_worlds.validation is not None
    assert (len(with_worlds.train), len(with_worlds.validation), len(with_worlds.test)) == (8, 20, 20)


def test_nothing_is_copied_to_set_rows_apart() -> None:
    digits = load_dataset(TaskConfig(dataset="digits"))
    columns = digits.train.columns
    assert isinstance(columns, Rows)
    assert digits.train.shape("image") == (1293, 1, 8, 8)
    assert data_sha256(digits)
    assert "image" not in columns._copied


def test_the_hash_of_the_data_tells_how_much_is_set_apart() -> None:
    hashes = {
        data_sha256(load_dataset(TaskConfig(dataset="digits", validation_fraction=fraction)))
        for fraction in (0.0, 0.1, 0.2)
    }
    assert len(hashes) == 3


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=r"validation-fraction must be .*, got"):
        TaskConfig(validation_fraction=fraction)
