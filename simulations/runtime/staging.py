"""Copies code out of where polyfed is installed, so that a run is of one frozen copy of it."""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from models.core.user_code import OURS, user_folder

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
    _copy_code(own.parent, PACKAGES, app)
    shutil.copyfile(carried if carried.exists() else own.parent / "pyproject.toml", app / "pyproject.toml")
    return app


def stage_for_workers(folder: Path) -> Path:
    """Copy polyfed, and the user's modules that this process has imported, into `folder / "code"`.

    What a module of the user's imports only later must lie in its package, or be installed on every node.
    """
    code = folder / "code"
    packages = Path(__file__).resolve().parents[2]
    _copy_code(packages, (*PACKAGES, "simulations"), code)
    _copy_code(packages / "simulations" / "face", ("polyfed",), code)
    base = user_folder()
    for name in users_modules():
        if (base / name).is_dir():
            _copy_code(base, (name,), code)
        else:
            shutil.copyfile(base / f"{name}.py", code / f"{name}.py")
    return code


def users_modules() -> list[str]:
    """Return the top-level modules and packages of the user's folder that this process has imported."""
    base = user_folder()
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        if (
            file
            and top not in OURS
            and Path(file).resolve() in (base / f"{top}.py", *_package_files(base, name))
        ):
            found.add(top)
    return sorted(found)


def _package_files(base: Path, name: str) -> tuple[Path, Path]:
    inside = base.joinpath(*name.split("."))
    return inside / "__init__.py", inside.with_name(f"{inside.name}.py")


def _copy_code(source: Path, packages: Iterable[str], target: Path) -> None:
    for package in packages:
        for file in (source / package).rglob("*.py"):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
