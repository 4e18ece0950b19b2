"""result.json says what a run really used: optimizers, data files, clients' names, and what clients moved."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from models.core.config import TaskConfig, Value
from models.core.seeds import STREAMS
from models.data import hashed_files
from models.data.images import load_digits
from models.data.source import Source
from server.plan import make_plan
from server.run_schema import DataFile, OptimizerUsed, PartitionCounts, RoundRecord, RunResult
from server.used import used_by
from simulations.runtime.in_process import run_in_process

Tiny = Callable[..., dict[str, Value]]
SERIES = "time,value,client\n" + "".join(
    f"{step},{step % 7 + shift},{name}\n" for shift, name in enumerate(("ABC", "DEF")) for step in range(60)
)


def result_of(folder: Path) -> RunResult:
    return RunResult.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))


def test_the_optimizer_of_the_task_is_named_where_the_config_leaves_it_to_the_task(tiny: Tiny) -> None:
    config = tiny()
    assert (config["learning-rate"], config["optimizer"]) == (0.0, "")
    assert used_by(make_plan(config)).optimizers == [
        OptimizerUsed(
            objective="loss",
            optimizer="SGD",
            learning_rate=0.05,
            options={
                "momentum": 0.9,
                "dampening": 0,
                "weight_decay": 0,
                "nesterov": False,
                "maximize": False,
            },
        )
    ]


def test_each_objective_has_its_own_and_the_config_overrides_them(tiny: Tiny) -> None:
    config = tiny(task="gan", optimizer_options="betas = [0.1, 0.9]", learning_rate=0.5, optimizer="adam")
    used = used_by(make_plan(config)).optimizers
    assert len({each.objective for each in used}) == len(used) == 2
    for each in used:
        assert (each.optimizer, each.learning_rate, each.options["betas"]) == ("Adam", 0.5, [0.1, 0.9])
        assert each.options["eps"] == 1e-08  # torch's own


def test_clipping_and_warm_up_are_of_it(tiny: Tiny) -> None:
    config = tiny(task="ner", dataset="pii", num_clients=8, partitioner="natural")
    plan = make_plan(config)
    (objective,) = plan.task.objectives
    (used,) = used_by(plan).optimizers
    assert used.warmup_steps == objective.warmup_steps
    assert used.learning_rate == objective.optimizer.learning_rate  # not the first step of a warm-up
    assert used.max_grad_norm == objective.max_grad_norm


def test_files_of_data_are_named_with_their_hashes(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(SERIES, encoding="utf-8")
    config = tiny(task="lstm-forecast", dataset=f"csv:{path}", num_clients=2, partitioner="natural")
    found = used_by(make_plan(config)).data_files
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == [DataFile(name="prices.csv", num_bytes=path.stat().st_size, sha256=sha256)]
    assert used_by(make_plan(tiny())).data_files == []  # of a package


def test_files_of_a_folder_are_named_below_it_and_large_ones_are_not_hashed(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("b.txt", "a.txt", ".hidden"):
        (folder / name).write_text(name * 100, encoding="utf-8")
    config = tiny(task="lstm-text", dataset=f"text:{folder}", num_clients=2, partitioner="natural")
    found = used_by(make_plan(config)).data_files
    assert [(file.name, file.num_bytes) for file in found] == [("a.txt", 500), ("b.txt", 500)]
    assert found[0].sha256 == hashlib.sha256(b"a.txt" * 100).hexdigest()
    monkeypatch.setattr(hashed_files, "MOST_BYTES", 999)
    assert [file.sha256 for file in used_by(make_plan(config)).data_files] == [None, None]


def test_a_name_of_a_package_need_be_no_path(tiny: Tiny, tmp_path: Path) -> None:
    read = []
    source = Source("images", load=load_digits)
    for name, folder in (("hub:someone/something", ""), ("hub:", ""), ("hub:here.txt", str(tmp_path))):
        config = TaskConfig(dataset=name, data_dir=folder)
        read.append(list(source.files_of(config)))
    assert read == [[], [], []]
    (tmp_path / "here.txt").write_text("1", encoding="utf-8")
    assert list(source.files_of(config)) == [tmp_path / "here.txt"]
    given = Source("images", load=load_digits, files=lambda config: [tmp_path / config.dataset])
    assert list(given.files_of(TaskConfig(dataset="a.bin"))) == [tmp_path / "a.bin"]


def test_a_run_writes_it_and_a_failed_one_too(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(num_server_rounds=1, learning_rate=0.125)
    run_in_process(config)
    result = result_of(tmp_path / "run")
    assert result.used == used_by(make_plan(config))
    (node,) = result.nodes
    assert node.endswith(", 1 thread, cpu")
    assert result.packages["numpy"] == result.versions["numpy"]
    assert result.streams == STREAMS
    diverging = tiny(num_server_rounds=1, learning_rate=1e30, run_dir=str(tmp_path / "failed"))
    with pytest.raises(Exception, match="failed"):
        run_in_process(diverging)
    failed = result_of(tmp_path / "failed")
    assert (failed.status, failed.used) == ("failed", used_by(make_plan(diverging)))


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({"dataset": "stocks", "task": "lstm-forecast"}, ("AAPL", "FB", "GOOG", "IBM", "MSFT")),
        ({"dataset": "stocks", "task": "lstm-forecast", "partitioner": "iid"}, ()),
        (
            {"dataset": "gym:CartPole-v1?length=0.4..0.6", "task": "dqn", "num_clients": 2},
            ("length 0.55", "length 0.45"),
        ),
    ],
)
def test_clients_go_by_the_names_that_the_data_has_for_them(
    tiny: Tiny, tmp_path: Path, overrides: dict[str, Any], names: tuple[str, ...]
) -> None:
    run_in_process(
        tiny(
            **{"partitioner": "natural", "num_clients": 5, **overrides},
            num_server_rounds=1,
            fraction_train=0.2,
        )
    )
    written = PartitionCounts.model_validate_json(
        (tmp_path / "run" / "partition.json").read_text(encoding="utf-8")
    )
    assert sorted(written.names) == sorted(names)


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian"])  # nodes add updates up for the first
def test_what_clients_move_does_not_depend_on_how_many_nodes_host_them(
    tiny: Tiny, tmp_path: Path, strategy: str
) -> None:
    moved = {}
    for num_nodes in (1, 3, 6):
        folder = tmp_path / str(num_nodes)
        config = tiny(
            num_clients=6,
            num_server_rounds=1,
            strategy=strategy,
            fraction_evaluate=0.5,
            local_test_fraction=0.5,
            run_dir=str(folder),
        )
        run_in_process(config, num_nodes)
        lines = (folder / "metrics.jsonl").read_bytes().splitlines()
        moved[num_nodes] = RoundRecord.model_validate_json(lines[1]).bytes
    model = 4 * result_of(folder).num_parameters
    for traffic in moved.values():
        # Six train and send, three more evaluate; an array's header is of the wire.
        assert (traffic.clients_down, traffic.clients_up) == (9 * model, 6 * model)
    assert 2 * model <= moved[1].down < 2.1 * model  # one message to train, one to evaluate
    assert 9 * model <= moved[6].down < 9.1 * model


def test_statistics_and_frozen_weights_are_moved_too(tiny: Tiny, tmp_path: Path) -> None:
    run_in_process(tiny(num_server_rounds=1, task_options="norm = 'batch'"))
    line = (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()[1]
    traffic = RoundRecord.model_validate_json(line).bytes
    model = load_file(tmp_path / "run" / "models" / "last.safetensors")
    size = sum(tensor.nbytes for tensor in model.values() if tensor.is_floating_point())
    assert size > 4 * result_of(tmp_path / "run").num_parameters
    trained = len(RoundRecord.model_validate_json(line).clients)
    assert (traffic.clients_down, traffic.clients_up) == (trained * size, trained * size)


def test_compressed_updates_are_counted_as_they_are_sent(tiny: Tiny, tmp_path: Path) -> None:
    ups = {}
    for compression in ("", "int8"):
        folder = tmp_path / f"run-{compression}"
        run_in_process(tiny(num_server_rounds=1, compression=compression, run_dir=str(folder)))
        ups[compression] = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[1])[
            "bytes"
        ]
    assert ups["int8"]["clients_down"] == ups[""]["clients_down"] == ups[""]["clients_up"]
    assert 0.25 <= ups["int8"]["clients_up"] / ups[""]["clients_up"] < 0.26
