"""Krum, Multi-Krum and Bulyan, in numbers that can be checked by hand; and what they cannot bear."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.exception import AggregationError
from flwr.serverapp.strategy.multikrum import compute_distances

from models.core.config import Value
from models.core.errors import UserError
from server.config import ServerConfig
from server.strategy import load_strategy
from simulations.runtime.in_process import run_in_process
from strategies.algorithms.bulyan import about_the_median, select
from strategies.algorithms.krum import krum_scores, squared_distances
from strategies.declaration import declaration_of
from strategies.wire.arrays import to_arrays, to_record
from strategies.wire.identity import let_messages_be_made

LATE = 5e-5
"""Size of an update late in training, where weights are of size 1."""


class Clients:
    """Clients by number, all connected."""

    def __init__(self, count: int) -> None:
        self.count = count

    def get_node_ids(self) -> list[int]:
        return list(range(self.count))


def make(name: str, options: str, num_clients: int) -> Any:
    config = ServerConfig(strategy=name, strategy_options=options)
    return load_strategy(config, num_clients)


def aggregate(strategy: Any, weight: np.ndarray, moved: Sequence[np.ndarray | None]) -> np.ndarray:
    """Let clients reply weights, the first of them with an enormous number of examples, or fail."""
    let_messages_be_made()
    grid: Any = Clients(len(moved))
    config = ConfigRecord({"server-round": 1})
    asked = {
        each.metadata.dst_node_id: each
        for each in strategy.configure_train(1, to_record({"w": weight}), config, grid)
    }
    replies = []
    for client, each in enumerate(moved):
        if each is None:
            replies.append(Message(Error(0), reply_to=asked[client]))
            continue
        metrics = MetricRecord({"num-examples": 1 if client else 10**9})
        content = RecordDict({"arrays": to_record({"w": each.astype(np.float32)}), "metrics": metrics})
        replies.append(Message(content, reply_to=asked[client]))
    arrays, _ = strategy.aggregate_train(1, replies)
    assert arrays is not None
    return to_arrays(arrays)["w"]


def late(*steps: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return weights of size 1 in float32, and those that clients reply after steps along one line."""
    weight = np.linspace(0.5, 1.5, 1000, dtype=np.float32)
    direction = np.where(np.arange(1000) % 2, 1.0, -1.0)
    return weight, [(weight + step * LATE * direction).astype(np.float32) for step in steps]


def test_distances_of_small_updates_are_exact() -> None:
    weight, moved = late(0, 1, 3)
    updates = [{"w": np.subtract(each, weight, dtype=np.float64)} for each in moved]
    found = squared_distances(updates)
    unit = 1000 * LATE**2
    # The weights themselves are rounded to float32, which is 1e-3 of such an update.
    expected = np.array([[np.inf, 1, 9], [1, np.inf, 4], [9, 4, np.inf]]) * unit
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    single = [{"w": each.astype(np.float64)} for each in moved]
    by_hand = [[np.square(a["w"] - b["w"]).sum() for b in single] for a in single]
    np.fill_diagonal(found, 0)
    np.testing.assert_allclose(found, by_hand, rtol=1e-9, atol=0)
    flowers = compute_distances([to_record({"w": each}) for each in moved])
    assert np.abs(flowers - by_hand).max() > 10 * unit  # of the weights, in float32: nothing but rounding


def test_an_enormous_update_spoils_no_distance_but_its_own() -> None:
    updates = [{"w": np.array([value])} for value in (1e-5, 2e-5, 1e30, np.nan, 1e200)]
    found = squared_distances(updates)
    assert found[0, 1] == pytest.approx(1e-10)
    assert np.isinf(found[:2, 3:]).all()
    assert found[0, 2] == pytest.approx(1e60)


def test_scores_count_the_closest_others() -> None:
    updates = [{"w": np.array([value])} for value in (0.0, 1.0, 3.0, 7.0, 20.0)]
    distances = squared_distances(updates)
    # Of five with one attacker, each counts its two closest.
    assert krum_scores(distances, 1).tolist() == [1 + 9, 1 + 4, 4 + 9, 16 + 36, 13**2 + 17**2]
    assert krum_scores(distances, 3).tolist() == [1, 1, 4, 16, 13**2]  # never fewer than one


@pytest.mark.parametrize(
    ("strategy", "options", "steps", "expected"),
    [
        # Two closest of the four others: 0: 1 + 4, 1: 1 + 1, 2: 1 + 4, 40, 41.
        ("Krum", "num_malicious_nodes = 1", (0, 1, 2, 40, 41), 1),
        # Of six, three closest: 0: 14, 1: 6, 2: 6, 3: 14. The two best, and no examples that anybody claims.
        (
            "MultiKrum",
            "num_malicious_nodes = 1, num_nodes_to_select = 2",
            (0, 1, 2, 3, 40, 41),
            1.5,
        ),
        # Five of seven are selected, one after another: 2, 1, 0, 3, 6. Three are closest to their median, 2.
        ("Bulyan", "num_malicious_nodes = 1", (0, 1, 2, 3, 6, 40, 42), 2),
    ],
)
def test_late_in_training_the_right_ones_are_selected(
    strategy: str, options: str, steps: tuple[float, ...], expected: float
) -> None:
    weight, moved = late(*steps)
    found = aggregate(make(strategy, options, len(steps)), weight, moved)
    _, (wanted,) = late(expected)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=LATE / 100)


