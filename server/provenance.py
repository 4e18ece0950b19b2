"""What computed a result: the commit, the lock file, the versions, the processor."""

import hashlib
import os
import platform
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from models.core.config import TaskConfig
from models.core.errors import UserError
from server.run_schema import Machine

# torch, and what needs it, is imported where it is used: `polyfed --version` does without.

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


def provenance(config: TaskConfig) -> dict[str, Any]:
    """Return the entries of result.json that say what computed it."""
    from models.core.seeds import STREAMS

    return {
        "versions": versions(),
        "packages": packages(),
        "git_commit": git_commit(source()),
        "lock_sha256": lock_sha256(source()),
        "machine": machine(config.threads, config.device),
        "streams": STREAMS,
    }


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


def _device_name(requested: str) -> str:
    import torch

    from models.core.device import choose_device
    from models.core.machine import device_name

    try:
        return device_name(choose_device(requested, torch.cuda.device_count(), granted=None))
    except UserError:  # the run has failed for it
        return ""


@cache
def packages() -> dict[str, str]:
    """Return the version of every package that is installed, by its name in lower case with dashes.

    They are read off the names of the folders NAME-VERSION.dist-info, of which Python takes the first: to
    open the files in them would take a hundred times as long.
    """
    found: dict[str, str] = {}
    for place in map(Path, sys.path):
        for folder in place.glob("*.dist-info") if place.is_dir() else ():
            name, _, installed = folder.stem.partition("-")
            found.setdefault(name.lower().replace("_", "-"), installed)
    return dict(sorted(found.items()))


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
    path = carried(folder, LOCK_FILE)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else None


def machine(threads: int, device: str) -> Machine:
    """Return what computes here, with `threads` threads on the device of the run config."""
    from models.core.machine import cpu_features, cpu_name, instruction_set, settings

    libc = " ".join(filter(None, platform.libc_ver()))
    return Machine(
        cpu=cpu_name(),
        instruction_set=instruction_set(),
        threads=threads,
        features=list(cpu_features()),
        settings=settings(),
        system=f"{platform.system()} {platform.machine()}" + (f", {libc}" if libc else ""),
        device=_device_name(device),
    )


def _declared() -> list[str]:
    """Return the packages that pyproject.toml names, but for those that only developers need."""
    path = carried(Path(__file__).resolve().parents[1], "pyproject.toml")
    if path is None:
        return []
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    texts = list(project["dependencies"])
    for name, extra in project["optional-dependencies"].items():
        texts += extra if name not in FOR_DEVELOPERS else []
    return [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in texts]


def carried(folder: Path, name: str) -> Path | None:
    """Return the file beside polyfed's packages; an installed polyfed carries it inside `simulations`."""
    places = (folder / "simulations" / name, folder / name)
    return next((place for place in places if place.is_file()), None)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
