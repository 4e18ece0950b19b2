"""What a process of a run imports: nothing heavy that this run has no use for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "alembic",
    "dp_accounting",
    "faker",
    "fastapi",
    "flwr.superlink",
    "gymnasium",
    "matplotlib",
    "mlxtend",
    "pandas",
    "ray",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "sympy",
    "tensorflow",
    "tokenizers",
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.fsdp",
    "torchvision",
    "transformers",
)
SAY = f"import json, sys; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
ROUND = """
import sys
from models.core.config import TaskConfig
from models.data.datasets import load_dataset
from server.callbacks import Callback
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults

class Say(Callback):
    def on_round_end(self, record):
        if record.server_round == 1:
            {say}
run_in_process({{
    **defaults(), "dataset": "digits", "num-clients": 2, "num-server-rounds": 1, "run-dir": sys.argv[1],
    "callbacks": "__main__:Say",
}})
"""


def imported(code: str, *arguments: str, cache: str | None = None) -> list[str]:
    """Return which of the heavy modules a process has that runs this code and prints their names."""
    environment = {**os.environ, **({"POLYFED_CACHE": cache} if cache else {})}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        check=True,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("[")]
    names: list[str] = json.loads(line)
    return names


@pytest.mark.parametrize("module", ["clients.answers", "server.app", "simulations.cli", "simulations.start"])
def test_importing_an_app_imports_nothing_heavy(module: str) -> None:
    assert imported(f"import {module}; {SAY}") == []


def test_a_client_app_that_hands_its_message_on_imports_no_torch() -> None:
    """Flower starts a process for each message, and torch takes it seconds."""
    say = "import sys; print('[true]' if {'torch', 'pydantic'} & sys.modules.keys() else '[]')"
    assert imported(f"import clients.app, clients.resident.ask; {say}") == []


def test_the_version_is_said_without_torch() -> None:
    code = "import sys; from simulations.cli import main; sys.argv = ['polyfed', '--version']\ntry: main()\n"
    assert imported(code + "finally: print('[true]' if 'torch' in sys.modules else '[]')") == []


@pytest.mark.slow
def test_the_first_round_of_a_plain_run_imports_nothing_heavy(tmp_path: Path) -> None:
    code, cache = ROUND.format(say=SAY), str(tmp_path / "cache")
    assert "sklearn" in imported(code, str(tmp_path / "first"), cache=cache)  # the data are from there
    assert imported(code, str(tmp_path / "second"), cache=cache) == []
