"""The arrows between the packages, read from the imports of every file."""

import ast
from pathlib import Path

import pytest
from places import ROOT

ALLOWED = {
    "models": set(),
    "strategies": set(),
    "clients": {"models", "strategies"},
    "server": {"models", "strategies"},
    "simulations": {"models", "strategies", "clients", "server"},
}
FORBIDDEN_LIBRARIES = {"models": {"flwr", "ray"}}
FILES = sorted(path for package in ALLOWED for path in (ROOT / package).rglob("*.py"))


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_arrow_that_the_design_does_not_draw(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    imported = imported_packages(path)
    assert imported & ALLOWED.keys() <= ALLOWED[package] | {package}
    assert not imported & FORBIDDEN_LIBRARIES.get(package, set())


def test_every_package_was_read() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == ALLOWED.keys()
