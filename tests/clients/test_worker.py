"""What a worker process keeps warm, and what a client must not send from it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from places import CASES
from torch import nn

from clients.worker import load_worker
from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.images.cnn import ImageClassification
from server.errors import RunFailedError
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


def test_clients_hold_all_rows_once_and_keep_their_test_rows_apart() -> None:
    config = TaskConfig(dataset="digits", num_clients=5, local_test_fraction=0.2)
    worker = load_worker(config, "")
    halves = [half for client in range(5) for half in worker.examples(client)]
    assert sum(map(len, halves)) == 1293  # without a tenth of 1437, for validation
    images = torch.cat([half["image"].flatten(1) for half in halves])
    everything = worker.dataset.train["image"].flatten(1)
    assert sorted(images.tolist()) == sorted(everything.tolist())


def test_a_process_loads_its_site_once() -> None:
    config = TaskConfig(dataset="digits", num_clients=5)
    assert load_worker(config, "") is load_worker(TaskConfig(dataset="digits", num_clients=5), "")


def test_a_node_with_its_own_data_does_not_train_on_a_packaged_dataset(tmp_path: Path) -> None:
    """Every node would hold all of it, and nobody would know."""
    with pytest.raises(UserError, match="digits"):
        load_worker(TaskConfig(dataset="digits"), str(tmp_path))


def test_a_node_says_what_is_cut_of_its_own_data(bert_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TaskConfig(
        task="ner",
        task_options=f"backbone = '{bert_folder}', long_sentences = 'cut'",
        dataset="conll:conll_long",
        data_dir="/elsewhere",
    )
    with caplog.at_level("INFO", logger="polyfed"):
        load_worker(config, str(CASES))
    assert "2,036 of 3,200 words (63.6%) are cut off" in caplog.text


class Overshoots(ImageClassification):
    """Leaves a weight that is no number after its last step, whose loss was fine."""

    def after_step(self, model: nn.Module) -> None:
        with torch.no_grad():
            model.classifier[0].weight[0, 0] = float("nan")


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian"])
def test_a_client_whose_weights_are_no_longer_finite_sends_none(tiny: Make, strategy: str) -> None:
    """It fails by itself: what the others send must not be lost with it."""
    config = tiny(task="test_worker:Overshoots", num_server_rounds=1, batch_size=1437, strategy=strategy)
    with pytest.raises(RunFailedError, match="all 4 clients of round 1 failed; client 0: FloatingPointError"):
        run_in_process(config)
    row = json.loads(
        (Path(str(config["run-dir"])) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    )
    assert [failure["client"] for failure in row["failures"]] == [0, 1, 2, 3]
