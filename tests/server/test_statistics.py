"""Statistics are averaged beside the strategy, by examples, whatever it does; tied weights are one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished import finish
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from required_options import REQUIRED
from safetensors.torch import load_file
from scripted_grid import Answer, ScriptedGrid

from models.core.config import Value
from models.core.errors import UserError
from server.cohort import CohortGrid
from server.cohort_result import CohortResult
from server.node_registry import NodeRegistry
from simulations.runtime.in_process import run_in_process
from strategies.wire.node import NodeDescription
from strategies.wire.reply import NodeReply
from strategies.wire.request import STATISTICS, RoundInfo, unpack_requests

Make = Callable[..., dict[str, Value]]

SEEN: list[list[str]] = []
NORM = "norm = 'batch'"


class Looks(FedAvg):
    """Notes the names of what it is given and of what comes back."""

    def configure_train(self, server_round: int, arrays: ArrayRecord, *rest: Any) -> Any:
        SEEN.append(list(arrays))
        return super().configure_train(server_round, arrays, *rest)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        replies = list(replies)
        SEEN.extend(list(next(iter(each.content.array_records.values()))) for each in replies)
        return super().aggregate_train(server_round, replies)


def last_of(config: dict[str, Value]) -> dict[str, torch.Tensor]:
    return load_file(Path(str(config["run-dir"])) / "models" / "last.safetensors")


def test_the_strategy_sees_parameters_alone(tiny: Make) -> None:
    SEEN.clear()
    config = tiny(strategy=f"{__name__}:Looks", task_options=NORM, num_server_rounds=1)
    run_in_process(config)
    assert len(SEEN) == 6  # it is asked once before the run, and its four clients reply
    names = {name for name in last_of(config) if "running" not in name}
    assert all(set(seen) == names for seen in SEEN)
    assert sum("running" in name for name in last_of(config)) == 4


@pytest.mark.parametrize("num_nodes", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_statistics_go_their_own_way_under_every_strategy(tiny: Make, tmp_path: Path, num_nodes: int) -> None:
    """After one round from equal weights the statistics are the same, whatever became of the parameters."""
    found = {}
    for strategy in ("FedAvg", "FedAdam", "FedMedian", "FedNova", "FedDyn", "Scaffold", "QFedAvg"):
        config = tiny(
            strategy=strategy,
            strategy_options=REQUIRED.get(strategy, ""),
            task_options=NORM,
            num_server_rounds=1,
            run_dir=str(tmp_path / strategy),
        )
        run_in_process(config, num_nodes)
        found[strategy] = last_of(config)
    for strategy, state in found.items():
        statistics = {name for name in state if "running" in name}
        assert len(statistics) == 4
        if strategy not in ("FedDyn", "Scaffold"):  # whose clients may take other steps
            assert all(torch.equal(state[name], found["FedAvg"][name]) for name in statistics), strategy
        assert all((state[name] >= 0).all() for name in statistics if "running_var" in name)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["FedDyn", "FedAvgM", "FedAdam", "FedYogi", "Scaffold"])
def test_batch_norm_learns_under_every_server_optimizer(tiny: Make, strategy: str) -> None:
    """Where running statistics were optimised, FedDyn was NaN, and FedAdam stayed at 0.1."""
    options = {"FedAvgM": "server_momentum = 0.9, server_learning_rate = 1.0"}.get(strategy, "")
    result = finish(
        tiny(
            strategy=strategy,
            strategy_options=options,
            task_options=NORM,
            optimizer_options="momentum = 0",
            num_clients=10,
            num_server_rounds=12,
            partitioner="iid",
        )
    )
    losses = [row["central"]["loss"] for row in result["rows"]]
    assert np.isfinite(losses).all()
    assert result["final"]["accuracy"] > 0.6


def test_compressed_updates_leave_statistics_whole(tiny: Make, tmp_path: Path) -> None:
    whole, coded = (
        tiny(
            task_options=NORM, num_server_rounds=1, compression=codec, run_dir=str(tmp_path / f"run-{codec}")
        )
        for codec in ("", "int8")
    )
    for config in (whole, coded):
        run_in_process(config)
    same = [
        torch.equal(last_of(whole)[name], tensor)
        for name, tensor in last_of(coded).items()
        if "running" in name
    ]
    assert same == [True] * 4


@pytest.mark.parametrize("strategy", ["LocalDP", "DifferentialPrivacyClientSideFixedClipping"])
def test_private_strategies_refuse_statistics(tiny: Make, strategy: str) -> None:
    config = tiny(strategy=strategy, strategy_options=REQUIRED[strategy], task_options=NORM)
    with pytest.raises(
        UserError, match=r"the model sends statistics as they are, such as features.1.running_mean"
    ):
        run_in_process(config)
    at_home = f"{NORM}, local = ['*running_*']"
    run_in_process({**config, "task-options": at_home, "run-dir": f"{config['run-dir']}-2"})


def hosting(statistics: Callable[[int], dict[str, Any]], partition: int) -> Answer:
    """Return a node whose client c has c + 1 examples."""

    def answer(message: Message) -> RecordDict:
        if message.metadata.message_type == "query":
            return NodeDescription(
                partition_id=partition, num_partitions=2, own_data=False, data="", state=()
            ).pack()
        _, requests = unpack_requests(message.content)
        reply = NodeReply()
        for request in requests:
            metrics = MetricRecord({"num-examples": request.client + 1})
            reply.add(
                request.client,
                RecordDict({"metrics": metrics}),
                {"w": np.zeros(1, np.float32)},
                statistics(request.client),
            )
        return reply.pack()

    return answer


def exchange(
    statistics: Callable[[int], dict[str, Any]], other: Callable[[int], dict[str, Any]]
) -> CohortResult:
    grid = ScriptedGrid({7: hosting(statistics, 0), 8: hosting(other, 1)})
    node_registry = NodeRegistry(4, "", (), interchangeable=False)
    node_registry.wait_for_all(grid, timeout=5)
    content = RecordDict(
        {"arrays": ArrayRecord({"w": Array(np.zeros(1, np.float32))}), "config": ConfigRecord()}
    )
    messages = [Message(content, client, "train") for client in range(4)]
    info = RoundInfo(1, 0, "state")
    result = CohortGrid(grid, node_registry).exchange(messages, info, 5.0, {"mean": torch.zeros(2)})
    trained = [message for message in grid.sent if message.metadata.message_type == "train"]
    assert all(STATISTICS in message.content.array_records for message in trained)
    return result


def by_client(client: int) -> dict[str, Any]:
    return {"mean": np.full(2, client, np.float32)}


def test_the_mean_is_weighted_by_examples() -> None:
    result = exchange(by_client, by_client)
    assert result.statistics["mean"].tolist() == [2.0, 2.0]  # (0 * 1 + 1 * 2 + 2 * 3 + 3 * 4) / 10
    assert all(list(reply.content.array_records) == ["arrays"] for reply in result.replies)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda client: {"other": np.zeros(2)}, "it sends statistics ['other'], and the model has ['mean']"),
        (lambda client: {"mean": np.zeros(3)}, "it sends statistics ['mean'], and the model has ['mean']"),
        (lambda client: {}, "it sends statistics [], and the model has ['mean']"),
        (lambda client: {"mean": np.array([0.0, np.nan])}, "its sum is not finite"),
    ],
)
def test_a_node_with_other_statistics_is_left_out(
    wrong: Callable[[int], dict[str, Any]], message: str
) -> None:
    result = exchange(by_client, wrong)
    failed = [each.client for each in result.failures]
    assert failed
    assert not {*failed} & {*result.clients}
    assert all(message in each.error for each in result.failures)
    total = sum(client + 1 for client in result.clients)
    expected = sum(client * (client + 1) for client in result.clients) / total
    assert result.statistics["mean"].tolist() == [expected, expected]


def test_a_tied_weight_is_averaged_by_the_strategy_once(
    tiny: Make, tmp_path: Path, bert_folder: Path
) -> None:
    """FedNova's value went to one name of the embedding, and the plain mean to the other, which won."""
    configs = [
        tiny(
            task="masked-lm",
            dataset="pii",
            task_options=f"backbone = '{bert_folder}'",
            partitioner="natural",
            num_clients=8,
            num_server_rounds=1,
            examples_per_client=20,
            optimizer="sgd",
            learning_rate=0.1,
            strategy=strategy,
            run_dir=str(tmp_path / strategy),
        )
        for strategy in ("FedAvg", "FedNova")
    ]
    for config in configs:
        run_in_process(config)
    average, normalized = map(last_of, configs)
    assert not any("decoder" in name for name in average)
    rounds = (Path(str(configs[0]["run-dir"])) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    size = sum(4 * tensor.numel() for tensor in average.values())
    assert size <= json.loads(rounds[-1])["bytes"]["down"] < size + 160 * len(average)  # for their headers
    embedding = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(average[embedding], normalized[embedding])
