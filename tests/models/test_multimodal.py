"""Pictures and texts together: fusion by hand, what is missing, and clients that lack one of the two."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from faulty import Faulty
from finished import Make, finish, finish_alike, run_killed
from places import CONFIGS
from rounding import distance
from safetensors.torch import load_file
from torch import Tensor, nn

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.modalities import text_column
from models.multimodal.classification import FusedClassifier, MultimodalClassification
from models.multimodal.encoders import TextEncoder
from models.multimodal.fusion import FUSIONS, Attention, Concatenation, Gated
from models.registry import load_task
from models.state import build_model, federated_names, part_names
from simulations.scenario import load_scenario

NAMES = ("image", "text")


def toy(has_image: list[int], has_text: list[int]) -> Dataset:
    """Examples of class 0 are dark and say "a", those of class 1 are white and say "b"."""
    label = torch.arange(len(has_image)) % 2
    pictures = torch.full((len(label), 1, 8, 8), 200) * label[:, None, None, None]
    texts = [b"ab"[number : number + 1] for number in label.tolist()]
    columns = {
        "image": pictures.to(torch.uint8),
        "text": torch.from_numpy(text_column(texts, 5)),
        "has_image": torch.tensor(has_image, dtype=torch.uint8),
        "has_text": torch.tensor(has_text, dtype=torch.uint8),
        "label": label,
    }
    every = Examples(columns)
    return Dataset("toy", "multimodal", every, every, "label", ("dark", "white"), info={"max_value": 200})


BOTH = [1] * 6


def set_weights(layer: nn.Module, weight: float, bias: float = 0.0) -> None:
    for name, parameter in layer.named_parameters():
        nn.init.constant_(parameter, bias if name.endswith("bias") else weight)


@torch.no_grad()
def test_concatenation_is_a_layer_over_what_there_is() -> None:
    fusion = Concatenation(NAMES, 2, 1)
    set_weights(fusion.layer["image"], 1.0, bias=0.5)
    set_weights(fusion.layer["text"], 10.0, bias=5.0)
    vectors = {"image": torch.tensor([[1.0, 2.0]] * 4), "text": torch.tensor([[1.0, 1.0]] * 4)}
    has = {"image": torch.tensor([1.0, 1.0, 0.0, 0.0]), "text": torch.tensor([1.0, 0.0, 1.0, 0.0])}
    assert fusion(vectors, has).flatten().tolist() == [3.5 + 25.0, 3.5, 25.0, 0.0]
    del vectors["text"]
    assert fusion(vectors, has)[1].tolist() == [3.5]


@torch.no_grad()
@pytest.mark.rounding
def test_gates_are_shares_of_what_there_is() -> None:
    """Both gates see both vectors: scores of 1 + 0 for the picture, and of 0 + 3 for the text."""
    fusion = Gated(NAMES, 1, 1)
    for name, scores, proposal in (("image", [1.0, 0.0], 2.0), ("text", [0.0, 3.0], -1.0)):
        fusion.gate[name].weight.copy_(torch.tensor(scores)[:, None])
        fusion.gate[name].bias.zero_()
        set_weights(fusion.proposal[name], proposal)
    ones = {name: torch.ones(4, 1) for name in NAMES}
    has = {"image": torch.tensor([1.0, 1.0, 0.0, 0.0]), "text": torch.tensor([1.0, 0.0, 1.0, 0.0])}
    share = math.exp(1) / (math.exp(1) + math.exp(3))
    expected = [share * math.tanh(2) + (1 - share) * math.tanh(-1), math.tanh(2), math.tanh(-1), 0.0]
    assert fusion(ones, has).flatten().tolist() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
@pytest.mark.rounding
@pytest.mark.parametrize("kind", FUSIONS)
def test_what_an_example_lacks_does_not_count(kind: str) -> None:
    torch.manual_seed(0)
    fusion = FUSIONS[kind](NAMES, 8, 8)
    vectors = {name: torch.randn(3, 8) for name in NAMES}
    other = {**vectors, "text": torch.randn(3, 8) * 100}
    has = {"image": torch.ones(3), "text": torch.zeros(3)}
    assert torch.equal(fusion(vectors, has), fusion(other, has))
    assert torch.allclose(fusion({"image": vectors["image"]}, has), fusion(vectors, has), atol=1e-6)
    both = {name: torch.ones(3) for name in NAMES}
    assert not torch.allclose(fusion(vectors, both), fusion(other, both))
    assert torch.isfinite(fusion(vectors, {name: torch.zeros(3) for name in NAMES})).all()


@torch.no_grad()
@pytest.mark.rounding
def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours = Attention(NAMES, 8, 8)
    theirs = nn.MultiheadAttention(8, 4, batch_first=True)
    theirs.in_proj_weight.copy_(ours.all_three.weight)
    theirs.in_proj_bias.copy_(ours.all_three.bias)
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    tokens, seen = torch.randn(2, 3, 8), torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    found, _ = theirs(tokens, tokens, tokens, key_padding_mask=seen == 0)
    assert torch.allclose(ours._attend(tokens, seen), found, atol=1e-6)


@torch.no_grad()
@pytest.mark.rounding
def test_what_is_behind_a_text_does_not_count() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(8)
    short, long = (torch.from_numpy(text_column([b"drei"], width)).long() for width in (4, 30))
    assert torch.allclose(encoder(short), encoder(long), atol=1e-6)
    assert torch.equal(encoder(torch.zeros(1, 7).long()), encoder(torch.zeros(1, 3).long()))


def test_one_of_two_is_hidden_at_times_and_never_what_is_alone() -> None:
    task = MultimodalClassification(toy([1] * 300 + [0] * 100, [1] * 200 + [0] * 100 + [1] * 100), hide=0.3)
    batch = task.batch(task.dataset.train, torch.Generator().manual_seed(1))
    image, text = batch["has_image"], batch["has_text"]
    assert ((image + text) > 0).all()
    assert (image[200:].tolist(), text[200:].tolist()) == (
        [1.0] * 100 + [0.0] * 100,
        [0.0] * 100 + [1.0] * 100,
    )
    assert 0.2 < float((image + text == 1)[:200].float().mean()) < 0.4
    assert 0.3 < float((text[:200] == 0).sum() / (image + text == 1)[:200].sum()) < 0.7
    again = task.batch(task.dataset.train, torch.Generator().manual_seed(1))
    assert all(torch.equal(again[name], column) for name, column in batch.items())


def test_a_batch_without_pictures_has_no_column_of_them() -> None:
    task = MultimodalClassification(toy([0] * 6, BOTH))
    batch = task.batch(task.dataset.train, torch.Generator())
    assert list(batch) == ["label", "has_image", "has_text", "text"]
    model = task.build()
    task.objectives[0].loss(model, batch).backward()
    untouched = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert untouched == {name for name, _ in model.named_parameters() if ".image." in name}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_parts_are_all_that_belongs_to_one_modality(fusion: str) -> None:
    task = MultimodalClassification(toy(BOTH, [0] * 6), fusion)
    model = build_model(task, 1)
    parts = part_names(task, federated_names(model, task))
    for name in NAMES:
        assert parts[name] == tuple(key for key in model.state_dict() if f".{name}." in key)
        assert any(key.startswith("fusion.") for key in parts[name])
    assert task.trained_parts(task.dataset.train) == ["image"]


class Certain(FusedClassifier):
    """Says white of what is white or says "b"; of one alone that is missing, dark."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.encoders = nn.ModuleDict(dict.fromkeys(NAMES, nn.Identity()))
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        white = batch["image"].amax((1, 2, 3)) if "image" in batch else torch.zeros(len(batch["label"]))
        says = (batch["text"][:, 0] == ord("b")).float() if "text" in batch else torch.zeros_like(white)
        found = torch.maximum(white * batch["has_image"], says * batch["has_text"])
        return torch.stack([1 - found, found], 1) * 100


