"""What computed a result: the commit, the lock file, the versions, the processor."""

import hashlib
import os
import platform
import re
import subprocess
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from server.run_schema import Machine

SOURCE = "POLYFED_SOURCE"
"""Environment variable: the folder that the running copy of polyfed was made from, as Flower's copies are."""
LOCK_FILE = "requirements.lock"
FOR_DEVELOPERS = ("dev", "docs")
"""Extras of pyproject.toml that no run needs."""
GIT_TIMEOUT = 5.0
"""Seconds; a result must not wait for a slow disk."""


def source() -> Path:
    """Return the folder that polyfed's packages lie in, or were copied from for this run."""
    return Path(os.environ.get(SOURCE) or Path(__file__).resolve().parents[1])


@cache
def versions() -> dict[str, str]:
    """Return Python's version, polyfed's, and those of the packages that its pyproject.toml names.

    Extras count where they are installed. What those packages need in turn is named by the lock file;
    to look it up would take a second.
    """
    found = {"python": platform.python_version(), "polyfed": _version("polyfed") or "not installed"}
    for package in ("flwr", "torch", "ray", *_declared()):
        if installed := _version(package):
            found[package] = installed
    return found


@cache
def git_commit(folder: Path) -> str | None:
    """Return the commit of the checkout in `folder`, with "-dirty" where it was changed since; else None."""
    if not (folder / ".git").exists():  # a repository further up is not polyfed's
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        said = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT,
            check=True,
            encoding="utf-8",
        )
    except (OSError, subprocess.SubprocessError):  # no git, or a checkout that it refuses to read
        return None
    return said.stdout.strip() or None


def lock_sha256(folder: Path) -> str | None:
    """Return the SHA-256 of the lock file of the dependencies; None where there is none."""
    path = _carried(folder, LOCK_FILE)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else None


def machine(threads: int) -> Machine:
    """Return what computes here, with `threads` threads."""
    return Machine(cpu=_cpu(), instruction_set=torch.backends.cpu.get_cpu_capability(), threads=threads)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(
        r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8") if info.exists() else "", re.MULTILINE
    )
    return named[1] if named else platform.processor() or platform.machine()


def _declared() -> list[str]:
    """Return the packages that pyproject.toml names, but for those that only developers need."""
    path = _carried(Path(__file__).resolve().parents[1], "pyproject.toml")
    if path is None:
        return []
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    texts = list(project["dependencies"])
    for name, extra in project["optional-dependencies"].items():
        texts += extra if name not in FOR_DEVELOPERS else []
    return [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in texts]


def _carried(folder: Path, name: str) -> Path | None:
    """Return the file beside polyfed's packages; an installed polyfed carries it inside `simulations`."""
    places = (folder / "simulations" / name, folder / name)
    return next((place for place in places if place.is_file()), None)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
