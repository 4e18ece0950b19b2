"""Installed packages against what pyproject.toml asks for, and against the lock."""

import platform
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from server.provenance import LOCK_FILE, carried, packages, source
from simulations.doctor.finding import Finding

FIRST = ("flwr", "ray", "torch")
"""Packages that have a row of their own."""
SHOWN = 4
"""Packages that a line names; of more it says how many."""
LOCKED = re.compile(r"^(\S+?)==(\S+)(?: ; ([^\\\n]+?))? \\?$", re.MULTILINE)
INSTALL = "make simulate, or pip install --no-deps --require-hashes -r requirements.lock"


def package_findings() -> list[Finding]:
    """Look at this environment."""
    installed = packages()
    pyproject, lock = carried(source(), "pyproject.toml"), carried(source(), LOCK_FILE)
    rows: list[Finding] = []
    if pyproject:
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        rows += against_project(
            project["requires-python"], list(with_extras(project["dependencies"])), installed
        )
    if lock:
        rows.append(against_lock(lock.read_text(encoding="utf-8"), installed))
    else:
        rows.append(Finding("lock", f"no {LOCK_FILE} beside polyfed, so nothing to compare with"))
    return rows


def with_extras(dependencies: Iterable[str]) -> Iterator[Requirement]:
    """Yield the requirements, and what their extras ask for, as flwr[simulation] does for Ray."""
    for line in dependencies:
        requirement = Requirement(line)
        yield requirement
        for extra in requirement.extras:
            yield from _of_extra(requirement.name, extra)


def against_project(
    python: str,
    wanted: Iterable[Requirement],
    installed: Mapping[str, str],
    running: str = platform.python_version(),
) -> list[Finding]:
    """Compare what is installed with what is asked for; a package that does not fit makes runs fail."""
    rows = []
    if Version(running) not in SpecifierSet(python):
        rows.append(
            Finding("Python", f"{running}, and polyfed needs {python}", "wrong", "use another Python")
        )
    else:
        rows.append(Finding("Python", running))
    asked: dict[str, list[Requirement]] = {}
    for requirement in wanted:
        asked.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    wrong = {name: said for name, each in asked.items() if (said := _misfit(name, each, installed))}
    for name in (*FIRST, *sorted(wrong.keys() - {*FIRST})):
        if name in wrong:
            fitting = " ".join(f'"{name}{each.specifier}"' for each in asked[name])
            rows.append(Finding(name, wrong[name], "wrong", f"pip install {fitting}, or {INSTALL}"))
        elif name in installed:
            rows.append(Finding(name, installed[name]))
    if not wrong:
        rows.append(Finding("packages", f"all {len(asked)} as pyproject.toml asks"))
    return rows


def against_lock(lock: str, installed: Mapping[str, str]) -> Finding:
    """Say how many packages are not in the version that the lock names."""
    locked = {
        name: version
        for name, version, marker in LOCKED.findall(lock)
        if not marker or Requirement(f"{name} ; {marker}").marker.evaluate()  # type: ignore[union-attr]
    }
    other = [
        f"{name} {installed.get(name) or 'is missing'} (lock: {version})"
        for name, version in locked.items()
        if not _same(installed.get(name), version)
    ]
    # What most decides about results comes first.
    other.sort(key=lambda line: line.split()[0] not in FIRST)
    if not other:
        return Finding("lock", f"all {len(locked)} packages as locked")
    more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
    return Finding(
        "lock",
        f"{len(other)} of {len(locked)} packages differ: {', '.join(other[:SHOWN])}{more}",
        "note",
        f"{INSTALL}, for results that are the same bit for bit elsewhere",
    )


def _of_extra(name: str, extra: str) -> Iterator[Requirement]:
    """Yield what a package asks for only where it is installed with the extra."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            yield requirement


def _misfit(name: str, wanted: Iterable[Requirement], installed: Mapping[str, str]) -> str:
    """Return in what a package is not as it is wanted; "" where it is."""
    specifier = SpecifierSet()
    for requirement in wanted:
        specifier &= requirement.specifier
    needed = f"polyfed needs {specifier}" if str(specifier) else "polyfed needs it"
    if name not in installed:
        return f"is not installed, and {needed}"
    fits = specifier.contains(installed[name], prereleases=True)
    return "" if fits else f"{installed[name]}, and {needed}"


def _same(installed: str | None, locked: str) -> bool:
    """Return whether a version is the locked one; a build such as 2.14.1+cpu is of the same version."""
    try:
        return installed is not None and Version(Version(installed).public) == Version(locked)
    except InvalidVersion:
        return installed == locked
