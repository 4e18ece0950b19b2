"""README.md and the pages of docs/ against what there is, without building the site."""

import re
import tomllib

import pytest
from places import ROOT

from models.registry import TASKS
from strategies.registry import STRATEGIES

README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("**/*.md"))
SCENARIOS = ROOT / "simulations" / "configs"
NO_TASK_OF_ITS_OWN = {"mnist-skewed", "scale", "slow-clients"}
"""Scenarios that belong to a bench."""


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.stem)
def test_every_file_that_a_page_names_is_there(page) -> None:
    rooms = "clients|docs|models|server|simulations|strategies|tests"
    named = re.findall(
        rf"(?<![\w/.-])(?:{rooms})/[\w./-]*\w\.(?:py|toml|md|png)\b", page.read_text(encoding="utf-8")
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("https://")]
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "built-in-tasks.md"], ids=lambda page: page.stem)
def test_the_table_of_tasks_names_them_all_with_their_scenarios(page) -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \| .+? \| (`.+`) \|$", page.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    table = {task: set(re.findall(r"`([\w-]+)`", scenarios)) for task, scenarios in rows if task in TASKS}
    assert table.keys() == TASKS.keys()
    there: dict[str, set[str]] = {}
    for file in SCENARIOS.glob("*.toml"):
        if file.stem not in NO_TASK_OF_ITS_OWN:
            there.setdefault(tomllib.loads(file.read_text(encoding="utf-8")).get("task", "cnn"), set()).add(
                file.stem
            )
    assert table == there


def test_the_page_of_strategies_names_them_all() -> None:
    text = "".join(
        (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for name in ("built-in-strategies", "privacy")
    )
    assert [name for name in STRATEGIES if f"`{name}`" not in text] == []
