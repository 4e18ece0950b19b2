"""What fails is named, and stops no more than it must."""

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty import FaultyCnn

from models.core.config import Value
from models.data.dataset import Dataset
from server.errors import RunFailedError
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


def read(config: dict[str, Value]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    folder = Path(str(config["run-dir"]))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return rows, json.loads((folder / "result.json").read_text(encoding="utf-8"))


def errors_of(config: dict[str, Value]) -> str:
    return (Path(str(config["run-dir"])) / "errors.log").read_text(encoding="utf-8")


def last_frame(caught: pytest.ExceptionInfo[BaseException]) -> str:
    return str(caught.traceback[-1].statement).strip()


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian"])
def test_one_client_that_raises_does_not_stop_the_run(
    tiny: Make, caplog: pytest.LogCaptureFixture, strategy: str
) -> None:
    options = "raise_at = [2, 3]"
    config = tiny(task="faulty:FaultyCnn", task_options=options, num_server_rounds=3, strategy=strategy)
    run_in_process(config, num_nodes=2)
    rows, result = read(config)
    assert [row.get("failures", []) for row in rows] == [
        [],
        [],
        [{"client": 3, "error": "ValueError: a bad batch"}],
        [],
    ]
    assert [row.get("clients") for row in rows[1:]] == [[0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3]]
    assert result["status"] == "completed"
    assert "Round 2: client 3 failed: ValueError: a bad batch (traceback in errors.log)" in caplog.text
    heading, _, whole = errors_of(config).partition("\n")
    assert heading.endswith(" client 3 in round 2 on node 1")
    assert '  raise ValueError("a bad batch")\n' in whole  # the line of code
    assert whole.endswith("  ValueError: a bad batch\n\n")


def test_all_clients_failing_stops_the_run(tiny: Make) -> None:
    config = tiny(task="faulty:FaultyCnn", task_options="raise_at = [0, 0]")
    reason = "all 4 clients of round 1 failed; client 0: ValueError: a bad batch"
    with pytest.raises(RunFailedError, match=reason):
        run_in_process(config)
    rows, result = read(config)
    assert (result["status"], result["reason"]) == ("failed", reason)
    assert len(rows[-1]["failures"]) == 4
    said = errors_of(config)
    assert said.count('raise ValueError("a bad batch")') == 1  # the four failed in one way
    assert all(f" client {client} in round 1 on node 0\n" in said for client in range(4))
    assert " the run, after round 0\n" in said
    assert f"server.errors.RunFailedError: {reason}" in said


def test_a_client_that_diverges_sends_no_update(tiny: Make) -> None:
    config = tiny(learning_rate=1e30, num_server_rounds=1)
    with pytest.raises(RunFailedError, match="all 4 clients"):
        run_in_process(config)
    rows, _ = read(config)
    assert all("FloatingPointError: loss is" in failure["error"] for failure in rows[1]["failures"])


class NoNode(FaultyCnn):
    """Can be built at the server, but by no node."""

    def __init__(self, dataset: Dataset, **options: Any) -> None:
        super().__init__(dataset, **options)
        if any(frame.name == "load_worker" for frame in traceback.extract_stack()):
            raise OSError("no such file")


class NoFigures(FaultyCnn):
    """Cannot be drawn."""

    def figures(self, *_: Any) -> Any:
        raise LookupError("no such colour")


def test_a_node_that_cannot_take_part_says_why(tiny: Make) -> None:
    config = tiny(task="test_failures:NoNode")
    with pytest.raises(RunFailedError, match="a node cannot take part: OSError: no such file"):
        run_in_process(config)
    said = errors_of(config)
    assert " the run, before its rounds\n" in said
    assert "node 0 said:\n" in said
    assert '      raise OSError("no such file")\n' in said


@pytest.mark.usefixtures("drawn")
def test_figures_that_are_not_drawn_leave_their_traceback(
    tiny: Make, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(task="test_failures:NoFigures", num_server_rounds=1)
    run_in_process(config)
    assert "The callback Figures failed in on_run_end: LookupError: no such colour" in caplog.text
    assert " the callback Figures in on_run_end of round 1\n" in errors_of(config)
    assert 'raise LookupError("no such colour")' in errors_of(config)


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("engine", ["loop", "stacked"])
@pytest.mark.parametrize(
    ("task", "options", "kind", "line"),
    [
        ("faulty:FaultyCnn", "raise_at = [1, 2]", ValueError, 'raise ValueError("a bad batch")'),
        ("test_failures:NoNode", "", OSError, 'raise OSError("no such file")'),
        ("test_failures:NoFigures", "", LookupError, 'raise LookupError("no such colour")'),
    ],
)
def test_in_debug_mode_the_first_exception_arrives_where_it_was_raised(
    tiny: Make, engine: str, task: str, options: str, kind: type[Exception], line: str
) -> None:
    config = tiny(task=task, task_options=options, engine=engine, num_server_rounds=1)
    with pytest.raises(kind) as caught:
        run_in_process(config, num_nodes=2, debug=True)
    assert type(caught.value) is kind
    assert last_frame(caught) == line
    assert "self" in caught.traceback[-1].frame.f_locals  # what a debugger shows


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("speechless", "SpeechlessError: <its text cannot be had: __str__ raised>"),
        ("half a character", r"ValueError: bad \udcff byte"),
        ("a cursor", r"ValueError: look \x1b[2J\x00 here"),
        ("endless", f"ValueError: {'x' * 984} ..."),
    ],
)
def test_whatever_a_client_raises_is_its_failure_alone(tiny: Make, kind: str, error: str) -> None:
    options = f"raise_at = [1, 2], kind = '{kind}'"
    config = tiny(task="awkward:Awkward", task_options=options, num_server_rounds=1)
    run_in_process(config)
    rows, result = read(config)
    assert rows[1]["failures"] == [{"client": 2, "error": error}]
    assert rows[1]["clients"] == [0, 1, 3]
    assert result["status"] == "completed"
    assert "raise KINDS[self.kind]()" in errors_of(config)
    log = (Path(str(config["run-dir"])) / "run.log").read_text(encoding="utf-8")
    assert f"Round 1: client 2 failed: {error} (traceback in errors.log)\n" in log


def test_code_that_exits_fails_the_run(tiny: Make) -> None:
    options = "raise_at = [1, 2], kind = 'exit'"
    config = tiny(task="awkward:Awkward", task_options=options, num_server_rounds=1)
    with pytest.raises(SystemExit):
        run_in_process(config)
    _, result = read(config)
    assert (result["status"], result["reason"]) == ("failed", "SystemExit: 0")
    assert "SystemExit: 0" in errors_of(config)
