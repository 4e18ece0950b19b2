"""Nodes that are killed, started anew, or claim the clients of others, seen by their heartbeats."""

import pytest
from beating_grid import BeatingGrid
from scripted_grid import Answer
from test_cohort import asking, failures, hosting
from test_node_registry import node, node_registry, silent

from server.cohort import CohortGrid
from server.cohort_result import CohortResult
from server.node_registry import NodeRegistry
from strategies.wire.request import RoundInfo


def three(monkeypatch: pytest.MonkeyPatch, **options: float) -> tuple[NodeRegistry, BeatingGrid]:
    """Return a registry that has accepted three nodes, and their grid."""
    grid = BeatingGrid({17: node(0), 42: node(1), 900: node(2)}, monkeypatch)
    known = node_registry(silence=35.0, **options)
    known.wait_for_all(grid, timeout=5)
    return known, grid


def look(known: NodeRegistry, grid: BeatingGrid, seconds: float = 0.0) -> NodeRegistry:
    """Let time pass, and look once a second."""
    for _ in range(int(seconds)):
        grid.sleep(1.0)
        known.update(grid)
    known.update(grid)
    return known


def test_a_living_node_is_there_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    known, grid = three(monkeypatch)
    assert look(known, grid, 500).partitions == {17: 0, 42: 1, 900: 2}
    assert len(grid.sent) == 3


def test_one_that_is_killed_is_missed_before_the_superlink_misses_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known, grid = three(monkeypatch)
    grid.kill(42)
    assert 42 in look(known, grid, 35).accepted
    assert 42 not in look(known, grid, 1).accepted
    said = "node 42, which hosts clients 1, 4, has given no sign of life for 35 s (node-silence)"
    assert [record.getMessage() for record in caplog.records] == [said]
    grid.start(42, node(1))
    assert look(known, grid, 1).partitions == {17: 0, 42: 1, 900: 2}


def test_two_machines_clocks_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    known, grid = three(monkeypatch)
    for shift in (-1e6, 1e6):
        for each in grid.beats:
            grid.beats[each] += shift
        monkeypatch.setattr(grid, "sleep", lambda seconds: setattr(grid, "now", grid.now + seconds))
        assert len(look(known, grid, 34).accepted) == 3


def test_one_that_is_started_anew_is_asked_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known, grid = three(monkeypatch)
    grid.start(42, node(1, data="xyz"))
    assert look(known, grid, 2).partitions == {17: 0, 900: 2}
    assert "node 42, which hosts clients 1, 4, was started anew" in caplog.text
    assert known.why_away(
        4
    ) == "its node cannot take part: it loaded other data than the server: same dataset " + ("files there?")
    grid.start(42, node(1))
    assert look(known, grid, 2).partitions == {17: 0, 42: 1, 900: 2}


def test_at_the_start_the_one_that_answers_is_used_though_its_dead_id_is_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = BeatingGrid({41: silent, 17: node(0), 42: node(1), 900: node(2)}, monkeypatch)
    grid.kill(41)
    known = node_registry(silence=35.0)
    known.wait_for_all(grid, timeout=60)
    assert grid.now < 1001
    assert known.partitions == {17: 0, 42: 1, 900: 2}
    assert look(known, grid, 70).refusals.now == {}


def test_one_that_comes_back_under_another_id_takes_over_when_its_dead_id_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, grid = three(monkeypatch)
    grid.kill(42)
    look(known, grid, 5)
    grid.start(43, node(1))
    assert look(known, grid, 30).partitions == {17: 0, 42: 1, 900: 2}
    assert look(known, grid, 1).partitions == {17: 0, 43: 1, 900: 2}
    assert known.refusals.ever == {}


def test_of_two_that_live_the_first_keeps_its_clients_and_the_second_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known, grid = three(monkeypatch)
    grid.start(43, node(1))
    assert look(known, grid, 22).partitions == {17: 0, 42: 1, 900: 2}
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == (
        "node 43 with partition-id 1 cannot take part: its clients are those of node 42, which is there: "
        "give each its own partition-id; it is left out (more in errors.log)"
    )
    grid.forget(42)
    assert look(known, grid, 2).partitions == {17: 0, 43: 1, 900: 2}


def test_of_two_that_live_at_the_start_the_first_to_answer_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = BeatingGrid({17: node(0), 42: node(1), 43: node(1), 900: node(2)}, monkeypatch)
    known = node_registry(silence=35.0)
    known.wait_for_all(grid, timeout=60)
    assert look(known, grid, 22).partitions == {17: 0, 42: 1, 900: 2}
    assert list(known.refusals.now) == [43]


def test_what_is_mended_is_found_out_without_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    known, grid = three(monkeypatch)
    data = ["xyz"]
    grid.start(42, lambda message: node(1, data=data[0])(message))
    look(known, grid, 200)
    data[0] = "abc"
    assert 42 in known.refusals.now
    assert look(known, grid, 101).partitions == {17: 0, 42: 1, 900: 2}
    assert len(known.refusals.ever) == 1


def test_a_newcomer_that_is_slow_to_answer_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known, grid = three(monkeypatch)
    grid.start(5, silent)
    before = grid.now
    known.update(grid)
    assert grid.now == before
    look(known, grid, 400)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == "node 5 connected 301 s ago and has not answered who it is; it is used once it has"
    assert known.partitions == {17: 0, 42: 1, 900: 2}
    assert len(grid.sent) == 4


