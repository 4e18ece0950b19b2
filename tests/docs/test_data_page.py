"""docs/data.md: the tables of columns are those that datasets are checked by, and its examples load."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from models.core.config import TaskConfig
from models.data.datasets import DATASETS, load_dataset
from models.data.kinds import KINDS, markdown

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"\n{title}\n")[2].partition("\n##")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_columns_of_each_kind_are_those_that_are_checked(kind: str) -> None:
    tables = [line for line in section(f"### {kind}").splitlines() if line.startswith("|")]
    assert "\n".join(tables) == markdown(kind)


def test_every_kind_is_on_the_page_and_has_a_dataset() -> None:
    listed = re.findall(
        r"^### (\S+)$", PAGE.partition("\n## Columns\n")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert set(listed) == KINDS.keys() == {source.kind for source in DATASETS.values()}


def test_the_environments_on_the_page_are_made() -> None:
    named = re.findall(r"^\| `(gym:[^`]+)`", section("## Environments"), re.MULTILINE)
    assert len(named) == 13
    optional = {"ale_py": "ale_py", "ALE/": "ale_py", "MinAtar/": "minatar", "LunarLander": "Box2D"}
    for name in named:  # what polyfed does not need may be missing
        if all(find_spec(module) for begins, module in optional.items() if name.startswith(f"gym:{begins}")):
            assert len(load_dataset(TaskConfig(dataset=name, num_clients=2)).train) in (8, 16)
    dataset = load_dataset(TaskConfig(dataset="gym:CartPole-v1?length=0.3..0.7", num_clients=2))
    assert sorted(dataset.train["physics"].unique().tolist()) == pytest.approx([0.4, 0.6])


def test_the_table_of_names_on_the_page_is_parallel_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = section("## Parallel text")
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    command = page.partition("```sh\n")[2].partition("```")[0]
    options = re.findall(r'dataset-options="([^"]+)"', command)
    config = TaskConfig(dataset=f"parallel:{tmp_path}/names.tsv", dataset_options=options[0])
    dataset = load_dataset(config)
    assert dataset.client_names == ("de", "es", "fr", "it", "nl")
    assert "num-clients=5" in command
    assert len(dataset.train) > 2000
    assert len(dataset.test) > 200
