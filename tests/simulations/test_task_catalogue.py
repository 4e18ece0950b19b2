"""`polyfed tasks`: what it lists, and what becomes of a plugin that is broken."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import polyfed
from places import CONFIGS
from rich.console import Console

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.core.plugins import find
from models.data.datasets import DATASETS, load_dataset
from models.registry import ENTRY_POINTS, TASKS, task_classes
from simulations.catalogue.tasks import print_catalogue, read_catalogue

PLUGIN = """
from models.data.source import Source
from models.task import Task

class Sums(Task):
    '''Add numbers [up].

    And more.
    '''

    kind = "abacus"
    metric = "error"
    maximize = False
    metrics = ("digit-*",)

BEADS = Source("abacus", load=None, packaged=True)
"""

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what installs the package "abacus 1.2" with these entry points, as pip would lay it out."""

    def lay_out(entry_points: str) -> None:
        (tmp_path / "abacus_plugin.py").write_text(PLUGIN, encoding="utf-8")
        info = tmp_path / "abacus-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: abacus\nVersion: 1.2\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "abacus_plugin", raising=False)

    return lay_out


def printed() -> tuple[str, str]:
    """Return what is printed on a wide terminal, and the warnings."""
    out, errors = (Console(width=300) for _ in range(2))
    with out.capture() as shown, errors.capture() as warned:
        print_catalogue(out, errors)
    return shown.get(), warned.get()


def test_all_that_is_built_in_is_listed() -> None:
    catalogue = read_catalogue()
    assert {name: found.thing for name, found in catalogue.tasks.items()} == {
        name: task_classes(name, found) for name, found in TASKS.items()
    }
    assert catalogue.datasets.keys() == DATASETS.keys()
    assert {name for names in catalogue.scenarios.values() for name in names} == {
        path.stem for path in CONFIGS.glob("*.toml")
    }
    assert catalogue.scenarios["vae", "images"] == ["vae", "vae-centralized"]
    assert catalogue.broken == []


def test_every_task_has_a_summary_and_a_dataset() -> None:
    for task in (task for name, found in TASKS.items() for task in task_classes(name, found)):
        assert task.__doc__
        assert task.__doc__.partition("\n")[0].endswith(".")
        assert task.kind in {source.kind for source in DATASETS.values()}


def test_the_command_prints_a_table_for_each_kind() -> None:
    shown, warned = printed()
    (line,) = (line for line in shown.splitlines() if line.split()[:1] == ["gan"])
    assert "fid ↓, fid-floor" in line
    assert "gan, gan-centralized" in line
    assert "series: sine, stocks; from your files csv:FILE" in shown
    assert "labelled-text: bbc-news; from your files csv:FILE, hf:NAME, json:FILE, parquet:FILE" in shown
    assert warned == ""
    ended = polyfed("tasks")
    assert (ended.code, ended.err) == (0, "")
    assert all(name in ended.out for name in TASKS)


def test_a_task_of_two_kinds_of_data_is_listed_under_both_with_what_is_measured_there() -> None:
    shown, _ = printed()
    of_sentences, of_text = (line for line in shown.splitlines() if line.split()[:1] == ["masked-lm"])
    assert "probe-accuracy ↑, accuracy, loss" in of_sentences
    assert of_sentences.split()[-2:] == ["masked-lm,", "masked-lm-centralized"]
    assert "loss ↓, accuracy" in of_text
    assert of_text.split()[-1] == "masked-lm-pydoc"


def test_a_plugin_is_listed_with_its_package(install: Install) -> None:
    install("[polyfed.tasks]\nsums = abacus_plugin:Sums\n[polyfed.datasets]\nbeads = abacus_plugin:BEADS\n")
    shown, warned = printed()
    assert warned == ""
    assert "abacus: beads (abacus 1.2)" in shown
    (line,) = (line for line in shown.splitlines() if line.split()[:1] == ["sums"])
    cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
    assert cells == ["sums", "abacus 1.2", "Add numbers [up].", "error ↓, digit-*"]


@pytest.mark.parametrize(
    ("entry_points", "reason"),
    [
        (
            "[polyfed.tasks]\nsums = no_such_module:Sums",
            "'sums' of abacus 1.2 (entry point polyfed.tasks) cannot be loaded: "
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (
            "[polyfed.datasets]\nbeads = abacus_plugin:NONE",
            "'beads' of abacus 1.2 (entry point polyfed.datasets) cannot be loaded: "
            "AttributeError: module 'abacus_plugin' has no attribute 'NONE'",
        ),
        (
            "[polyfed.tasks]\nsums = abacus_plugin:BEADS",
            "task 'sums' must be a subclass of models.Task, and it is Source(",
        ),
        (
            "[polyfed.datasets]\nbeads = abacus_plugin:Sums",
            "dataset 'beads' must be a models.Source, and it is <class",
        ),
    ],
)
def test_a_broken_plugin_is_one_line_and_the_others_are_listed(
    install: Install, entry_points: str, reason: str
) -> None:
    install(entry_points)
    ended = polyfed("tasks")
    assert ended.code == 0
    (line,) = ended.err.splitlines()
    assert line.startswith(f"warning: {reason}")
    assert all(name in ended.out for name in TASKS)


def test_a_broken_plugin_that_is_asked_for_is_a_mistake(install: Install) -> None:
    install("[polyfed.tasks]\nsums = no_such_module:Sums\n[polyfed.datasets]\nbeads = no_such_module:X")
    with pytest.raises(UserError, match=r"'sums' of abacus 1\.2 .* No module named 'no_such_module'"):
        find("sums", "task", TASKS, ENTRY_POINTS)
    with pytest.raises(UserError, match=r"'beads' of abacus 1\.2 .* No module named 'no_such_module'"):
        load_dataset(TaskConfig(dataset="beads"))


def test_a_built_in_wins_over_a_plugin_of_its_name(install: Install) -> None:
    install("[polyfed.tasks]\ncnn = abacus_plugin:Sums\n")
    assert find("cnn", "task", TASKS, ENTRY_POINTS) is TASKS["cnn"]
    assert read_catalogue().tasks["cnn"].origin == "built in"
