"""Whether what a server sends fits a node's clients and its model."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from clients.fit import check_fits, check_message
from clients.node_config import NodeConfig
from clients.worker import Worker, load_worker
from models.core.config import TaskConfig
from models.core.errors import UserError
from strategies.wire.request import ClientRequest, RoundInfo

INFO = RoundInfo(1, 0, "run")
NAME = "classifier.2.bias"
"""One of the weights."""
LOCAL = "classifier.0.bias"


@pytest.fixture(scope="module")
def worker() -> Worker:
    options = f"norm = 'batch', local = ['{LOCAL}'], freeze = ['features.0.*']"
    return load_worker(TaskConfig(dataset="digits", task_options=options), "")


def asked(worker: Worker, **given: Any) -> ClientRequest:
    weights = {name: worker.initial[name] for name in worker.federated.parameters}
    statistics = {name: worker.initial[name] for name in worker.federated.statistics}
    fixed = {name: worker.initial[name] for name in worker.frozen}
    plain = ClientRequest(0, INFO, weights, {"control": weights}, fixed, {}, statistics)
    return replace(plain, **given)


def test_what_the_server_sends_fits(worker: Worker) -> None:
    request = asked(worker)
    assert request.statistics
    assert request.fixed
    more = {**request.weights, "strategys.own": torch.zeros(7)}
    words = {"local-epochs": 10_000, "batch-size": 7, "learning-rate": 0.1, "mu": "x"}
    check_fits([request, asked(worker, weights=more, config=words)], worker)


Change = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def without(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != NAME}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without, f"the server sends a part of the weights, without {NAME}"),
        (lambda sent: {**sent, NAME: sent[NAME][:1]}, "as float32 [1], and the model has float32 [10]"),
        (lambda sent: {**sent, NAME: sent[NAME][None]}, "as float32 [1, 10], and the model has float32 [10]"),
        (lambda sent: {**sent, NAME: sent[NAME].double()}, "as float64 [10], and the model has float32 [10]"),
        (lambda sent: {**sent, NAME: sent[NAME] > 0}, "as bool [10]"),
        (lambda sent: {**sent, NAME: sent[NAME] + torch.inf}, f"{NAME}, which is not finite"),
        (lambda sent: {**sent, LOCAL: torch.zeros(64)}, f"{LOCAL}, which is not a weight that is averaged"),
        (lambda sent: {**sent, "features.0.weight": sent[NAME]}, "which is not a weight that is averaged"),
    ],
)
def test_weights_that_do_not_fit(worker: Worker, change: Change, why: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (its words hold brackets)
        check_fits([asked(worker), asked(worker, weights=change(asked(worker).weights))], worker)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("beside", "why"),
    [
        ({"aux": {"control": {NAME: torch.zeros(2, 10)}}}, f"control/{NAME} as float32 [2, 10]"),
        ({"statistics": {NAME: torch.zeros(10)}}, "which is not a statistic that is averaged"),
        ({"fixed": {NAME: torch.zeros(10)}}, "which is not a weight that is frozen"),
        ({"fixed": {LOCAL: torch.zeros(64)}}, "which is not a weight that is frozen"),
        ({"fixed": {"other": torch.zeros(64)}}, "which is not a weight that is frozen"),
        ({"config": {"local-epochs": 10_001}}, "local-epochs must be <= 10000, got 10001"),
        ({"config": {"batch-size": 2**21}}, "batch-size must be <= 1048576, got 2097152"),
        ({"config": {"batch-size": 0}}, "batch-size must be >= 1, got 0"),
    ],
)
def test_what_comes_beside_them(worker: Worker, beside: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (its words hold brackets)
        check_fits([asked(worker, **beside)], worker)
    assert why in str(caught.value)


def test_clients_that_live_elsewhere(worker: Worker) -> None:
    requests = [asked(worker, client=client) for client in (1, 4, 7)]
    check_message(INFO, requests, NodeConfig(1, 3), 8)
    check_message(INFO, requests, NodeConfig(simulated=True), 8)
    with pytest.raises(UserError, match=r"^clients must be 0 to 6, got 7$"):
        check_message(INFO, requests, NodeConfig(simulated=True), 7)
    with pytest.raises(UserError, match=r"^client 1 does not live on this node, which is 0 of 3"):
        check_message(INFO, requests, NodeConfig(0, 3), 8)
