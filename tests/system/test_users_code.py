"""Code of the current folder in the processes of a run, beside folders with names of our packages."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = '''
from flwr.serverapp.strategy import FedAvg

from models.images.cnn import ImageClassification
from server.callbacks import Callback


class Mine(FedAvg):
    """Averages."""


class Images(ImageClassification):
    """Classifies."""


class Notes(Callback):
    """Notes the end of the run."""

    def on_run_end(self, result):
        """Write a file where this one lies."""
        from pathlib import Path

        Path(__file__).with_name("called").write_text(result.status)
'''


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["ray", "flower"])
def test_a_run_finds_the_code_of_the_folder_that_it_was_started_from(tmp_path: Path, runtime: str) -> None:
    (tmp_path / "users_own_code.py").write_text(CODE, encoding="utf-8")
    for name in ("models", "server", "clients", "simulations"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not polyfed')\n", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "simulations.cli", "run", "cnn-digits", "--runtime", runtime]
    command += ["-c", "num-server-rounds=1", "-c", "num-clients=4"]
    for key, cls in (("strategy", "Mine"), ("task", "Images"), ("callbacks", "Notes")):
        command += ["-c", f"{key}=users_own_code:{cls}"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False, encoding="utf-8"
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "called").read_text(encoding="utf-8") == "completed"
