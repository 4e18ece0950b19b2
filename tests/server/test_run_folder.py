import json
import math
from pathlib import Path

import pytest
from run_folders import RESULT, SVG, metrics_line, write_run

from models.core.errors import UserError
from server.disk import disk_use, in_words
from server.resume import rounds_trained
from server.run_folder import RunFolder, claim
from server.run_schema import SCHEMA, RoundRecord, RunResult, Traffic
from simulations.runs.reader import read_run, read_runs
from simulations.runs.record import Failure


def test_reads_what_the_server_wrote(tmp_path: Path) -> None:
    failing = metrics_line(1, failures=[{"client": 7, "error": "ValueError: bad batch"}])
    path = write_run(
        tmp_path / "a",
        rounds=[metrics_line(0), failing, metrics_line(2)],
        partition={"num_clients": 2, "classes": ["x", "y", "z"], "counts": [[1, 2, 3], [4, 5, 6]]},
        figures={"confusion": SVG},
    )
    run = read_run(path)
    assert run.name == "a"
    assert run.config["learning-rate"] == 0.05
    assert [line.server_round for line in run.rounds] == [0, 1, 2]
    assert run.rounds[2].clients == (3, 5, 9)
    assert run.rounds[2].central == {"accuracy": 0.9312, "loss": 0.5}
    assert [line.total_seconds for line in run.rounds] == [0.5, 2.25, 2.25]
    assert run.failures == (Failure(1, 7, "ValueError: bad batch"),)
    assert run.traffic == Traffic(down=4_000_000, up=8_000_000, clients_down=12_000_000, clients_up=6_000_000)
    assert run.result is not None
    assert run.result.weights_sha256 == RESULT["weights_sha256"]
    assert run.partition is not None
    assert run.partition.counts == [[1, 2, 3], [4, 5, 6]]
    assert run.figures == {"confusion": SVG.encode()}
    assert not run.half_written


def test_without_a_result_the_run_is_unfinished_and_its_last_numbers_hold(tmp_path: Path) -> None:
    rounds = [metrics_line(0), metrics_line(1), metrics_line(2, central={})]
    run = read_run(write_run(tmp_path / "a", rounds=rounds, result={}))
    assert run.status == "unfinished"
    assert run.last_round == 2
    assert run.metric == "accuracy"
    assert run.final == {"accuracy": 0.9112, "loss": 1.0}
    assert run.seconds == 0.5 + 2.25 + 2.25


