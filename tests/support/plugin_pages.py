"""Following the pages for plugin authors: their packages are installed as a reader would install them."""

import os
import subprocess
import sys
from pathlib import Path

from places import ROOT


def install(folder: Path) -> Path:
    """Let pip install a package into "site" beside its folder, without a network; return "site"."""
    site = folder.parent / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--target", str(site), str(folder)]
    subprocess.run(command, check=True)
    return site


def finish(folder: Path, site: Path, *command: object) -> None:
    """Run `python -m COMMAND` in a package's folder, with what is installed in `site`; it must succeed."""
    words = [sys.executable, "-m", *map(str, command)]
    environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    ended = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
