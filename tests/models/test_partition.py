"""Who holds which rows: exact where chance has no say, properties of the distributions elsewhere."""

import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.core.config import PARTITIONERS, TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.partition import count_labels, make_partition, split_local_test
from models.data.partitioners import DEALS, DRAWS, without_empty
from models.data.picture import partition_figure


def labelled(per_class: int, num_classes: int) -> Dataset:
    """Rows 0, 1, 2 ... of classes 0, 1, ..., K - 1, 0, 1 ...; three natural clients hold 1/2, 1/4 and 1/4."""
    rows = per_class * num_classes
    label = torch.arange(rows) % num_classes
    examples = Examples({"image": torch.zeros(rows, 1, 2, 2, dtype=torch.uint8), "label": label})
    client = np.array([0, 1, 0, 2])[np.arange(rows) % 4]
    classes = tuple(str(number) for number in range(num_classes))
    return Dataset("toy", "images", examples, examples, label="label", classes=classes, client=client)


TOY = labelled(per_class=120, num_classes=10)
PLAIN = replace(TOY, label=None, classes=(), client=None)


def clients_of(name: str, rows: int, **options) -> TaskConfig:
    clients = 3 if name == "natural" else 20
    return TaskConfig(**{"partitioner": name, "num_clients": clients, "examples_per_client": rows, **options})


def mean_entropy(config: TaskConfig, dataset: Dataset = TOY) -> float:
    """The mean over clients of the entropy of their classes, in nats; ln 10 = 2.3 is an even mix."""
    counts = np.array(count_labels(dataset, make_partition(dataset, config), range(config.num_clients)))
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(-(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1).mean())


@pytest.mark.parametrize("name", PARTITIONERS)
def test_dealt_rows_are_disjoint_complete_ascending_and_repeatable(name):
    config = clients_of(name, 0)
    first, second = make_partition(TOY, config), make_partition(TOY, config)
    assert len(first) == config.num_clients
    held = [first[client] for client in range(len(first))]
    assert np.sort(np.concatenate(held)).tolist() == list(range(1200))
    assert all(len(rows) and rows.dtype == np.int64 and (np.diff(rows) > 0).all() for rows in held)
    assert all(np.array_equal(rows, second[client]) for client, rows in enumerate(held))


@pytest.mark.parametrize("name", PARTITIONERS)
def test_drawn_rows_depend_on_the_seed_and_the_client_alone(name):
    config = clients_of(name, 24)
    first = make_partition(TOY, config)
    second = make_partition(TOY, config)
    backwards = {client: second[client] for client in reversed(range(len(second)))}
    for client, rows in enumerate(first):
        assert np.array_equal(rows, backwards[client])
        assert rows.dtype == np.int64
        assert name == "quantity" or len(rows) == 24
        assert len(np.unique(rows)) == len(rows)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], make_partition(TOY, config.model_copy(update={"seed": 43}))[0])


@pytest.mark.parametrize("name", PARTITIONERS)
def test_more_rows_than_there_are_repeat(name):
    rows = make_partition(TOY, clients_of(name, 5000, alpha=1e6))[1]
    assert len(rows) == pytest.approx(5000, rel=0.01)
    assert 0 <= rows.min() < rows.max() < 1200


@pytest.mark.parametrize("name", ["iid", "dirichlet", "shards", "quantity"])
def test_a_million_drawn_clients_cost_as_little_as_a_thousand(name):
    def peak(num_clients: int) -> int:
        tracemalloc.start()
        held = make_partition(TOY, clients_of(name, 24, num_clients=num_clients))
        assert len(held[num_clients - 1])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(1000)
    assert peak(1_000_000) < 1.2 * peak(1000)


def test_drawn_rows_of_a_client_are_the_same_among_more_clients():
    few, many = (make_partition(TOY, clients_of("dirichlet", 24, num_clients=n)) for n in (20, 1_000_000))
    assert np.array_equal(few[19], many[19])


def test_index_out_of_range():
    held = make_partition(TOY, clients_of("iid", 0))
    with pytest.raises(IndexError):
        held[20]
    assert np.array_equal(held[-1], held[19])


def test_partition_travels_between_processes():
    for rows in (0, 24):
        held = make_partition(TOY, clients_of("dirichlet", rows))
        assert np.array_equal(pickle.loads(pickle.dumps(held))[3], held[3])


def test_one_client_holds_every_row_in_order():
    for name in ("iid", "dirichlet", "shards", "quantity"):
        assert make_partition(TOY, clients_of(name, 0, num_clients=1))[0].tolist() == list(range(1200))


def test_iid_sizes_differ_by_one_at_most():
    held = make_partition(TOY, clients_of("iid", 0, num_clients=7))
    assert sorted(len(rows) for rows in held) == [171, 171, 171, 171, 172, 172, 172]


