"""docs/callbacks.md, followed step by step: its callback is named, installed and run."""

import json
import re
import sys
from pathlib import Path

import pytest
from command_line import polyfed
from plugin_pages import ROOT, install

from server.callbacks.build import TRACKERS
from server.callbacks.callback import HOOKS

PAGE = (ROOT / "docs" / "callbacks.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w.]+)`, [^\n]*:\n\n```\w+\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
"""Name -> content of each file that the page shows."""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "polyfed_notify", raising=False)
    return folder


def check(run: Path) -> None:
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    last = result["server_round"]
    assert result["status"] == "stopped"
    assert 0 < last < 30
    assert result["reason"] == f"the accuracy reached 0.8 in round {last}"
    assert result["final"]["accuracy"] >= 0.8
    assert (run / "news.txt").read_text(
        encoding="utf-8"
    ) == f"stopped after round {last}: {result['reason']}\n"


def test_the_page_shows_all_files_hooks_and_trackers() -> None:
    assert list(FILES) == ["polyfed_notify.py", "digits.toml", "pyproject.toml"]
    assert len(FILES["polyfed_notify.py"].splitlines()) <= 20
    assert re.findall(r"^\| `(on_\w+)\(", PAGE, flags=re.MULTILINE) == list(HOOKS)
    assert re.findall(r"^\| `(\w+)`(?: \(default\))? \| `RUN", PAGE, flags=re.MULTILINE) == list(TRACKERS)


def test_it_runs_as_module_and_class(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(package)
    named = "callbacks=polyfed_notify:Notify"
    run = tmp_path / "run"
    ended = polyfed("run", package / "digits.toml", "--in-process", "-c", named, "--run-dir", run)
    assert ended.code == 0, ended.err
    check(run)


def test_it_runs_by_its_name_once_it_is_installed(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(package))
    run = tmp_path / "run"
    ended = polyfed(
        "run", package / "digits.toml", "--in-process", "-c", "callbacks=notify", "--run-dir", run
    )
    assert ended.code == 0, ended.err
    check(run)