def test_a_node_that_is_started_again_and_again_fills_no_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known, grid = three(monkeypatch)
    for each in range(100, 200):
        grid.start(each, node(1, data="xyz"))
        known.update(grid)
        grid.forget(each)
    assert len(caplog.records) == len(known.refusals.ever) == 1


def cohort(
    monkeypatch: pytest.MonkeyPatch, nodes: dict[int, Answer], **options: float
) -> tuple[CohortGrid, BeatingGrid]:
    grid = BeatingGrid(nodes, monkeypatch)
    registry = NodeRegistry(6, "", (), interchangeable=False, silence=35.0)
    registry.wait_for_all(grid, timeout=5)
    monkeypatch.setattr("server.exchange.time", grid_clock(grid))
    monkeypatch.setattr("server.busy_nodes.time", grid_clock(grid))
    return CohortGrid(grid, registry, **options), grid  # type: ignore[arg-type]


def grid_clock(grid: BeatingGrid) -> object:
    class Clock:
        monotonic = staticmethod(lambda: grid.now)
        sleep = staticmethod(grid.sleep)

    return Clock


def exchange(grid: CohortGrid, server_round: int = 1, **options: float) -> CohortResult:
    return grid.exchange(asking([0, 1, 2, 3, 4, 5]), RoundInfo(server_round, 0, "/state"), 3000.0, **options)


def dying(grid_of: list[BeatingGrid], then: Answer | None = None) -> Answer:
    """Return a node that is killed when it is asked to train, and that may be started anew."""
    host = hosting(1, 3)

    def answer(message: object) -> object:
        if message.metadata.message_type == "query":  # type: ignore[attr-defined]
            return host(message)  # type: ignore[arg-type]
        grid_of[0].kill(42)
        if then:
            grid_of[0].start(42, then)
        return None

    return answer  # type: ignore[return-value]


def test_a_kill_in_mid_round_costs_that_round_its_clients_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grids: list[BeatingGrid] = []
    nodes = {17: hosting(0, 3), 42: dying(grids), 900: hosting(2, 3)}
    clients, grid = cohort(monkeypatch, nodes)
    grids.append(grid)
    before = grid.now
    result = exchange(clients)
    assert 35 < grid.now - before < 40
    assert result.clients == [0, 2, 3, 5]
    lost = "its node has gone, or was started anew, before it answered"
    assert failures(result) == {1: lost, 4: lost}
    assert failures(exchange(clients, 2)) == {1: "its node has gone", 4: "its node has gone"}
    grid.start(43, hosting(1, 3))
    clients.get_node_ids()
    assert exchange(clients, 3).clients == [0, 1, 2, 3, 4, 5]


def test_one_that_is_started_anew_under_its_id_is_known_to_have_lost_its_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grids: list[BeatingGrid] = []
    nodes = {17: hosting(0, 3), 42: dying(grids, then=hosting(1, 3)), 900: hosting(2, 3)}
    clients, grid = cohort(monkeypatch, nodes)
    grids.append(grid)
    before = grid.now
    assert exchange(clients).clients == [0, 2, 3, 5]
    assert grid.now - before < 3
    assert exchange(clients, 2).clients == [0, 1, 2, 3, 4, 5]  # it is not thought to be busy


def test_newcomers_are_asked_while_a_round_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    grids: list[BeatingGrid] = []
    nodes = {17: hosting(0, 3), 42: dying(grids), 900: hosting(2, 3)}
    clients, grid = cohort(monkeypatch, nodes)
    grids.append(grid)
    grid.start(43, hosting(1, 3))
    assert exchange(clients).clients == [0, 2, 3, 5]
    assert clients.node_registry.partitions == {17: 0, 43: 1, 900: 2}


def test_with_oversample_a_round_ends_when_enough_have_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(message: object) -> object:
        asked = message.metadata.message_type  # type: ignore[attr-defined]
        return hosting(1, 3)(message) if asked == "query" else None  # type: ignore[arg-type]

    clients, grid = cohort(monkeypatch, {17: hosting(0, 3), 42: slow, 900: hosting(2, 3)})  # type: ignore[dict-item]
    before = grid.now
    result = exchange(clients, enough=4)
    assert grid.now == before
    assert result.clients == [0, 2, 3, 5]
    spare = "it was not waited for, as enough others had answered (oversample)"
    assert failures(result) == {1: spare, 4: spare}
    # It is not asked anew before it has answered.
    assert failures(exchange(clients, 2, enough=4)) == dict.fromkeys(
        (1, 4), "its node still works on round 1"
    )


def test_a_strategy_sees_all_clients_when_it_has_waited_long_enough_for_those_that_are_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = {17: hosting(0, 3), 42: hosting(1, 3), 900: hosting(2, 3)}
    clients, grid = cohort(monkeypatch, nodes, node_timeout=100.0, sampled=6)
    clients.node_registry.node_timeout = 100.0
    grid.forget(42)
    clients.expect_sampling()
    assert clients.get_node_ids() == (0, 2, 3, 5)
    grid.sleep(99)
    assert clients.get_node_ids() == (0, 2, 3, 5)
    grid.sleep(2)
    assert clients.get_node_ids() == (0, 1, 2, 3, 4, 5)
    clients.expect_sampling()  # of the next round, which does not wait again
    assert clients.get_node_ids() == (0, 1, 2, 3, 4, 5)
    clients.sampling.wanted = 3  # where enough are there, it sees those alone
    assert clients.get_node_ids() == (0, 2, 3, 5)