@pytest.mark.parametrize("rows", [0, 60])
def test_dirichlet_is_more_skewed_as_alpha_falls(rows):
    even, middle, skewed = (mean_entropy(clients_of("dirichlet", rows, alpha=a)) for a in (1e4, 0.5, 0.01))
    assert even > 2.1 > middle > 1.0 > skewed


def test_dirichlet_skews_alike_dealt_and_drawn():
    data = labelled(per_class=2000, num_classes=10)
    for alpha in (0.1, 1.0):
        dealt, drawn = (
            mean_entropy(clients_of("dirichlet", rows, alpha=alpha, num_clients=100), data)
            for rows in (0, 200)
        )
        assert dealt == pytest.approx(drawn, abs=0.15)


def test_dirichlet_without_skew_deals_every_class_evenly():
    counts = count_labels(TOY, make_partition(TOY, clients_of("dirichlet", 0, alpha=1e9)), range(20))
    assert counts == [[6] * 10] * 20


def test_dirichlet_draws_classes_as_often_as_the_data_has_them():
    label = torch.tensor([0] * 900 + [2] * 100)  # no row of class 1
    data = replace(TOY, train=Examples({"label": label}), classes=("a", "b", "c"))
    held = make_partition(data, clients_of("dirichlet", 50, num_clients=2000, alpha=1.0))
    totals = np.sum(count_labels(data, held, range(2000)), axis=0)
    assert totals[1] == 0
    assert totals[2] / totals.sum() == pytest.approx(0.1, abs=0.02)


def test_dealt_shards_are_each_of_one_class_where_they_divide_it():
    config = clients_of("shards", 0, num_clients=20, shards_per_client=2)  # 40 shards of 30 rows, 4 a class
    counts = np.array(count_labels(TOY, make_partition(TOY, config), range(20)))
    assert set(np.unique(counts)) <= {0, 30, 60}
    assert counts.sum(axis=1).tolist() == [60] * 20


def test_drawn_shards_are_each_of_one_class_where_they_divide_it():
    config = clients_of("shards", 60, num_clients=500, shards_per_client=2)
    counts = np.array(count_labels(TOY, make_partition(TOY, config), range(500)))
    assert set(np.unique(counts)) == {0, 30, 60}
    assert (counts > 0).any(axis=0).all()


@pytest.mark.parametrize(("rows", "shards"), [(1200, 7), (1, 3), (10, 2000), (599, 2), (1199, 1)])
def test_drawn_shards_hold_enough_rows_however_they_divide(rows, shards):
    held = make_partition(TOY, clients_of("shards", rows, shards_per_client=shards))[5]
    assert len(np.unique(held)) == rows


def test_quantity_skews_sizes_and_not_labels():
    def spread(alpha: float, rows: int) -> float:
        sizes = np.array(
            [len(held) for held in make_partition(TOY, clients_of("quantity", rows, alpha=alpha))]
        )
        return float(sizes.std() / sizes.mean())

    assert [len(rows) for rows in make_partition(TOY, clients_of("quantity", 0, alpha=1e9))] == [60] * 20
    for rows in (0, 60):
        assert spread(0.1, rows) > 1 > spread(1e6, rows) * 50


def test_drawn_quantity_keeps_the_mean_and_at_least_a_row():
    held = make_partition(TOY, clients_of("quantity", 60, alpha=0.5, num_clients=5000))
    sizes = np.array([len(rows) for rows in held])
    assert sizes.mean() == pytest.approx(60, rel=0.05)
    assert sizes.std() == pytest.approx(60 / 0.5**0.5, rel=0.1)  # of a Gamma: mean / sqrt(alpha)
    assert sizes.min() == 1


def test_natural_clients_keep_their_rows():
    held = make_partition(TOY, clients_of("natural", 0))
    assert [rows[:3].tolist() for rows in held] == [[0, 2, 4], [1, 5, 9], [3, 7, 11]]
    drawn = make_partition(TOY, clients_of("natural", 24))
    assert all(np.isin(drawn[client], held[client]).all() for client in range(3))


def test_empty_clients_take_from_the_largest_one_by_one():
    # Sizes 5, 4, 0, 0, 0: the largest gives, then the lower of two equals, then what is largest again.
    owners = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    assert without_empty(owners, 5).tolist() == [0, 0, 0, 3, 2, 1, 1, 1, 4]
    assert without_empty(owners, 2).tolist() == owners.tolist()


