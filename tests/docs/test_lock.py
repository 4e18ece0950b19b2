"""requirements.lock and requirements-dev.lock against pyproject.toml, without a network."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from plugin_pages import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUNTIME, DEV = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("requirements.lock", "requirements-dev.lock")
)


def locked(lock: str) -> dict[str, Version]:
    """Return name -> version of each package that the lock holds."""
    pinned = re.findall(r"^(\S+?)==(\S+)", lock, flags=re.MULTILINE)
    assert len(pinned) > 100
    assert len(dict(pinned)) == len(pinned), "a package is locked in two versions"
    return {name: Version(version) for name, version in pinned}


def asked(extra: str = "") -> list[Requirement]:
    """Return what pyproject.toml asks for, or one of its extras with the extras that this one names."""
    project = PYPROJECT["project"]
    found = []
    for line in project["optional-dependencies"][extra] if extra else project["dependencies"]:
        requirement = Requirement(line)
        inner = requirement.extras if requirement.name == project["name"] else ()
        found += [one for name in inner for one in asked(name)] or [requirement]
    return found


@pytest.mark.parametrize("lock", [RUNTIME, DEV], ids=["runtime", "dev"])
def test_every_package_has_hashes_and_no_host_is_named(lock: str) -> None:
    for entry in re.split(r"\n(?=\S)", lock.split("\n", 2)[2]):
        assert re.match(
            r"[a-z0-9.-]+==\S+( ; [^\\]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n?)+$", entry
        ), entry
    assert not re.search(r"://|--\w*index|--find-links|@ ", lock)


def test_both_locks_hold_the_same_versions() -> None:
    assert locked(RUNTIME).items() <= locked(DEV).items()


@pytest.mark.parametrize(("extra", "lock"), [("", RUNTIME), ("dev", DEV)], ids=["runtime", "dev"])
def test_the_lock_holds_what_pyproject_asks_for(extra: str, lock: str) -> None:
    """A failure means that the dependencies were changed: run `make lock`."""
    versions = locked(lock)
    wanted = asked(extra) + list(map(Requirement, PYPROJECT["build-system"]["requires"]))
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not locked: run `make lock`"
        assert requirement.specifier.contains(versions[name], prereleases=True), (
            f"{requirement}, locked {versions[name]}"
        )


def needs(package: str, extra: str) -> list[Requirement]:
    """Return what an installed package needs here, under an extra of its own or, with "", without one."""
    try:
        needed = map(Requirement, requires(package) or ())
    except PackageNotFoundError:  # a package for other systems
        return []
    return [each for each in needed if each.marker is None or each.marker.evaluate({"extra": extra})]


def test_the_lock_is_whole() -> None:
    """It is installed with `--no-deps`: what a package needs and the lock forgot would be missing."""
    versions = locked(DEV)
    left, seen, missing = [(name, "") for name in versions], set(), []
    while left:
        asks = left.pop()
        seen.add(asks)
        for needed in needs(*asks):
            name = canonicalize_name(needed.name)
            left += {(name, extra) for extra in needed.extras} - seen
            if name not in versions or not needed.specifier.contains(versions[name], prereleases=True):
                missing.append(f"{asks} needs {needed}, locked: {versions.get(name)}")
    assert not missing
