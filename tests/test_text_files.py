"""Text files of ours are UTF-8 whatever the locale: every call that opens one says so."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import CONLL, ROOT

OURS = ("server", "clients", "strategies", "models", "simulations", "docs", "tests")
OTHER_OPENERS = {"tarfile", "gzip", "zipfile", "archive", "os", "webbrowser", "Image", "codecs"}
"""Modules, and objects of theirs, whose `open` is another."""
STARTERS = {"run", "Popen", "check_output", "check_call"}


def unsaid(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that read or write text in the encoding of the locale."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and _is_text(call) and not _says(call, "encoding"):
            yield call


def _is_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)  # else it may be of a distribution
    if name in ("open", "fdopen") and getattr(owner, "id", "") not in OTHER_OPENERS - {"os"}:
        return "b" not in _mode(call, place=0 if owner and name == "open" else 1)
    if name == "NamedTemporaryFile":
        return "b" not in _mode(call, place=0, usual="w+b")
    return name in STARTERS and (_says(call, "text") or _says(call, "universal_newlines"))


def _mode(call: ast.Call, place: int, usual: str = "r") -> str:
    given = [word.value for word in call.keywords if word.arg == "mode"] + call.args[place : place + 1]
    value = given[0].value if given and isinstance(given[0], ast.Constant) else usual
    return str(value)


def _says(call: ast.Call, word: str) -> bool:
    return any(keyword.arg == word for keyword in call.keywords)


@pytest.mark.parametrize("place", OURS)
def test_every_text_file_is_utf8(place: str) -> None:
    files = sorted((ROOT / place).rglob("*.py"))
    assert files
    left = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in files
        for call in unsaid(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert left == [], 'say encoding="utf-8"'


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("p.read_text()", 1),
        ("p.write_text('ü')", 1),
        ("open(p)", 1),
        ("p.open('w')", 1),
        ("p.open('rb')", 0),
        ("open(p, 'wb')", 0),
        ("os.fdopen(f, 'w')", 1),
        ("tarfile.open(p)", 0),
        ("subprocess.run(c, text=True)", 1),
        ("subprocess.run(c, encoding='utf-8')", 0),
        ("p.read_text(encoding='utf-8')", 0),
    ],
)
def test_what_is_found(code: str, found: int) -> None:
    assert len(list(unsaid(ast.parse(code)))) == found


@pytest.mark.slow
def test_a_run_under_an_ascii_locale(tmp_path: Path) -> None:
    """Scenario, words and folder hold letters that ASCII lacks; so does the terminal's progress."""
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(
        f"# Zürich\ntask = 'ner'\ndataset = 'conll:{CONLL}'\n"
        "num-clients = 1\npartitioner = 'iid'\nnum-server-rounds = 1\n",
        encoding="utf-8-sig",
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    polyfed = [sys.executable, "-X", "warn_default_encoding", "-m", "simulations.cli"]
    done = subprocess.run(
        [*polyfed, "run", scenario.name, "--in-process", "--run-dir", str(tmp_path / "run")],
        env={**os.environ, **ascii_only, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        encoding="ascii",
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").is_file()
    said = (done.stdout + done.stderr).splitlines()
    ours = [line for line in said if "EncodingWarning" in line and "site-packages" not in line]
    assert ours == []
