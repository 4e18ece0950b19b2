"""Code of the user's own folder: found, never in the place of other code, and refused where it is hidden."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

from models.core import user_code
from models.core.errors import UserError
from models.core.plugins import load_object
from models.core.user_code import FOLDER


@pytest.fixture(autouse=True)
def _in_a_folder_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_class_of_the_current_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("NUMBER = 7\n", encoding="utf-8")
    (tmp_path / "mine.py").write_text(
        "import beside\n\nclass Mine:\n    number = beside.NUMBER\n", encoding="utf-8"
    )
    assert load_object("mine:Mine", "task").number == 7
    assert sys.path[-1] == str(tmp_path.resolve())  # after all else


def test_the_folder_may_be_named_for_a_process_that_works_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("class Mine: pass\n", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"No module named 'mine', neither in .*elsewhere nor installed"):
        load_object("mine:Mine", "task")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert load_object("mine:Mine", "task").__name__ == "Mine"


@pytest.mark.parametrize("name", ["sched", "time", "json.decoder"])
def test_a_file_with_the_name_of_a_module_of_pythons_is_refused(tmp_path: Path, name: str) -> None:
    path = (tmp_path / Path(*name.split("."))).with_suffix(".py")
    path.parent.mkdir(exist_ok=True)
    path.write_text("class Mine: pass\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_object(f"{name}:Mine", "strategy")
    said = str(caught.value)
    assert said.startswith(
        f"strategy '{name}:Mine' cannot be imported: {path} is hidden by Python's own {name!r} ("
    )
    assert said.endswith("): rename it")
    assert "\n" not in said


def test_a_file_in_a_folder_called_models_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name in ("mine.py", "task.py"):
        (tmp_path / "models" / name).write_text("class Mine: pass\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine.py is hidden by polyfed's own 'models': rename it"):
        load_object("models.mine:Mine", "task")
    with pytest.raises(UserError, match=r"no attribute 'Mine'; .*task.py is hidden by polyfed's own"):
        load_object("models.task:Mine", "task")
    assert load_object("models.task:Task", "task").__name__ == "Task"  # ours is still to be had


def test_a_module_that_is_missing_in_the_users_own_is_said_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import no_such_thing\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot be imported: No module named 'no_such_thing'$"):
        load_object("mine:Mine", "task")


def test_a_copy_of_polyfed_is_polyfed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower runs a copy, while the current folder holds the checkout."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(user_code, "user_folder", lambda: ROOT / "no" / "copy")
    assert load_object("models.task:Task", "task").__name__ == "Task"


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the folder, whose folders come first."""
    (folder / "script.py").write_text(code, encoding="utf-8")
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'simulations' / 'face'}", "PATH": ""}
    command = [sys.executable, "script.py"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.parametrize("code", ["import polyfed", "import simulations.scenario", "import server.config"])
def test_folders_of_the_users_with_our_names_break_nothing_and_are_named(tmp_path: Path, code: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise RuntimeError('theirs')\n", encoding="utf-8")
    ended = python(tmp_path, code)
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.endswith(
        f"{tmp_path / 'models'} is hidden by polyfed's package 'models': rename it to import it"
    )


def test_a_package_of_the_users_that_was_imported_first_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    ended = python(tmp_path, "import models\nimport polyfed")
    assert ended.stderr.splitlines()[-1] == (
        f"ImportError: polyfed has a package 'models', and {tmp_path / 'models'} was imported under that "
        "name: rename the latter"
    )
