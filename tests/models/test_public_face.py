"""The names that a plugin imports from `models`."""

import ast
import importlib
import subprocess
import sys

import pytest
from places import ROOT

import models

SOURCE = ast.parse((ROOT / "models" / "__init__.py").read_text(encoding="utf-8"))
TYPED = {
    (alias.name, str(node.module))
    for block in SOURCE.body
    if isinstance(block, ast.If)
    for node in block.body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
"""(name, module), as type checkers read them."""


def test_what_runs_is_what_type_checkers_read() -> None:
    assert {name for name, _ in TYPED} == set(models.__all__)
    for name, module in TYPED:
        assert getattr(models, name) is getattr(importlib.import_module(module), name)
    assert set(models.__all__) <= set(dir(models))


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'models' has no attribute 'Tusk'"):
        _ = models.Tusk
    with pytest.raises(ImportError, match="Tusk"):
        from models import Tusk  # noqa: F401


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("import models.core.errors", {"torch", "numpy", "pydantic"}),
        ("from models import UserError", {"torch", "numpy", "pydantic"}),
        ("from models import TaskConfig", {"torch", "numpy"}),
        ("import simulations.cli", {"torch", "numpy", "pydantic", "flwr", "ray"}),
    ],
)
def test_what_needs_no_torch_imports_none(code: str, without: set[str]) -> None:
    command = f"import sys; {code}; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert not without & set(ended.stdout.split())


@pytest.mark.parametrize("face", ["models", "strategies", "server"])
def test_plugins_are_typed(face: str) -> None:
    """Without the file mypy takes nothing from a package, and a callback has a base class of type Any."""
    assert (ROOT / face / "py.typed").exists()