@torch.no_grad()
def test_accuracies_are_of_those_who_have_it() -> None:
    """Of six examples, three of each class, the first has no picture and the last no text."""
    task = MultimodalClassification(toy([0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]))
    sums = task.evaluate(Certain(), task.dataset.test, torch.Generator())
    assert sums["accuracy"] == (6.0, 6)
    assert sums["accuracy-image"] == (5.0, 5.0)
    assert sums["accuracy-text"] == (5.0, 5.0)
    alone = MultimodalClassification(toy([0] * 6, BOTH))
    assert alone.evaluate(Certain(), alone.dataset.test, torch.Generator())["accuracy-image"] == (0.0, 0.0)


@torch.no_grad()
def test_examples_with_nothing_to_see_count_nothing() -> None:
    task = MultimodalClassification(toy([0, 0, 1, 1, 1, 0], BOTH), modalities=["image"])
    assert task.num_examples(task.dataset.train) == 3
    batch = task.batch(task.dataset.train, torch.Generator())
    model = task.build()
    (objective,) = task.objectives
    assert objective.terms(batch) == 3
    seen = {name: column[2:5] for name, column in batch.items()}
    assert float(objective.loss(model, batch)) == pytest.approx(float(objective.loss(model, seen)), rel=1e-5)
    nothing = {name: column[:2] for name, column in batch.items()}
    assert float(objective.loss(model, nothing)) == 0


