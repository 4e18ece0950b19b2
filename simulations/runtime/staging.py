"""Copies code out of where polyfed is installed, so that a run is of one frozen copy of it."""

import shutil
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("server", "clients", "strategies", "models")
"""What the app is made of; the simulations package stays behind."""
OWN = Path(__file__).resolve().parents[1]
"""The simulations package."""


def stage(folder: Path) -> Path:
    """Copy polyfed's app, unchanged, into `folder / "app"` and return that path."""
    app = folder / "app"
    copy_code(OWN.parent, PACKAGES, app)
    shutil.copyfile(carried("pyproject.toml"), app / "pyproject.toml")
    return app


def carried(name: str) -> Path:
    """Return where polyfed's own pyproject.toml or requirements.lock is.

    A checkout keeps them beside the packages; an installed wheel carries them inside `simulations`, since
    what lies in site-packages itself may be anyone's.
    """
    return OWN / name if (OWN / name).exists() else OWN.parent / name


def copy_code(source: Path, packages: Iterable[str], target: Path) -> None:
    """Copy the Python files of packages from one folder to another."""
    for package in packages:
        for file in (source / package).rglob("*.py"):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
