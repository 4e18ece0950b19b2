"""Ditto: where personal models come to rest, what is kept of them, and what they leave alone."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from finished import result_of
from quadratic import CURVATURE, MINIMUM, valleys
from safetensors.torch import load_file
from torch import Tensor

from clients.state import ClientStates
from clients.worker import load_worker
from models.core.config import TaskConfig, Value, read
from models.core.errors import UserError
from models.data.datasets import DATASETS
from models.data.source import Source
from models.images.cnn import ImageClassification
from server.errors import RunFailedError
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]
Run = Callable[..., Path]
EVALUATED: dict[str, Any] = {"local_test_fraction": 0.25, "fraction_evaluate": 1.0}


@pytest.fixture
def run(tiny: Make, tmp_path: Path) -> Run:
    """Return a function that runs Ditto, and returns the run's folder."""

    def run(num_nodes: int = 1, **overrides: Any) -> Path:
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        run_in_process(tiny(**{"strategy": "Ditto", "run_dir": str(folder), **overrides}), num_nodes)
        return folder

    return run


@pytest.fixture
def rest(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs it on the two parabolas of tests/support/quadratic.py."""
    monkeypatch.setitem(DATASETS, "valleys", Source("parabolas", valleys))
    valley = {"task": "quadratic:Quadratic", "dataset": "valleys", "partitioner": "natural", "num_clients": 2}

    def rest(penalty: float, num_server_rounds: int = 40, **overrides: Any) -> Path:
        options = f"penalty = {penalty}"
        return run(
            **valley, num_server_rounds=num_server_rounds, **{"strategy_options": options, **overrides}
        )

    return rest


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def kept(folder: Path, client: int, before_round: int = 1_000) -> Mapping[str, Tensor]:
    return ClientStates(folder / "clients").load(client, before_round).as_file()


def shared(folder: Path) -> float:
    return float(load_file(folder / "models" / "last.safetensors")["w"])


def personal_w(folder: Path, client: int, before_round: int = 1_000) -> float:
    return float(kept(folder, client, before_round).get("personal-model.w", 3.0))


def personal(folder: Path) -> list[float]:
    return [personal_w(folder, client) for client in range(2)]


@pytest.mark.rounding
@pytest.mark.parametrize("penalty", [0.0, 0.5, 2.0, 1e5])
def test_a_personal_model_rests_between_its_own_optimum_and_the_servers_weights(
    rest: Run, penalty: float
) -> None:
    """a (v - b) + penalty (v - w) = 0, so v = (a b + penalty w) / (a + penalty); first w is 3."""
    rate = 0.5 / (max(CURVATURE) + penalty)
    folder = rest(penalty, num_server_rounds=1, task_options="steps = 150", learning_rate=rate)
    optima = [(a * b + penalty * 3) / (a + penalty) for a, b in zip(CURVATURE, MINIMUM, strict=True)]
    assert personal(folder) == pytest.approx(optima, abs=1e-5)
    alone, nothing_personal = penalty == 0, penalty == 1e5
    assert (personal(folder) == pytest.approx(MINIMUM, abs=1e-5)) == alone
    assert (personal(folder) == pytest.approx([3.0, 3.0], abs=2e-4)) == nothing_personal


@pytest.mark.rounding
def test_it_follows_the_shared_model_to_where_that_rests(rest: Run) -> None:
    folder = rest(2.0)
    w = shared(folder)
    optima = [(a * b + 2 * w) / (a + 2) for a, b in zip(CURVATURE, MINIMUM, strict=True)]
    assert personal(folder) == pytest.approx(optima, abs=1e-5)


def by_hand(rounds: int, steps: int, penalty: float) -> tuple[float, list[float]]:
    """Return w and both v_k; the round's personal steps are towards the w that was sent, not the new one."""
    w, v = 3.0, [3.0, 3.0]
    for _ in range(rounds):
        moved = []
        for k, (a, b) in enumerate(zip(CURVATURE, MINIMUM, strict=True)):
            y = w
            for _ in range(steps):
                v[k] -= 0.1 * (a * (v[k] - b) + penalty * (v[k] - w))
                y -= 0.1 * a * (y - b)
            moved.append(y)
        w = sum(moved) / 2
    return w, v


@pytest.mark.rounding
def test_a_few_steps_equal_algorithm_1(rest: Run) -> None:
    folder = rest(0.7, num_server_rounds=3, task_options="steps = 2")
    w, v = by_hand(3, 2, 0.7)
    assert shared(folder) == pytest.approx(w, abs=1e-6)
    assert personal(folder) == pytest.approx(v, abs=1e-6)


def test_who_is_not_asked_keeps_the_model_that_it_has(rest: Run) -> None:
    folder = rest(0.7, num_server_rounds=3, clients_per_round=1)
    clients = [row["clients"] for row in rows_of(folder)[1:]]
    ((absent,), last) = ({0, 1} - set(clients[2]), clients[2][0])
    before, after = kept(folder, absent, 3), kept(folder, absent)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert personal_w(folder, last, 3) != personal_w(folder, last)


def test_the_shared_model_is_that_of_fedavg_to_the_bit(run: Run) -> None:
    """Dropout draws from torch's own generator: whatever the personal model draws must not show."""
    dropout = {"task": "faulty:DropoutCnn", "examples_per_client": 64, "keep_optimizer": True, **EVALUATED}
    ditto, fedavg = (
        run(**dropout, clients_per_round=3),
        run(**dropout, clients_per_round=3, strategy="FedAvg"),
    )
    assert result_of(ditto)["weights_sha256"] == result_of(fedavg)["weights_sha256"]
    for row, plain in zip(rows_of(ditto), rows_of(fedavg), strict=True):
        assert row.get("clients") == plain.get("clients")
        assert row["central"] == plain["central"]
        assert row.get("evaluate", {}).items() >= plain.get("evaluate", {}).items()
    for client in range(4):
        own = {name: tensor for name, tensor in kept(ditto, client).items() if "personal-" not in name}
        assert own.keys() == kept(fedavg, client).keys()
        assert all(torch.equal(tensor, kept(fedavg, client)[name]) for name, tensor in own.items())


def test_compression_leaves_personal_models_alone(run: Run) -> None:
    few = {"num_server_rounds": 1, "num_clients": 2, "examples_per_client": 32}
    whole, compressed = run(**few), run(**few, compression="top-k")
    assert result_of(whole)["weights_sha256"] != result_of(compressed)["weights_sha256"]
    for client in range(2):
        own, beside = kept(whole, client), kept(compressed, client)
        assert all(torch.equal(own[name], beside[name]) for name in own)
        assert {name.split(".")[0] for name in beside} == {"personal-model", "residual"}


def same(one: Path, other: Path, clients: int) -> bool:
    files = [(kept(one, client), kept(other, client)) for client in range(clients)]
    return all(
        a.keys() == b.keys() and a and all(torch.equal(a[name], b[name]) for name in a) for a, b in files
    )


PERSONAL_CNN: dict[str, Any] = {
    "task": "personal_cnn:PersonalCnn",  # with a local head, and a replay buffer
    "num_clients": 3,
    "examples_per_client": 64,
    "keep_optimizer": True,
    "optimizer": "adam",
    "learning_rate": 1e-3,
}


@pytest.mark.slow
def test_personal_models_are_the_same_on_one_node_and_three_and_after_a_resume(run: Run) -> None:
    whole = run(**PERSONAL_CNN, num_server_rounds=3)
    assert same(whole, run(num_nodes=3, **PERSONAL_CNN, num_server_rounds=3), 3)
    resumed = run(**PERSONAL_CNN, num_server_rounds=1)
    run(num_nodes=2, **PERSONAL_CNN, num_server_rounds=3, run_dir=str(resumed), resume=True)
    assert same(whole, resumed, 3)
    assert result_of(whole)["weights_sha256"] == result_of(resumed)["weights_sha256"]


def test_the_whole_of_a_personal_model_is_kept(run: Run) -> None:
    folder = run(**PERSONAL_CNN)
    state = kept(folder, 0)
    own = {name.removeprefix("personal-") for name in state if name.startswith("personal-")}
    model = set(load_file(folder / "models" / "last.safetensors"))
    # All of its weights, and each of the kinds of things that the client keeps for the shared one.
    assert own == {f"model.{name}" for name in model} | {name for name in state if "personal-" not in name}
    for name in ("model.replay.seen", "optimizer.loss.0.step"):
        assert state[f"personal-{name}"] == state[name] > 0
    # The replay buffers hold the same rows, in orders of their own.
    assert not torch.equal(state["personal-model.replay.labels"], state["model.replay.labels"])


def accuracy(config: Mapping[str, Value], client: int, state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return how many of the client's own test rows this model gets right, and of how many."""
    worker = load_worker(read(TaskConfig, dict(config)), "")
    assert isinstance(worker.task, ImageClassification)
    worker.model.load_state_dict(dict(state))
    worker.model.eval()
    _, rows = worker.examples(client)
    with torch.no_grad():
        return int((worker.model(rows["image"].float() / 16).argmax(1) == rows["label"]).sum()), len(rows)


def test_both_models_are_evaluated_by_every_client(tiny: Make, run: Run, one_thread: None) -> None:
    some = {"num_server_rounds": 1, "clients_per_round": 2, **EVALUATED}
    folder = run(**some)
    row, sent = rows_of(folder)[1], load_file(folder / "models" / "last.safetensors")
    found: dict[str, list[tuple[int, int]]] = {"accuracy": [], "personal-accuracy": []}
    for client in range(4):
        prefix = "personal-model."
        own = {
            name.removeprefix(prefix): tensor
            for name, tensor in kept(folder, client).items()
            if name.startswith(prefix)
        }
        assert bool(own) == (client in row["clients"])
        found["accuracy"].append(accuracy(tiny(**some), client, sent))
        # Who has not trained has no model of its own, and takes the one that it was sent.
        found["personal-accuracy"].append(accuracy(tiny(**some), client, own or sent))
    for name, counts in found.items():
        assert row["evaluate"][name] == sum(right for right, _ in counts) / sum(rows for _, rows in counts)
        assert row["by_client"][name] == [float(f"{right / rows:.6g}") for right, rows in counts]
    assert row["by_client"].keys() == {"client", "accuracy", "loss", "personal-accuracy", "personal-loss"}
    assert row["by_client"]["client"] == [0, 1, 2, 3]
    assert row["train"].keys() == {"num-examples", "loss", "personal-loss"}


@pytest.mark.rounding
def test_metrics_that_are_no_means_are_merged_exactly(run: Run) -> None:
    """The RMSE over clients is the root of the mean of all squares, not a mean of roots."""
    few = {"task": "lstm-forecast", "dataset": "sine", "partitioner": "iid", "num_clients": 3}
    row = rows_of(run(**few, examples_per_client=40, num_server_rounds=1, **EVALUATED))[1]
    squares = [value**2 for value in row["by_client"]["personal-rmse"]]  # each of ten rows
    assert row["evaluate"]["personal-rmse"] ** 2 == pytest.approx(sum(squares) / 3, rel=1e-5)
    assert row["evaluate"]["personal-rmse"] != row["evaluate"]["rmse"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"engine": "stacked"},
            'engine = "stacked" does not fit strategy Ditto, whose clients keep personal',
        ),
        ({"strategy_options": "penalty = -1.0"}, "penalty must be >= 0 and finite, got -1.0"),
        ({"strategy_options": "penalty = inf"}, "penalty must be >= 0 and finite, got inf"),
    ],
)
def test_what_cannot_be_is_refused(run: Run, overrides: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(**overrides)


def test_a_personal_model_that_diverges_fails_its_client_and_says_so(run: Run) -> None:
    with pytest.raises(RunFailedError, match=r"client 0: FloatingPointError: personal model: "):
        run(strategy_options="penalty = 1e30", num_server_rounds=1)


@pytest.mark.parametrize("private", ["DifferentialPrivacyClientSideFixedClipping", "LocalDP"])
def test_privacy_goes_around_it(run: Run, private: str) -> None:
    few = {"examples_per_client": 64, **EVALUATED}
    noise = "clipping_norm = 0.5, noise_multiplier = 0.01, noise = 'repeatable'"
    plain, ditto = (
        run(strategy=private, strategy_options=f"{noise}, strategy = {inner}", **few)
        for inner in ("'FedAvg'", "{name = 'Ditto', penalty = 0.5}")
    )
    assert result_of(plain)["weights_sha256"] == result_of(ditto)["weights_sha256"]
    assert "personal-accuracy" in rows_of(ditto)[2]["evaluate"]
    assert not list(plain.rglob("clients"))
    with pytest.raises(UserError, match='engine = "stacked" does not fit'):
        run(strategy=private, strategy_options=f"{noise}, strategy = 'Ditto'", engine="stacked")


@pytest.mark.rounding
@pytest.mark.slow
def test_personal_models_beat_the_shared_one_where_clients_differ(run: Run) -> None:
    """Ten clients of few digits each (Dirichlet 0.1); personal accuracy 0.978, shared 0.864.

    Over five seeds, two under the plainest instruction set and three under AVX2, all rows together gained
    0.083 to 0.279, and 9 or 10 clients did no worse with their own model. The worst client tells nothing: it
    may hold back four rows, and had 0.25 after 1.0 with one seed.
    """
    skewed = {"num_clients": 10, "alpha": 0.1, "num_server_rounds": 10, "evaluate_every": 0, **EVALUATED}
    folder = run(**skewed, local_epochs=2, batch_size=16, strategy_options="penalty = 0.5")
    found = rows_of(folder)[-1]["evaluate"]
    by_client = rows_of(folder)[-1]["by_client"]
    assert found["personal-accuracy"] > found["accuracy"] + 0.05
    pairs = zip(by_client["personal-accuracy"], by_client["accuracy"], strict=True)
    assert sum(personal >= shared for personal, shared in pairs) >= 8
