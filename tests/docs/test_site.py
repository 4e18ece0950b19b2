"""The site of docs/, as `make docs` builds it."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    return folder


@pytest.mark.parametrize(
    ("face", "fields"),
    [
        ("models", ["Dataset.train", "Objective.name", "Task.batch"]),
        ("strategies", ["ParameterResult.weight", "RuleResult.metrics", "LocalRule.gradient"]),
        ("polyfed", ["RunTables.rounds", "SweepTables.runs"]),
        ("server.callbacks", ["Callback.on_round_end", "RoundRecord.central"]),
    ],
)
def test_the_page_of_a_public_face_shows_every_name(site: Path, face: str, fields: list[str]) -> None:
    page = (site / "api" / f"{face.rpartition('.')[2]}.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'<h\d id="([\w.]+)"', page))
    names = [*importlib.import_module(face).__all__, *fields]
    assert [name for name in names if f"{face}.{name}" not in shown] == []


def test_a_page_with_a_diagram_has_the_script_that_draws_it_and_the_width(site: Path) -> None:
    page = (site / "architecture.html").read_text(encoding="utf-8")
    assert '<script src="assets/mermaid.min.js">' in page
    assert (site / "assets" / "mermaid.min.js").is_file()
    assert (
        'class="md-sidebar md-sidebar--secondary" data-md-component="sidebar" data-md-type="toc" hidden'
        in page
    )
