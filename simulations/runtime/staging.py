"""Copies the app out of where polyfed is installed, so that a run is of one frozen copy of the code."""

import shutil
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
    source = own.parent
    app = folder / "app"
    for package in PACKAGES:
        for file in (source / package).rglob("*.py"):
            target = app / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    shutil.copyfile(carried if carried.exists() else source / "pyproject.toml", app / "pyproject.toml")
    return app