@torch.no_grad()
def test_figures_show_what_there_is() -> None:
    task = MultimodalClassification(toy([0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]))
    figures = task.figures(task.build(), task.dataset.test, torch.Generator())
    written = [text.get_text() for axes in figures["examples"].axes for text in axes.texts]
    written += [
        text.get_text()
        for axes in figures["examples"].axes
        for inner in axes.child_axes
        for text in inner.texts
    ]
    assert (written.count("(no picture)"), written.count("(no text)"), written.count('"b"')) == (1, 1, 2)
    assert sum(text.startswith("picture alone:") for text in written) == 5
    (axes,) = figures["by-class"].axes
    assert len(axes.containers) == 3
    one = MultimodalClassification(toy(BOTH, BOTH), modalities=["text"])
    assert (
        len(one.figures(one.build(), one.dataset.test, torch.Generator())["by-class"].axes[0].containers) == 1
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("fusion = 'sum'", "unknown fusion 'sum': known are attention, concat, gated"),
        ("modalities = []", "modalities must be some of image, text, each once, got []"),
        ("modalities = ['sound']", "modalities must be some of image, text, each once, got ['sound']"),
        ("hide = 1.5", "hide must be 0 to 1, got 1.5"),
        ("size = 6", "size must be a multiple of 4, got 6"),
    ],
)
def test_what_does_not_fit_is_refused(options: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_task(TaskConfig(task="multimodal", task_options=options), toy(BOTH, BOTH))
    assert message in str(error.value)


def test_batch_norm_is_refused_by_name(tiny: Make) -> None:
    task = MultimodalClassification(toy(BOTH, BOTH), norm="batch")
    with pytest.raises(UserError, match="not every client trains the part image, and it sends statistics"):
        part_names(task, federated_names(build_model(task, 1), task))


SMALL = {
    "task": "multimodal",
    "dataset": "digit-notes",
    "dataset_options": "image_only = 4, text_only = 4, missing = 0.25",
    "num_clients": 12,
    "partitioner": "natural",
    "clients_per_round": 6,
    "examples_per_client": 64,
    "batch_size": 16,
}


@pytest.mark.slow
@pytest.mark.rounding
def test_one_hash_for_one_node_and_three(tiny: Make, tmp_path: Path) -> None:
    result = finish_alike(tiny, tmp_path, **SMALL)
    assert result["final"]["loss"] < result["untrained"]["loss"]
    assert 0 < result["rows"][-1]["train"]["trains-text"] < 1


@pytest.mark.bar
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_both_tell_more_than_either_and_clients_may_lack_one(tmp_path: Path) -> None:
    """Seed 42; all have both, or eight of twelve clients have one; beside them, one modality for all."""
    runs = {
        "all": "dataset-options=",
        "some": "seed=42",
        "image": "task-options=modalities = ['image']",
        "text": "task-options=modalities = ['text']",
    }
    reached = {}
    for name, change in runs.items():
        whole = ["dataset-options="] if name != "some" else []
        changes = [*whole, change, f"run-dir={tmp_path / name}", "validation-fraction=0"]
        reached[name] = finish(load_scenario(CONFIGS / "multimodal.toml", changes))["final"]["accuracy"]
    changes = [f"run-dir={tmp_path / 'one'}", "validation-fraction=0"]
    central = finish(load_scenario(CONFIGS / "multimodal-centralized.toml", changes))
    assert reached["all"] >= max(reached["image"], reached["text"]) + 0.05
    assert reached["some"] >= max(reached["image"], reached["text"]) + 0.05
    assert reached["some"] >= reached["all"] - 0.03
    assert reached["some"] >= 0.95 * central["final"]["accuracy"]


class KilledInRound3(Faulty, MultimodalClassification):
    pass


@pytest.mark.bar
@pytest.mark.slow
def test_sigkill_and_resume(tiny: Make, tmp_path: Path) -> None:
    """Clients remember control variates and optimizers, and nothing of a part that they do not train."""
    killed, survivor = tmp_path / "killed", tmp_path / "now-it-survives"
    given = SMALL | {
        "task": "test_multimodal:KilledInRound3",
        "task_options": f"kill_at = [3, 1], unless = '{survivor}'",
    }
    scaffold = {"strategy": "Scaffold", "strategy_options": "any_optimizer = true", "keep_optimizer": True}
    scaffold["clients_per_round"] = 0  # all of them, as it needs where not all train every part
    config = tiny(**{**given, **scaffold}, num_server_rounds=4, checkpoint_every=2, run_dir=str(killed))
    run_killed(config)
    survivor.touch()
    result = finish({**config, "resume": True})
    whole = finish({**config, "run-dir": str(tmp_path / "whole")}, num_nodes=2)
    assert result["weights_sha256"] == whole["weights_sha256"]
    states = sorted((killed / "clients").rglob("client-*"))
    assert states
    for client in states:
        number, kept = int(client.name.removeprefix("client-")), load_file(sorted(client.iterdir())[-1])
        variates = {name for name in kept if "control/" in name and ".image." in name}
        assert bool(variates) == (number < 8), "the last four clients have texts alone"


@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("multimodal", ""),
        pytest.param("multimodal", "fusion = 'gated'", marks=pytest.mark.bar),
        pytest.param("multimodal", "fusion = 'concat'", marks=pytest.mark.bar),
        pytest.param("clip", "", marks=pytest.mark.bar),
    ],
)
def test_a_stack_equals_the_loop(tiny: Make, tmp_path: Path, task: str, options: str) -> None:
    """Among six clients are some without pictures, and some without texts."""
    few = {"examples_per_client": 16, "num_server_rounds": 1, "task": task, "task_options": options}
    ends = []
    for engine in ("loop", "stacked"):
        folder = tmp_path / engine
        result = finish(tiny(**SMALL | few, engine=engine, run_dir=str(folder)))
        ends.append(load_file(folder / "models" / "last.safetensors"))
        told = result["rows"][-1]["train"]
        assert (
            task == "clip" or 0 < told["trains-image"] < 1
        )  # of pairs alone, all examples are of those who train
    assert distance(*ends) < 1e-12
