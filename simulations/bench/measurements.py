"""What was measured, and on which machine, as JSON files in one folder."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.core.machine import cpu_name
from server.provenance import git_commit, source, versions

FOLDER = Path("runs", "bench")
"""Where the benchmarks put their numbers, and the docs get them from."""


def save(path: Path, found: Mapping[str, Any]) -> None:
    """Write what was measured, and what on, to a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine_line(), **found}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def machine_line() -> str:
    """Return what the numbers are of: processor, cores, versions, commit."""
    known = versions()
    packages = ", ".join(f"{name} {known[name]}" for name in ("flwr", "ray", "torch") if name in known)
    commit = git_commit(source()) or "unknown"
    return (
        f"{cpu_name()}, {os.cpu_count()} cores; Python {known['python']}, {packages}, "
        f"polyfed {known['polyfed']} ({commit[:10]}{'-dirty' if commit.endswith('-dirty') else ''})"
    )
