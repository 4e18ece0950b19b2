"""Why two runs of one config end in other weights: code, versions, machine and data of each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from server.run_schema import OptimizerUsed, RunResult
from simulations.experiments.trial import fingerprint
from simulations.runs.record import Run

NOT_RECORDED = "not recorded"
SHORT = 12
"""Digits of a hash that are shown."""
MOST_PACKAGES = 8
"""Differing packages that are named, beside those that polyfed asks for itself."""


@dataclass(frozen=True)
class Difference:
    """Something that two runs do not have in common."""

    what: str
    one: str
    other: str

    def __str__(self) -> str:
        return f"{self.what}: {self.one} | {self.other}"


def origin_lines(runs: Sequence[Run]) -> list[str]:
    """Return, for each run and the first one before it of the same config, whether and why they differ.

    Keys that say how far, where and how patiently to run are no part of it; see `fingerprint`.
    """
    firsts: dict[str, Run] = {}
    lines = []
    for run in runs:
        first = firsts.setdefault(fingerprint(run.config), run)
        if first is not run:
            lines += explained(first, run)
    return lines


def explained(one: Run, other: Run) -> list[str]:
    """Return whether two runs of one config have the same weights, and all that differs between them."""
    hashes = [run.result.weights_sha256[:SHORT] if run.result else "" for run in (one, other)]
    found = [f"  {difference}" for difference in differences_of_origin(one, other)]
    names = f"{one.name} | {other.name}: one config"
    if not all(hashes):
        why = " and ".join(run.name for run, sha in zip((one, other), hashes, strict=True) if not sha)
        return [f"{names}; {why} has no final weights to compare", *found]
    if hashes[0] == hashes[1]:
        return [f"{names} and the same weights, {hashes[0]}", *found]
    line = f"{names}, other weights ({hashes[0]} | {hashes[1]})"
    unknown = [
        what for what, value in ORIGINS.items() if NOT_RECORDED in (_shown(one, value), _shown(other, value))
    ]
    if unknown:
        found.append(f"  not recorded of both: {', '.join(unknown)}")
    if not found:
        return [f"{line}; nothing that was recorded differs{_hint(one, other)}"]
    return [f"{line}; what differs:", *found]


def differences_of_origin(one: Run, other: Run) -> list[Difference]:
    """Return what differs in where two runs come from, what decides most about rounding first."""
    found = []
    for what, value in ORIGINS.items():
        pair = [_shown(run, value) for run in (one, other)]
        if pair[0] != pair[1] and NOT_RECORDED not in pair:
            found.append(Difference(what, *pair))
    if one.result and other.result:
        found += _features(one.result, other.result)
        found += _packages(one.result, other.result)
        found += _data_files(one.result, other.result)
    return found


def origin_rows(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return what differs between any of the runs, with one value a run."""
    rows = {what: [_shown(run, value) for run in runs] for what, value in ORIGINS.items()}
    packages = {
        name: [run.result.versions.get(name, NOT_RECORDED) if run.result else NOT_RECORDED for run in runs]
        for name in dict.fromkeys(name for run in runs if run.result for name in run.result.versions)
    }
    return {what: row for what, row in {**rows, **packages}.items() if len({*row} - {NOT_RECORDED}) > 1}


def _machine(name: str) -> Callable[[RunResult], str | None]:
    def read(result: RunResult) -> str | None:
        found = getattr(result.machine, name, None)
        return str(found) if found not in (None, "") else None

    return read


def _settings(result: RunResult) -> str | None:
    if result.machine is None or not result.machine.system:  # from before they were recorded
        return None
    return ", ".join(f"{name}={value}" for name, value in result.machine.settings.items()) or "none"


def _nodes(result: RunResult) -> str | None:
    return "; ".join(result.nodes) or None


def _data(result: RunResult) -> str | None:
    return result.used.data_sha256[:SHORT] if result.used else None


def _optimizers(result: RunResult) -> str | None:
    return "; ".join(map(describe_optimizer, result.used.optimizers)) if result.used else None


ORIGINS: Mapping[str, Callable[[RunResult], str | None]] = {
    "rounds done": lambda result: str(result.server_round),
    "commit of the code": lambda result: result.git_commit,
    "lock of dependencies": lambda result: result.lock_sha256 and result.lock_sha256[:SHORT],
    "streams of random numbers": lambda result: str(result.streams),
    "data": _data,
    "optimizers": _optimizers,
    "instruction set of the CPU": _machine("instruction_set"),
    "settings of kernels": _settings,
    "threads of a model": _machine("threads"),
    "device": _machine("device"),
    "CPU": _machine("cpu"),
    "system": _machine("system"),
    "nodes": _nodes,
}
"""What of a result says where it comes from; None for what was not recorded."""


def describe_optimizer(used: OptimizerUsed) -> str:
    """Return an optimizer with all its options in one line."""
    options = {"lr": used.learning_rate, **used.options}
    options |= {} if used.max_grad_norm is None else {"max_grad_norm": used.max_grad_norm}
    options |= {"warmup_steps": used.warmup_steps} if used.warmup_steps else {}
    return f"{used.optimizer}({', '.join(f'{name}={value}' for name, value in options.items())})"


def _shown(run: Run, value: Callable[[RunResult], str | None]) -> str:
    found = value(run.result) if run.result else None
    return NOT_RECORDED if found is None else found


def _features(one: RunResult, other: RunResult) -> Iterator[Difference]:
    """Yield the vector instructions that only one of the processors has."""
    if not (one.machine and other.machine and one.machine.features and other.machine.features):
        return
    sets = [set(one.machine.features), set(other.machine.features)]
    if sets[0] != sets[1]:
        alone = [" ".join(sorted(mine - theirs)) or "none" for mine, theirs in (sets, sets[::-1])]
        yield Difference("instructions that only one CPU has", *alone)


def _packages(one: RunResult, other: RunResult) -> Iterator[Difference]:
    """Yield the packages of other versions: those that polyfed asks for, and a few of the others."""
    named = dict.fromkeys([*one.versions, *other.versions])
    for name in named:
        pair = [result.versions.get(name, "not installed") for result in (one, other)]
        if one.versions and other.versions and pair[0] != pair[1]:
            yield Difference(name, *pair)
    if not (one.packages and other.packages):
        return
    differing = [
        name
        for name in sorted({*one.packages, *other.packages} - {*named})
        if one.packages.get(name) != other.packages.get(name)
    ]
    for name in differing[:MOST_PACKAGES]:
        yield Difference(name, *(result.packages.get(name, "not installed") for result in (one, other)))
    if len(differing) > MOST_PACKAGES:
        rest = len(differing) - MOST_PACKAGES
        yield Difference(f"{rest} more packages", "see packages in result.json", "likewise")


def _data_files(one: RunResult, other: RunResult) -> Iterator[Difference]:
    if not (one.used and other.used):
        return
    files = [
        {file.name: (file.sha256 or f"{file.num_bytes} bytes")[:SHORT] for file in used.data_files}
        for used in (one.used, other.used)
    ]
    for name in dict.fromkeys([*files[0], *files[1]]):
        pair = [each.get(name, "not there") for each in files]
        if pair[0] != pair[1]:
            yield Difference(f"data file {name}", *pair)


def _hint(one: Run, other: Run) -> str:
    """Return what the records cannot tell."""
    changed = [run.result.git_commit or "" for run in (one, other) if run.result]
    if any(commit.endswith("-dirty") for commit in changed):
        return ": but the code was changed after its commit, and how is not recorded"
    if not all(changed):
        return ": but not which commit the code was of"
    return ""
