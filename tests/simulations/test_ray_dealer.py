"""How clients are dealt to workers of Ray's: each of them is answered for once, whoever dies and when."""

import math
from collections.abc import Sequence

import pytest
from fake_ray import FakeRay, FakeWorkers
from ray.exceptions import RayTaskError

from simulations.runtime import ray_dealer, ray_workers
from simulations.runtime.portions import dealt
from strategies.wire.reply import NodeReply

CLIENTS = range(14)


def deal(
    monkeypatch: pytest.MonkeyPatch, ray: FakeRay, num_workers: int, patience: float = 1000.0
) -> NodeReply:
    monkeypatch.setattr(ray_dealer, "ray", ray)
    monkeypatch.setattr(ray_workers, "ray", ray)
    workers = FakeWorkers(ray, num_workers)
    dealer = ray_dealer.Dealer(workers, 1, None, "train", until=math.inf)
    return dealer.deal(dealt(CLIENTS, num_workers, None), patience)


@pytest.mark.parametrize("deadly", [[], [3], [3, 7]])
def test_every_client_is_in_the_sum_once_or_kills_its_workers(
    monkeypatch: pytest.MonkeyPatch, deadly: Sequence[int]
) -> None:
    """In whatever order answers are heard: a small one may come before a large one of the same worker."""
    for seed in range(150):
        whole = deal(monkeypatch, FakeRay(seed, deadly), num_workers=1 + seed % 3)
        fine = [client for client in CLIENTS if client not in deadly]
        assert sorted(each.client for each in whole.failures) == deadly, seed
        assert sorted(each.client for each in whole.replies) == fine, seed
        assert whole.total is not None
        assert whole.total.high.tolist() == [sum(2.0**client for client in fine)], seed


def test_clients_whose_sum_cannot_be_handed_over_have_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RayTaskError("hand_over", "Traceback: too large", MemoryError("too large"))
    whole = deal(monkeypatch, FakeRay(0, error=error), num_workers=2)
    assert whole.replies == []
    assert sorted(each.client for each in whole.failures) == list(CLIENTS)
    assert {each.error for each in whole.failures} == {"MemoryError: too large"}


def test_a_round_without_a_deadline_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = deal(monkeypatch, FakeRay(0), num_workers=2, patience=math.inf)
    assert len(whole.replies) == len(CLIENTS)
