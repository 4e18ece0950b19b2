"""`polyfed tasks NAME` and `polyfed strategies NAME`: every option, with its default and its meaning."""

import pytest
from command_line import polyfed

from models.core.plugins import constructor_parameters
from models.registry import TASKS, task_classes
from simulations.catalogue.details import meaning
from simulations.catalogue.strategies import options
from strategies.registry import STRATEGIES


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_option_of_a_strategy_has_a_meaning(name: str) -> None:
    assert [option for option in options(STRATEGIES[name]) if not meaning(STRATEGIES[name], option)] == []


@pytest.mark.parametrize("name", TASKS)
def test_every_option_of_a_task_has_a_meaning(name: str) -> None:
    for cls in task_classes(name, TASKS[name]):
        _, *taken = constructor_parameters(cls)
        assert [option for option in taken if not meaning(cls, option)] == []


@pytest.mark.parametrize(
    ("task", "option", "said"),
    [
        (
            "ner",
            "backbone",
            '"scratch" (a small BERT), "minilm", the absolute folder of a saved model, or a name on the '
            "Hugging Face hub",
        ),
        ("ner", "strict", "whether an entity must begin with a B- tag"),
        (
            "masked-lm",
            "warmup_steps",
            "the first steps of each round, over which the learning rate rises to its value",
        ),
        ("masked-lm", "mask_ratio", "the part of the tokens that is predicted"),
        (
            "vae",
            "likelihood",
            'what a pixel x in [0, 1] is: "bernoulli", "binarised" or "continuous-bernoulli"',
        ),
    ],
)
def test_a_meaning_needs_no_source_code(task: str, option: str, said: str) -> None:
    assert {meaning(cls, option) for cls in task_classes(task, TASKS[task])} == {said}


def test_a_strategy_in_detail() -> None:
    ended = polyfed("strategies", "LocalDP")
    assert (ended.code, ended.err) == (0, "")
    assert "paper: arXiv:1302.3203" in ended.out.splitlines()
    cells = [[cell for cell in line.split("  ") if cell] for line in ended.out.splitlines()]
    rows = {row[0]: [cell.strip() for cell in row[1:]] for row in cells if len(row) == 3}
    assert rows["clipping_norm"] == ["required", "L2 norm that every client clips its update to."]
    assert rows["target_epsilon"][0] == "optional"


def test_a_task_in_detail() -> None:
    ended = polyfed("tasks", "gan")
    assert (ended.code, ended.err) == (0, "")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert "latent 32 numbers that an image is drawn from" in lines
    assert "scenarios: gan, gan-centralized" in lines
    assert "freeze [] patterns of the state that stays as it is" in lines


def test_one_that_is_not_there_is_a_mistake() -> None:
    assert polyfed("tasks", "gam").err == "polyfed: unknown task 'gam': did you mean gan?\n"
    assert "did you mean FedProx" in polyfed("strategies", "FedPox").err
