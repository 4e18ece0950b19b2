"""Nothing is unpickled: neither what comes over a network nor what lies on a disk."""

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array

from strategies.wire.arrays import view_of

ROOT = Path(__file__).parent.parent
PACKAGES = ("models", "strategies", "clients", "server", "simulations")
UNPICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal"}
"""Modules whose `load` or `loads` runs what it reads."""
NAMES_ALONE = {"models/data/images.py", "models/data/source.py", "server/weights_file.py"}
"""Files that name pickle's errors: torchvision raises them, which checks the MD5 sums of what it unpickles,
and torch, which reads weights alone."""


def calls(tree: ast.Module) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Yield what is called, as it is written, and the keywords."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {each.arg or "**": each.value for each in node.keywords}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_no_file_unpickles() -> None:
    for name, tree in sources():
        imported = {
            (alias.name if isinstance(node, ast.Import) else str(node.module)).partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert name in NAMES_ALONE or not imported & UNPICKLES, name
        for called, keywords in calls(tree):
            head, _, last = called.rpartition(".")
            assert not (head in {*UNPICKLES, "joblib"} and last in ("load", "loads", "Unpickler")), (
                name,
                called,
            )
            if called in ("np.load", "numpy.load", "np.save", "numpy.save"):
                assert ast.unparse(keywords["allow_pickle"]) == "False", (name, called)
            if called == "torch.load":
                assert ast.unparse(keywords["weights_only"]) == "True", (name, called)


class Exploit:
    def __reduce__(self) -> tuple:
        return print, ("unpickled",)


def test_an_array_of_objects_is_refused_and_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for data in (pickle.dumps(Exploit()), npy_of_objects()):
        with pytest.raises(ValueError, match=r"no array as numpy.save writes it|cannot travel"):
            view_of(Array("object", (1,), "numpy.ndarray", data))
    assert capsys.readouterr().out == ""


def npy_of_objects() -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    np.save(buffer, np.array([Exploit()]), allow_pickle=True)
    return buffer.getvalue()
