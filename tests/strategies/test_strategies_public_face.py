"""What plugins import from `strategies`: all of it is there, typed, and costs nothing before it is used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from earlier_plugin import Halfway
from places import ROOT

import strategies
from strategies.conformance import Check

TYPED = '''
"""A typed plugin."""

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedAvg
from strategies import AuxTensors, Declaration, LocalRule, ParameterResult, RuleResult, to_arrays
from torch import Tensor


class Limit(LocalRule):
    """Limits gradients."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self.limit = 1.0

    def gradient(self, gradient: Tensor, weight: Tensor, aux: AuxTensors) -> Tensor:
        return gradient.clamp(-self.limit, self.limit) + 0 * aux.anchor

    def close(self, results: Mapping[str, ParameterResult]) -> RuleResult:
        return RuleResult(metrics={"limit": self.limit})


class Limited(FedAvg):
    """FedAvg under limits."""

    declaration = Declaration(local_rules=("typed:Limit",))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        reveal_type(to_arrays)
'''


def test_every_name_is_there() -> None:
    for name in strategies.__all__:
        assert getattr(strategies, name) is not None
        assert name in dir(strategies)
    assert strategies.LocalRule.__module__ == "strategies.rule"
    assert list(strategies.__all__) == sorted(
        strategies.__all__, key=lambda name: (name.upper() != name, name)
    )


def test_what_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'strategies' has no attribute 'Closing'"):
        _ = strategies.Closing
    with pytest.raises(ImportError, match="cannot import name 'Companions'"):
        from strategies import Companions  # noqa: F401


def test_torch_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, strategies; print(sys.modules.keys() & {'torch', 'flwr', 'numpy'})"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        encoding="utf-8",
    )
    assert ended.stdout == "set()\n"


@pytest.mark.parametrize("check", strategies.checks(Halfway, limit=0.5), ids=str)
def test_a_plugin_of_the_first_version_conforms_once_its_imports_are_moved(check: Check) -> None:
    check()


@pytest.mark.slow
def test_a_plugin_can_be_checked_strictly(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED, encoding="utf-8")
    (tmp_path / "untyped.py").write_text(
        "from strategies import Declaration\n\nDeclaration(localrules=())\n", encoding="utf-8"
    )
    # torch's own files would take ten times as long as all others.
    (tmp_path / "mypy.ini").write_text("[mypy-torch.*]\nfollow_imports = skip\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "typed.py", "untyped.py"]
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        encoding="utf-8",
    )
    lines = ended.stdout.splitlines()
    assert [line for line in lines if "note: Revealed type" in line and "-> dict[str, " in line]
    assert [line for line in lines if "note: " not in line] == [
        'untyped.py:3: error: Unexpected keyword argument "localrules" for "Declaration"; did you mean '
        '"local_rules"?  [call-arg]',
        "Found 1 error in 1 file (checked 2 source files)",
    ]
