"""Local DP: what leaves a client, what it costs that client, what is refused, and that it repeats."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from scripted_grid import ScriptedGrid
from test_accountant import counted
from test_central_dp import FEDAVG, REPEATABLE, hash_of, strategy_of

from models.core.config import Value
from models.core.errors import UserError
from models.core.seeds import generator_for
from strategies.declaration import Declaration, declaration_of
from strategies.memory import capture, restore
from strategies.privacy.local_dp import DEVIATION, KIND, NORM, ClipAndNoise
from strategies.rule import Chain

Make = Callable[..., dict[str, Value]]
RECEIVED = {"a": np.array([1.0, 1.0], np.float32), "b": np.array(0.0, np.float32)}
TRAINED = {"a": np.array([4.0, 1.0], np.float32), "b": np.array(4.0, np.float32)}  # moved by (3, 0, 4)


def rule(norm: float, deviation: float, kind: str = "repeatable") -> ClipAndNoise:
    return ClipAndNoise({NORM: norm, DEVIATION: deviation, KIND: kind})


def test_a_reply_by_hand() -> None:
    reply, told = rule(2.5, 0.5).reply(TRAINED, RECEIVED, torch.Generator().manual_seed(7))
    again = torch.Generator().manual_seed(7)
    key = bytes(torch.randint(256, (16,), generator=again, dtype=torch.uint8).tolist())
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(int.from_bytes(key, "little"))))
    noise_a, noise_b = (draw.standard_normal(n) for n in (2, ()))
    # An update of length 5 is halved; the noise comes array after array.
    np.testing.assert_array_equal(reply["a"], (np.array([2.5, 1.0]) + 0.5 * noise_a).astype(np.float32))
    np.testing.assert_array_equal(reply["b"], (2.0 + 0.5 * noise_b).astype(np.float32))
    assert {name: (array.dtype, array.shape) for name, array in reply.items()} == {
        "a": (np.float32, (2,)),
        "b": (np.float32, ()),
    }
    assert told == {}  # whether it was clipped is the client's own


def test_the_noise_has_the_deviation_that_epsilon_is_counted_for() -> None:
    strategy = strategy_of("LocalDP", "clipping_norm = 0.25, noise_multiplier = 4.0")
    config = ConfigRecord({"server-round": 1})
    grid = ScriptedGrid({client: lambda _: None for client in range(4)})
    strategy.configure_train(1, ArrayRecord({"w": Array(np.zeros(1, np.float32))}), config, grid)
    same = {"w": np.zeros(40_000, np.float32)}
    reply, _ = ClipAndNoise(config).reply(same, same, torch.Generator().manual_seed(0))
    assert np.std(reply["w"]) == pytest.approx(4.0 * 0.25, rel=0.02)
    assert abs(np.mean(reply["w"])) < 3 / 200


def test_no_noise_is_clipping_alone() -> None:
    reply, _ = rule(2.5, 0.0).reply(TRAINED, RECEIVED, torch.Generator())
    assert (reply["a"].tolist(), float(reply["b"])) == ([2.5, 1.0], 2.0)


def test_what_stands_beside_the_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="only weights can be clipped, and control/a stands beside them"):
        rule(1.0, 1.0).reply({**TRAINED, "control/a": RECEIVED["a"]}, RECEIVED, torch.Generator())


def test_rules_in_turn_draw_from_one_generator() -> None:
    one = torch.Generator().manual_seed(3)
    twice, _ = Chain([rule(9.0, 1.0), rule(9.0, 1.0)]).reply(RECEIVED, RECEIVED, one)
    again = torch.Generator().manual_seed(3)
    once, _ = rule(9.0, 1.0).reply(RECEIVED, RECEIVED, again)
    expected, _ = rule(9.0, 1.0).reply(once, RECEIVED, again)
    np.testing.assert_array_equal(twice["a"], expected["a"])


class InTurn(FedAvg):
    """Asks client 0 in every round, and each of the others in one."""

    declaration = Declaration(weighted_mean=True)

    def configure_train(self, server_round: int, *others: Any) -> Iterator[Message]:
        messages = super().configure_train(server_round, *others)
        return (each for each in messages if each.metadata.dst_node_id in (0, server_round))


def play(strategy: Any, server_round: int) -> dict[str, Any]:
    """Return what a round tells whose first client failed."""
    grid = ScriptedGrid({client: lambda _: None for client in range(4)})
    start = ArrayRecord({"w": Array(np.zeros((), np.float32))})
    config = ConfigRecord({"server-round": server_round})
    messages = list(strategy.configure_train(server_round, start, config, grid))
    metrics = MetricRecord({"num-examples": 2, "loss": 1.5})
    replies = [Message(RecordDict({"arrays": start, "metrics": metrics}), reply_to=messages[-1])]
    return dict(strategy.aggregate_train(server_round, replies)[1])


def test_epsilon_is_that_of_the_client_that_was_asked_most_often() -> None:
    options = "clipping_norm = 1.0, noise_multiplier = 6.0, delta = 1e-3, strategy = 'test_local_dp:InTurn'"
    strategy = strategy_of("LocalDP", options)
    told = [play(strategy, server_round) for server_round in (1, 2, 3)]
    assert strategy.asked == {0: 3, 1: 1, 2: 1, 3: 1}
    # Replacing a client's data moves its update by two norms.
    once = dp.GaussianDpEvent(6.0 / 2)
    expected = [counted(dp.SelfComposedDpEvent(once, n), delta=1e-3) for n in (1, 2, 3)]
    assert [row["local-epsilon"] for row in told] == pytest.approx(expected, rel=1e-12)
    assert told[0] == {"loss": 1.5, "local-epsilon": told[0]["local-epsilon"]}


def test_what_was_spent_survives_a_checkpoint() -> None:
    options = "clipping_norm = 1.0, noise_multiplier = 6.0"
    before, after = (strategy_of("LocalDP", options) for _ in range(2))
    play(before, 1)
    tree, arrays = capture(before)
    restore(after, json.loads(json.dumps(tree)), arrays)
    assert play(after, 2) == play(before, 2)


def test_a_checkpoint_of_the_first_version_goes_on_with_what_was_spent() -> None:
    tree = {
        "strategy": {
            "delta": 0.001,
            "strategy": {"strategy": FEDAVG},
            "clipping_norm": 1.0,
            "noise_multiplier": 6.0,
            "target_epsilon": None,
            "asked": {"by-number": [["2", 1], ["0", 1], ["3", 1], ["1", 1]]},
        }
    }
    strategy = strategy_of("LocalDP", "clipping_norm = 1.0, noise_multiplier = 6.0, delta = 1e-3")
    restore(strategy, tree, {})
    # As the version that wrote it went on.
    assert play(strategy, 2)["local-epsilon"] == pytest.approx(1.4427002449254256, rel=1e-12)


def test_the_target_is_for_a_client_that_is_asked_in_every_round() -> None:
    strategy = strategy_of("LocalDP", "clipping_norm = 1.0, target_epsilon = 3.0", num_server_rounds=2)
    costs = [play(strategy, server_round)["local-epsilon"] for server_round in (1, 2)]
    assert costs[0] < 2.9 < costs[1] <= 3.0
    with pytest.raises(ValueError, match=r"round 3 would bring epsilon to .* beyond target_epsilon"):
        play(strategy, 3)


NOISE = "clipping_norm = 1.0, noise_multiplier = 1.0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("clipping_norm = 1.0", "give noise_multiplier or target_epsilon, one of the two"),
        ("clipping_norm = -1.0, noise_multiplier = 1.0", "clipping norm must be > 0 and finite, got -1"),
        (f"{NOISE}, delta = 0.0", "delta must be > 0 and < 1, got 0"),
        (f"{NOISE}, strategy = 'Scaffold'", "clients of Scaffold reply more than weights, which no clip"),
        (f"{NOISE}, strategy = 'FedNova'", "clients of FedNova reply more than weights, which no clipping"),
        (f"{NOISE}, strategy = {{name = 'LocalDP', {NOISE}}}", "clients of LocalDP add noise already"),
    ],
)
def test_what_cannot_be_made(options: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        strategy_of("LocalDP", options)
    assert "\n" not in str(error.value)


def test_the_wrapped_strategy_keeps_its_client_half_and_what_it_needs() -> None:
    over_mean, over_krum = (
        declaration_of(strategy_of("LocalDP", f"{NOISE}, strategy = {inner}"))
        for inner in (
            "{name = 'FedProx', proximal_mu = 0.1, weighted_by_key = 'rows'}",
            "{name = 'Krum', num_malicious_nodes = 0}",
        )
    )
    assert over_mean.local_rules == (
        "strategies.algorithms.fedprox:Proximal",
        "strategies.privacy.local_dp:ClipAndNoise",
    )
    assert (over_mean.weighted_mean, over_mean.weighted_by) == (True, "rows")
    assert not over_krum.weighted_mean


@pytest.mark.parametrize("inner", ["'FedAvg'", "{name = 'FedProx', proximal_mu = 0.5}", "'FedMedian'"])
def test_one_hash_on_however_many_nodes(tiny: Make, tmp_path: Path, inner: str) -> None:
    hashes = {
        hash_of(
            tiny(
                strategy="LocalDP",
                strategy_options=f"clipping_norm = 0.3, noise_multiplier = 0.1, {REPEATABLE}, "
                f"strategy = {inner}",
                num_clients=7,
                examples_per_client=16,
                run_dir=str(tmp_path / str(num_nodes)),
            ),
            num_nodes,
        )
        for num_nodes in (1, 3)
    }
    assert len(hashes) == 1


@pytest.mark.slow
def test_no_two_of_a_million_replies_share_their_noise() -> None:
    """With 32 bits a thousand clients in two hundred rounds shared five streams, whatever the seed."""
    seen = {generator_for(42, "reply", place // 1000, place % 1000).initial_seed() for place in range(10**6)}
    assert len(seen) == 10**6


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_its_noise_and_what_it_has_spent(tiny: Make, tmp_path: Path) -> None:
    options = f"clipping_norm = 0.3, noise_multiplier = 0.5, {REPEATABLE}, strategy = 'FedAdam'"
    config = tiny(strategy="LocalDP", strategy_options=options, examples_per_client=16)
    hash_of(config)
    more = {**config, "num-server-rounds": 4}
    whole = tmp_path / "whole"
    assert hash_of({**more, "resume": True}) == hash_of({**more, "run-dir": str(whole)})
    rows = [
        json.loads(line)["train"]
        for line in (whole / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert not any("local-epsilon" in row for row in rows)
