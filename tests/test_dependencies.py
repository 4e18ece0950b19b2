"""Every package that the code imports is declared in pyproject.toml, and not left to somebody else's."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STOCK = ROOT / "simulations" / "bench" / "stock"
"""An app as Flower's quickstart writes it, with a pyproject.toml of its own."""
PACKAGES = ("server", "clients", "strategies", "models", "simulations")
OPTIONAL = {name for name in PROJECT["optional-dependencies"] if name != "dev"}
"""The extras; their packages are imported only where a user asks for what they do."""


def named(requirements: Iterable[str]) -> set[str]:
    """Return the distributions that requirements name, as the metadata writes them."""
    return {normal(re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]) for requirement in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(files: Iterable[Path]) -> dict[str, Path]:
    """Return the top-level modules that the files import, also inside functions -> a file that does."""
    found = {}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0]: path for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found[node.module.split(".")[0]] = path
    return {module: path for module, path in found.items() if module not in sys.stdlib_module_names}


def undeclared(files: Iterable[Path], own: set[str], declared: set[str]) -> list[str]:
    """Return a line for each import of a package that is not declared."""
    return [
        f"{path.relative_to(ROOT)} imports {module}"
        for module, path in sorted(imported(files).items())
        if module not in own and not declared & set(map(normal, BROUGHT_BY.get(module, [module])))
    ]


BROUGHT_BY = packages_distributions()
"""Top-level module -> the distributions that bring it."""
CORE = named(PROJECT["dependencies"])
EXTRA = {name for extra in OPTIONAL for name in named(PROJECT["optional-dependencies"][extra])}
DEV = named(PROJECT["optional-dependencies"]["dev"])


def test_what_the_code_imports_is_declared() -> None:
    files = [
        path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if STOCK not in path.parents
    ]
    assert undeclared(files, set(PACKAGES), CORE | EXTRA) == []


def test_what_the_tests_import_is_declared() -> None:
    files = list((ROOT / "tests").rglob("*.py"))
    own = {*PACKAGES, *(path.stem for path in files), "polyfed_halfway"}  # the last is a page's own package
    assert undeclared(files, own, CORE | EXTRA | DEV) == []


def test_a_package_that_is_not_declared_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_dependencies.ROOT", tmp_path)
    (tmp_path / "a.py").write_text(
        "import os, numpy.linalg\n\ndef f():\n    from sklearn import svm\n", encoding="utf-8"
    )
    assert undeclared([tmp_path / "a.py"], set(), {"numpy"}) == ["a.py imports sklearn"]
    assert undeclared([tmp_path / "a.py"], set(), {"numpy", "scikit-learn"}) == []
