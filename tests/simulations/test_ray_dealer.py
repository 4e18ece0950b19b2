"""How clients are dealt to workers of Ray's: each is answered for once, whoever dies, hangs and when."""

import math
from collections.abc import Iterable, Sequence

import pytest
from fake_ray import DIES, FINE, FakeRay, FakeWorkers, cannot, put_in_place
from ray.exceptions import RayTaskError

from simulations.runtime.portions import Portion, dealt
from simulations.runtime.ray_dealer import Dealer
from strategies.wire.node import NodeError
from strategies.wire.reply import NodeReply

CLIENTS = range(14)
ALONE = [(client,) for client in CLIENTS]


def deal(
    monkeypatch: pytest.MonkeyPatch,
    ray: FakeRay,
    num_workers: int = 2,
    portions: Sequence[Portion] | None = None,
    *,
    patience: float = 1000.0,
    client_seconds: float = math.inf,
    together: bool = False,
) -> tuple[NodeReply, list[Portion]]:
    """Return what the clients reply, and what was done and lost."""
    put_in_place(monkeypatch, ray)
    workers = FakeWorkers(ray, num_workers)
    dealer = Dealer(workers, 1, None, "train", math.inf, client_seconds, together)
    dealer.deal(portions or dealt(CLIENTS, num_workers, None), patience)
    return NodeReply.merged(dealer.parts), dealer.undone


def check(whole: NodeReply, fine: Iterable[int], failed: Iterable[int] = ()) -> None:
    """Check that these clients are in the sum, each of them once."""
    fine = sorted(fine)
    assert sorted(each.client for each in whole.failures) == sorted(failed)
    assert sorted(each.client for each in whole.replies) == fine
    assert whole.total is not None
    assert whole.total.high.tolist() == [sum(2.0**client for client in fine)]


def others(*clients: int) -> list[int]:
    return [client for client in CLIENTS if client not in clients]


@pytest.mark.parametrize("deadly", [[], [3], [3, 7]])
def test_every_client_is_in_the_sum_once_or_kills_its_workers(
    monkeypatch: pytest.MonkeyPatch, deadly: Sequence[int]
) -> None:
    """In whatever order answers are heard: a small one may come before a large one of the same worker."""
    for seed in range(150):
        ray = FakeRay(seed, deadly=[*deadly, *deadly])
        check(deal(monkeypatch, ray, 1 + seed % 3)[0], others(*deadly), deadly)


def test_no_worker_is_given_two_portions_while_another_one_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As two stacks of 50 clients on two workers: the round takes twice as long where one does both."""
    for seed in range(20):
        ray = FakeRay(seed)
        put_in_place(monkeypatch, ray)
        workers = FakeWorkers(ray, 3)
        workers.describe(math.inf)  # so that all of them have begun
        portions = [(0, 1, 2), (3, 4), (5, 6, 7), (8,)]
        Dealer(workers, 1, None, "train", math.inf).deal(portions, math.inf)
        given = [actor.given for actor in ray.actors]
        assert [each[0] for each in given] == portions[:3]
        assert sorted(map(len, given)) == [1, 1, 2]


def test_clients_whose_sum_cannot_be_handed_over_have_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RayTaskError("hand_over", "Traceback: too large", MemoryError("too large"))
    whole, _ = deal(monkeypatch, FakeRay(0, error=error))
    assert whole.replies == []
    assert sorted(each.client for each in whole.failures) == list(CLIENTS)
    assert {each.error for each in whole.failures} == {"MemoryError: too large"}


def test_a_round_without_a_deadline_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    check(deal(monkeypatch, FakeRay(0), patience=math.inf)[0], CLIENTS)


def test_a_client_that_hangs_once_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(100):
        ray = FakeRay(seed, hanging=[3, 7])
        check(deal(monkeypatch, ray, 1 + seed % 3, ALONE, client_seconds=5.0)[0], CLIENTS)
        assert 5.0 <= ray.now <= 10.0  # and nobody was waited for longer than that


def test_a_client_that_hangs_twice_has_failed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(100):
        ray = FakeRay(seed, hanging=[3, 3, 3])
        whole, _ = deal(monkeypatch, ray, 1 + seed % 3, ALONE, client_seconds=5.0)
        check(whole, others(3), [3])
        assert whole.failures[0].error == "LateError: not done within 5 s (client-timeout), in 2 tries"
        assert ray.now == 10.0


def test_a_client_that_kills_a_worker_and_then_hangs_has_had_its_two_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, _ = deal(monkeypatch, FakeRay(0, deadly=[3], hanging=[3]), 2, ALONE, client_seconds=5.0)
    check(whole, others(3), [3])


def test_an_answer_that_is_there_is_heard_before_its_worker_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client 3 hangs until its time is up; all others have answered by then, and nobody looked."""
    for seed in range(50):
        ray = FakeRay(seed, hanging=[3])
        deal(monkeypatch, ray, 3, ALONE, client_seconds=5.0)
        assert len(ray.actors) == 4