def test_bulyan_selects_anew_among_those_that_are_left() -> None:
    distances = squared_distances([{"w": np.array([value])} for value in (0.0, 1.0, 2.1, 4.0, 8.0, 9.0, 9.5)])
    # Krum once would take the five of the lowest scores, which are those of the first five.
    once = np.argsort(krum_scores(distances, 1), kind="stable")[:5].tolist()
    again = select(distances, 1, 5)
    left = list(range(7))
    by_hand = []
    for _ in range(5):
        closest = max(1, len(left) - 3)
        scores = [sum(sorted(distances[i, j] for j in left if j != i)[:closest]) for i in left]
        by_hand.append(left.pop(scores.index(min(scores))))
    assert again == by_hand
    assert set(again) != set(once)


def test_the_mean_about_the_median_is_taken_entry_by_entry() -> None:
    values = np.array([[0.0, 10.0], [1.0, 9.0], [2.0, 0.0], [9.0, 8.0], [10.0, 1.0]])
    assert about_the_median(values, 3).tolist() == [1.0, 9.0]


def test_without_attackers_bulyan_is_the_plain_mean() -> None:
    weight, moved = late(0, 1, 2, 9)
    found = aggregate(make("Bulyan", "num_malicious_nodes = 0", 4), weight, moved)
    np.testing.assert_allclose(found, np.mean(np.float64(moved), axis=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        (
            "Krum",
            "num_malicious_nodes = 4",
            "num_malicious_nodes must be at most 3 for the 10 clients that a round asks, got 4, which",
        ),
        ("MultiKrum", "num_malicious_nodes = 4", "must be at most 3 for the 10 clients"),
        ("Bulyan", "num_malicious_nodes = 2", "must be at most 1 for the 10 clients .* takes 11 clients"),
        ("Krum", "num_malicious_nodes = -1", "num_malicious_nodes must be >= 0, got -1"),
        ("Krum", "", "strategy Krum needs the option 'num_malicious_nodes'"),
        ("Bulyan", "", "strategy Bulyan needs the option 'num_malicious_nodes'"),
        ("FedProx", "", "strategy FedProx needs the option 'proximal_mu'"),
        ("FedProx", "proximal_mu = -0.1", "proximal_mu must be >= 0 and finite, got -0.1"),
        ("FedAvgM", "", "strategy FedAvgM needs the option 'server_momentum'"),
    ],
)
def test_what_would_be_something_else_is_refused(strategy: str, options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_strategy(
            ServerConfig(strategy=strategy, strategy_options=options, clients_per_round=10), num_clients=50
        )


def test_as_many_as_can_be_borne_are_taken() -> None:
    for strategy, most in (("Krum", 3), ("MultiKrum", 3), ("Bulyan", 1)):
        loaded = make(strategy, f"num_malicious_nodes = {most}", 10)
        assert declaration_of(loaded).withstands == most


def test_a_trimmed_mean_that_trims_nobody_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "polyfed")
    assert declaration_of(make("FedTrimmedAvg", "", 10)).withstands == 2
    assert "cuts off" not in caplog.text
    make("FedTrimmedAvg", "", 4)
    assert "beta = 0.2 cuts off nobody of the 4 clients" in caplog.text


def test_fewer_answers_than_it_takes_are_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "polyfed")
    weight, moved = late(0, 1, 2, 40, 41)
    aggregate(make("Krum", "num_malicious_nodes = 1", 5), weight, [*moved[:4], None])
    assert "Round 1: 4 clients answered, and Krum bears 1 attackers among 5 or more only" in caplog.text
    with pytest.raises(AggregationError, match=r"2 clients answered, and Bulyan .* needs 5 at least"):
        aggregate(make("Bulyan", "num_malicious_nodes = 1", 7), weight, [*moved[:2], *[None] * 5])


def test_more_attackers_than_it_withstands_are_said_before_the_run(
    tiny: Callable[..., dict[str, Value]], tmp_path: Path
) -> None:
    attack = {"attack": "sign-flip", "attack_fraction": 0.5, "num_clients": 6, "clients_per_round": 5}
    krum = {"strategy": "Krum", "strategy_options": "num_malicious_nodes = 1", "examples_per_client": 8}
    run_in_process(tiny(num_server_rounds=1, **attack, **krum))
    said = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "Krum withstands 1 attackers a round, and up to 3 of its 5 clients attack" in said