def test_as_many_clients_as_rows_hold_one_each():
    for name in ("iid", "dirichlet", "shards", "quantity"):
        config = clients_of(name, 0, num_clients=1200, alpha=0.01, shards_per_client=1)
        assert [len(rows) for rows in make_partition(TOY, config)] == [1] * 1200


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (
            TOY,
            {"num_clients": 1201},
            "num-clients must be <= 1200, .* 'toy', got 1201; set examples-per-client",
        ),
        (
            TOY,
            {"partitioner": "shards", "num_clients": 400, "shards_per_client": 4},
            "num-clients times shards-per-client must be <= 1200, .* got 1600",
        ),
        (
            PLAIN,
            {"partitioner": "dirichlet"},
            "'dirichlet' needs labels, .* set partitioner to iid or quantity$",
        ),
        (PLAIN, {"partitioner": "shards"}, "'shards' needs labels, which dataset 'toy' has not"),
        (
            replace(TOY, client=None),
            {"partitioner": "natural"},
            "needs clients of its own, .* set partitioner to iid or quantity or dirichlet or shards$",
        ),
        (TOY, {"partitioner": "natural", "num_clients": 4}, "num-clients must be 3, .* 'toy', got 4"),
    ],
)
@pytest.mark.parametrize("rows", [0, 24])
def test_mistakes(dataset, options, message, rows):
    config = TaskConfig(**{"examples_per_client": rows, **options})
    if rows and "<=" in message:
        assert len(make_partition(dataset, config)[0]) == rows  # shared rows are never too few
    else:
        with pytest.raises(UserError, match=message):
            make_partition(dataset, config)


def test_every_partitioner_of_the_config_is_there():
    assert set(DRAWS) == set(PARTITIONERS)
    assert set(DEALS) == set(PARTITIONERS) - {"natural"}


def test_split_local_test_holds_out_a_fraction():
    indices = np.arange(100, 150)
    train, test = split_local_test(indices, 0.2, seed=42, client=3)
    assert (len(train), len(test)) == (40, 10)
    assert sorted([*train, *test]) == indices.tolist()
    again = split_local_test(indices, 0.2, seed=42, client=3)[1]
    assert np.array_equal(test, again)
    assert not np.array_equal(test, split_local_test(indices, 0.2, seed=42, client=4)[1])
    assert not np.array_equal(test, split_local_test(indices, 0.2, seed=43, client=3)[1])


def test_split_local_test_edges():
    train, test = split_local_test(np.arange(5), 0.0, seed=1, client=0)
    assert (train.tolist(), test.tolist()) == ([0, 1, 2, 3, 4], [])
    train, test = split_local_test(np.array([7]), 0.99, seed=1, client=0)
    assert (train.tolist(), test.tolist()) == ([7], [])
    train, test = split_local_test(np.array([1, 2]), 0.99, seed=1, client=0)
    assert (len(train), len(test)) == (1, 1)


def test_split_local_test_of_ordered_rows_holds_out_the_last():
    indices = np.array([3, 5, 5, 7, 8, 8, 9])
    train, test = split_local_test(indices, 0.4, seed=1, client=0, ordered=True)
    assert (train.tolist(), test.tolist()) == ([3, 5, 5, 7], [8, 8, 9])
    train, test = split_local_test(indices, 0.0, seed=1, client=0, ordered=True)
    assert (train.tolist(), test.tolist()) == (indices.tolist(), [])


def test_split_local_test_keeps_a_repeated_row_on_one_side():
    indices = np.repeat(np.arange(10), 5)
    train, test = split_local_test(indices, 0.3, seed=1, client=0)
    assert (len(train), len(test)) == (35, 15)
    assert not set(train) & set(test)


def test_count_labels_counts_the_clients_asked_for():
    held = make_partition(TOY, clients_of("natural", 0))
    # Rows 0, 4, 8 ... and 2, 6, 10 ... are of even classes, 60 rows each and client 0's.
    assert count_labels(TOY, held, [2, 0]) == [[0, 60] * 5, [120, 0] * 5]
    assert count_labels(replace(PLAIN, client=TOY.client), held, [2, 0]) == [[300], [600]]


def test_picture_shows_every_count(tmp_path):
    counts = [[3, 0], [1, 2500]]
    figure = partition_figure(counts, ["cat", "dog"], num_clients=2)
    bars, grid = figure.axes
    assert [bar.get_height() for bar in bars.patches] == [3, 2501]
    assert {(t.get_position(), t.get_text()) for t in grid.texts} == {
        ((0, 0), "3"),
        ((1, 0), "1"),
        ((1, 1), "2,500"),
    }
    assert [label.get_text() for label in grid.get_yticklabels()] == ["cat", "dog"]
    figure.savefig(tmp_path / "partition.svg")


@pytest.mark.parametrize(("clients", "num_classes"), [(1, 10), (100, 10), (40, 100), (100, 0), (1, 0)])
def test_picture_of_any_size_draws(tmp_path, clients, num_classes):
    counts = np.arange(clients * max(num_classes, 1)).reshape(clients, -1)
    classes = [str(number) for number in range(num_classes)]
    figure = partition_figure(counts.tolist(), classes, num_clients=1_000_000)
    assert figure.get_suptitle().endswith(f"first {clients} of 1,000,000 clients")
    assert [bar.get_height() for bar in figure.axes[0].patches] == counts.sum(axis=1).tolist()
    if classes:
        cells = figure.axes[1].collections[0].get_array()
        assert cells.filled(0).tolist() == counts.T.tolist()
    figure.savefig(tmp_path / "partition.svg")