def test_a_stack_is_done_again_as_it_was_and_then_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = [tuple(CLIENTS)[:7], tuple(CLIENTS)[7:]]
    once = FakeRay(0, hanging=[3])
    check(deal(monkeypatch, once, 2, stacks, client_seconds=5.0, together=True)[0], CLIENTS)
    assert (set(once.asked), once.asked.count(stacks[0])) == (set(stacks), 2)
    assert once.now == 35.0  # seven clients have seven times as long
    for fault in ("hanging", "deadly"):
        ray = FakeRay(0, **{fault: [3, 3, 3]})
        whole, _ = deal(monkeypatch, ray, 2, stacks, client_seconds=5.0, together=True)
        check(whole, others(3), [3])
        assert (set(ray.asked), ray.asked.count(stacks[0])) == ({*stacks, *ALONE[:7]}, 2)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_what_was_done_is_no_failure_of_those_who_lose_it(
    monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    """Client 3 hangs until nobody waits any more; client 13 is dealt last."""
    for seed in range(100):
        ray = FakeRay(seed, hanging=[3])
        whole, undone = deal(monkeypatch, ray, num_workers, ALONE, patience=100.0)
        failed = {each.client: each.error for each in whole.failures}
        assert failed[3] == "its worker did not answer within 100 s (round-timeout + round-grace)"
        waited = "its turn did not come within 100 s (round-timeout + round-grace)"
        assert {failed[client] for client in failed if client != 3} <= {waited}
        lost = [client for portion in undone for client in portion]
        assert sorted([*failed, *lost, *(each.client for each in whole.replies)]) == list(CLIENTS)
        if num_workers == 1:
            assert failed.keys() == {3, *range(4, 14)}
            assert sorted(lost) == [0, 1, 2]
        assert len(ray.actors) == num_workers + 1


def test_workers_that_die_before_they_have_begun_are_replaced_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(deal(monkeypatch, FakeRay(0, deadly=[3], says=[FINE, DIES, DIES]), 1)[0], CLIENTS)
    said = "^a worker could not begin, 3 times in a row: it died or was killed: "
    with pytest.raises(NodeError, match=said):
        deal(monkeypatch, FakeRay(0, deadly=[3], says=[FINE, DIES, DIES, DIES]), 1)


def test_the_round_goes_on_with_the_other_workers_while_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands still: nobody has waited for anybody."""
    for seed in range(50):
        ray = FakeRay(seed, says=[FINE, DIES])
        check(deal(monkeypatch, ray, 2)[0], CLIENTS)
        assert ray.now == 0.0


def test_a_replacement_that_cannot_take_part_ends_it_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU whose memory is not free yet, of the worker before."""
    full = cannot("OutOfMemoryError: CUDA out of memory")
    check(deal(monkeypatch, FakeRay(0, deadly=[3], says=[FINE, full]), 1)[0], CLIENTS)
    with pytest.raises(NodeError, match="3 times in a row: OutOfMemoryError: CUDA"):
        deal(monkeypatch, FakeRay(0, deadly=[3], says=[FINE, full, full, full]), 1)
