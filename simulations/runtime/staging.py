"""Copies code out of where polyfed is installed, so that a run is of one frozen copy of it."""

import shutil
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("server", "clients", "strategies", "models")
"""What the app is made of; the simulations package stays behind."""


def stage(folder: Path) -> Path:
    """Copy polyfed's app, unchanged, into `folder / "app"` and return that path.

    A checkout keeps pyproject.toml beside the packages; an installed wheel carries it inside
    `simulations`, since what lies in site-packages itself may be anyone's.
    """
    own = Path(__file__).resolve().parents[1]
    carried = own / "pyproject.toml"
    app = folder / "app"
    copy_code(own.parent, PACKAGES, app)
    shutil.copyfile(carried if carried.exists() else own.parent / "pyproject.toml", app / "pyproject.toml")
    return app


def copy_code(source: Path, packages: Iterable[str], target: Path) -> None:
    """Copy the Python files of packages from one folder to another."""
    for package in packages:
        for file in (source / package).rglob("*.py"):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
