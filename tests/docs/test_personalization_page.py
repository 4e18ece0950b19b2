"""docs/personalization.md, followed step by step, in one round of few rows."""

import re
import shlex
from pathlib import Path

import pytest
from command_line import polyfed
from plugin_pages import ROOT

from simulations.report.client_distribution import client_distributions
from simulations.runs.reader import read_run

PAGE = (ROOT / "docs" / "personalization.md").read_text(encoding="utf-8")
SHORTENED = ["-c", "num-server-rounds=1", "-c", "examples-per-client=20", "-c", "local-epochs=1"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_page_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (scenario,), (commands,) = blocks("toml"), blocks("sh")
    Path("skewed.toml").write_text(scenario, encoding="utf-8")
    for line in commands.splitlines():
        program, command, *words = shlex.split(line)
        assert program == "polyfed"
        if "runs/*" in words:  # as the shell would
            words[words.index("runs/*") : words.index("runs/*") + 1] = map(
                str, sorted(Path("runs").iterdir())
            )
        ended = polyfed(command, *words, *(SHORTENED if command == "run" else []))
        assert ended.code == 0, f"{line}: {ended.err}"
        if command == "compare":
            assert "Config where it differs" in ended.out
    rows = re.findall(r"^\| `(\w+)`(, personal models)? \|", PAGE, flags=re.MULTILINE)
    assert {name for name, _ in rows} == {path.name for path in Path("runs").iterdir()}
    for name, personal in rows:
        measured = client_distributions(read_run(Path("runs") / name))
        assert list(measured) == ["accuracy", "personal-accuracy"][: 2 if personal else 1]
        assert len(measured["accuracy"].values) == 10
    assert Path("personal.html").exists()
