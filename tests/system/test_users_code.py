"""Code of the current folder in Flower's own processes, beside folders with names of polyfed's packages."""

from pathlib import Path

import pytest
from command_line import polyfed

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
def test_a_run_under_flower_finds_the_code_of_the_folder_that_it_was_started_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users_own_code.py").write_text(CODE, encoding="utf-8")
    for name in ("models", "server", "clients"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not polyfed')\n", encoding="utf-8")
    small = ("-c", "num-server-rounds=1", "-c", "num-clients=4")
    named = (f"{key}=users_own_code:{cls}" for key, cls in
             (("strategy", "Mine"), ("task", "Images"), ("callbacks", "Notes")))  # fmt: skip
    ended = polyfed("run", "cnn-digits", *small, *(word for each in named for word in ("-c", each)))
    assert ended.code == 0, ended
    assert (tmp_path / "called").read_text(encoding="utf-8") == "completed"