def test_a_run_that_failed_at_once_has_only_a_reason(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", rounds=[], result={})
    (path / "metrics.jsonl").unlink()
    (path / "result.json").write_text(
        '{"status": "failed", "reason": "no node", "seconds": 3.5}', encoding="utf-8"
    )
    run = read_run(path)
    assert (run.status, run.metric, run.last_round, run.seconds) == ("failed", "", 0, 3.5)


@pytest.mark.parametrize(
    "half", [b'{"server_round": 4, "tra', '{"server_round": 4, "failures": "ü'.encode()[:-1]]
)
def test_a_half_written_last_line_is_left_out(half: bytes, tmp_path: Path) -> None:
    path = write_run(tmp_path / "a")
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(half)  # it may end inside a character
    run = read_run(path)
    assert run.half_written
    assert run.last_round == rounds_trained(path) == 3
    folder = RunFolder(path, run.config, resume=True)
    folder.rewind(2)
    folder.close()
    assert [line.server_round for line in read_run(path).rounds] == [0, 1, 2]


def test_data_without_labels_has_one_count_a_client(tmp_path: Path) -> None:
    nested = {"num_clients": 900, "classes": [], "counts": [[10], [20]]}
    run = read_run(write_run(tmp_path / "a", partition=nested))
    assert run.partition is not None
    assert run.partition.counts == [[10], [20]]
    assert run.partition.num_clients == 900
    flat = read_run(write_run(tmp_path / "b", partition=nested | {"counts": [10, 20]}))
    assert flat.partition is not None
    assert flat.partition.counts == [[10], [20]]


def test_runs_of_one_name_are_named_by_their_paths(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / parts) for parts in ("x/a", "y/a", "b")]
    assert [run.name for run in read_runs(paths)] == [str(tmp_path / "x/a"), str(tmp_path / "y/a"), "b"]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.toml", "task = ", "TOMLDecodeError"),
        ("config.toml", b"\xff\xfe", "UnicodeDecodeError"),
        ("config.toml", 'seed = "one"', "is broken: seed must be a whole number, got 'one'; restore it"),
        ("metrics.jsonl", '{"server_round": 1\n{"server_round": 2}\n', "Invalid JSON"),
        ("metrics.jsonl", '{"train": {}}\n', "server_round is missing"),
        ("metrics.jsonl", '{"server_round": 1, "central": {"accuracy": "good"}}\n', "'good'"),
        ("metrics.jsonl", "[1, 2]\n", "it must be an object, got [1, 2]"),
        (
            "result.json",
            '{"status": "fine"}',
            "must be 'completed', 'stopped', 'failed' or 'unfinished', got 'fine'",
        ),
        ("result.json", '{"status": ', "Invalid JSON"),
        (
            "partition.json",
            '{"num_clients": 2, "classes": ["a", "b"], "counts": [[1, 2], [3]]}',
            "each client needs 2 counts",
        ),
        ("partition.json", '{"num_clients": 1, "classes": ["a", "b"], "counts": [[1, 2, 3, 4]]}', "2 counts"),
        ("metrics.jsonl", '{"server_round": 1, "lost": {}}\n', "lost is unknown to this version of polyfed"),
        ("metrics.jsonl", '{"server_round": "1"}\n', "server_round must be a valid integer, got '1'"),
        (
            "result.json",
            '{"status": "failed", "schema_number": 99}',
            "written by a newer polyfed (schema 99",
        ),
        ("transfer.json", '{"source": "a", "sha256": "b"}', "entries is missing"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, content: str | bytes, said: str) -> None:
    path = write_run(tmp_path / "a")
    (path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_run(path)
    assert str(caught.value).startswith(f"{path / file} is broken: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run folder: it holds no config\.toml"):
        read_run(tmp_path)
    with pytest.raises(UserError, match=r"there is no run folder .*nowhere"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no run was given"):
        read_runs([])


def test_reads_numbers_that_json_knows_only_in_python(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", rounds=[metrics_line(1, train={"loss": float("nan")})]))
    assert json.dumps(dict(run.rounds[0].train)) == '{"loss": NaN}'


def test_a_round_comes_back_as_it_was_written_and_lines_have_no_more_than_was_given() -> None:
    record = RoundRecord(
        server_round=1,
        train={"loss": float("inf"), "num-examples": 1797},
        by_client={"client": [3, 0], "accuracy": [0.5, None]},
    )
    line = record.as_line()
    assert line == (
        '{"server_round":1,"train":{"loss":null,"num-examples":1797},'
        '"by_client":{"client":[3,0],"accuracy":[0.5,null]}}\n'
    )
    read = RoundRecord.model_validate_json(line)
    assert math.isnan(read.train["loss"])  # JSON has no infinity; a gap is a gap
    assert read.model_copy(update={"train": record.train}) == record
    assert record.client_metrics == {"accuracy": {3: 0.5}}


def test_a_result_without_a_number_is_of_the_first_schema(tmp_path: Path) -> None:
    result = read_run(write_run(tmp_path / "a")).result
    assert result is not None
    assert result.schema_number == 1 < SCHEMA
    assert result.machine is None
    assert RunResult.model_validate_json(result.model_dump_json()) == result


def test_a_run_under_way_is_unfinished_and_says_what_it_uses(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", result={"status": "unfinished", "seconds": 0.5}))
    assert run.status == "unfinished"
    assert run.seconds == sum(line.total_seconds for line in run.rounds) > 0.5


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that not even root can write")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/sys/kernel", r"run-dir /sys/kernel cannot be written \(.*\): give another folder"),
        ("/sys/kernel/run", r"run-dir /sys/kernel/run cannot be made \(.*\): give another folder"),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_line(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        claim(Path(path), {}, resume=False)


def test_what_a_run_takes_of_the_disk(tmp_path: Path) -> None:
    for name, size in (("config.toml", 10), ("models/best", 3_500_000), ("clients/000/client-0/x", 1_234)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert disk_use(tmp_path) == {"clients": 1_234, "models": 3_500_000, "other": 10}
    assert in_words(disk_use(tmp_path)) == "3.5 MB: models 3.5 MB, clients 1.23 kB"
    assert in_words({"models": 1_400_000_000}) == "1.4 GB: models 1.4 GB"
    assert in_words({}) == "0 B"
