"""Beginning with the weights of an earlier run, and freezing some of them."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from finished import Make, finish
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.core.seeds import generator_for, seed_torch
from models.data.datasets import load_dataset
from models.images.gan import ImageGan
from models.images.networks import ConvNet
from models.optimizers import make_optimizers
from models.registry import load_task
from models.state import build_model, federated_names, weights_sha256
from models.task import Objective, Task
from server.plan import make_plan
from server.starting_point import StartingPoint
from server.transfer import Transfer, take_over
from server.weights_file import read_weights
from simulations.report.page import write_report
from simulations.scenario import defaults, load_scenario

FROZEN = "freeze = ['features.*']"
FEATURES = [f"features.{layer}.{kind}" for layer in (0, 3) for kind in ("weight", "bias")]
HEAD = [f"classifier.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]


@pytest.fixture
def of_four_classes(tmp_path: Path) -> Path:
    """Write the weights of a network for digits that tells four classes apart."""
    torch.manual_seed(0)
    return write(tmp_path / "four.safetensors", ConvNet(1, 8, 8, 4, "none").state_dict())


def write(path: Path, weights: Mapping[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights), path)
    return path


def take_over_file(path: Path, model: nn.Module, local: Sequence[str]) -> Transfer:
    return take_over(StartingPoint(path), model, local)


def task_of(name: str, options: str = "") -> Task:
    config = TaskConfig(task=name, task_options=options, dataset="digits")
    return load_task(config, load_dataset(config))


def last_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "models" / "last.safetensors")


def test_equal_names_and_shapes_are_loaded_and_the_rest_is_new(of_four_classes: Path) -> None:
    task = task_of("cnn", FROZEN)
    model, fresh = build_model(task, 1), build_model(task, 1).state_dict()
    transfer = take_over_file(of_four_classes, model, task.local)
    given = load_file(of_four_classes)
    assert (transfer.loaded, transfer.other_shape) == ([*FEATURES, *HEAD[:2]], HEAD[2:])
    assert (transfer.new, transfer.local, transfer.unused) == ([], [], [])
    assert transfer.frozen == FEATURES
    assert transfer.sha256 == weights_sha256(given)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (given if name in transfer.loaded else fresh)[name]), name
    assert transfer.lines() == [
        f"init-from {of_four_classes}, loaded: features (4), classifier (2)",
        f"init-from {of_four_classes}, new, as the shape is another: classifier (2)",
        f"init-from {of_four_classes}, frozen: features (4)",
    ]


def test_an_encoder_with_another_head_is_loaded_alone(of_four_classes: Path, tmp_path: Path) -> None:
    encoder = {name: tensor for name, tensor in load_file(of_four_classes).items() if name in FEATURES}
    path = write(tmp_path / "encoder.safetensors", {**encoder, "projector.weight": torch.ones(2)})
    transfer = take_over_file(path, build_model(task_of("cnn"), 1), ())
    assert (transfer.loaded, transfer.new, transfer.unused) == (FEATURES, HEAD, ["projector.weight"])


def test_a_file_of_torchvision_is_loaded_into_the_features(tmp_path: Path) -> None:
    """Where the shapes are equal: this one is for images of three channels, and digits have one."""
    torch.manual_seed(3)
    pretrained = models.shufflenet_v2_x0_5().state_dict()
    path = tmp_path / "shufflenet.pth"
    torch.save(pretrained, path)
    model = build_model(task_of("cnn", "network = 'shufflenet_v2_x0_5', norm = 'group'"), 1)
    transfer = take_over_file(path, model, ())
    state = model.state_dict()
    assert transfer.other_shape == ["features.conv1.0.weight"]
    assert transfer.new == ["classifier.weight", "classifier.bias"]
    assert set(transfer.loaded) == state.keys() - {*transfer.other_shape, *transfer.new}
    for name in transfer.loaded:
        assert torch.equal(state[name], pretrained[name.removeprefix("features.")]), name
    assert {name.split(".")[0] for name in transfer.unused} > {"fc"}
    assert transfer.lines()[-1] == (
        f"init-from {path}: its names are looked for below features, where most of them have a place"
    )
    # In the other format it is the same.
    again = build_model(task_of("cnn", "network = 'shufflenet_v2_x0_5', norm = 'group'"), 1)
    other = take_over_file(write(path.with_suffix(".safetensors"), pretrained), again, ())
    assert (other.loaded, other.sha256) == (transfer.loaded, transfer.sha256)


class Exploit:
    def __reduce__(self) -> tuple:
        return print, ("unpickled",)


@pytest.mark.parametrize("what", ["code", "network", "list", "damage"])
def test_a_file_of_torch_that_is_more_than_weights_is_not_run(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path = tmp_path / "model.pth"
    given = {"code": {"w": Exploit()}, "network": nn.Linear(1, 1), "list": [torch.ones(1)], "damage": {}}
    torch.save(given[what], path)
    if what == "damage":
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError) as error:
        make_plan(tiny(init_from=str(path)))
    assert str(error.value).startswith(f"init-from {path} cannot be read (")
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)
    assert "unpickled" not in capsys.readouterr().out


STRANGE: dict[str, tuple[object, str]] = {
    "expanded": ({"w": torch.zeros(1).expand(10**8)}, "got 400,000,000 bytes of 4)"),
    "meta": ({"w": torch.empty(3, device="meta")}, "got one on the device meta)"),
    "number": ({1: torch.ones(1), "1": torch.zeros(1)}, "names of weights must be texts, got 1)"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_tensors_of_torch_that_are_no_plain_weights(tmp_path: Path, what: str) -> None:
    held, why = STRANGE[what]
    torch.save(held, tmp_path / "w.pt")
    with pytest.raises(UserError, match=re.escape(why)):
        read_weights(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:.*TypedStorage")
def test_a_quantized_tensor_is_no_plain_weight(tmp_path: Path) -> None:
    torch.save({"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="got a nested, sparse or quantized one"):
        read_weights(tmp_path / "w.pt")


def test_a_part_of_a_larger_tensor_is_a_plain_weight(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(6.0).view(2, 3).T[1:]}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt")["w"].tolist() == [[1, 4], [2, 5]]


@pytest.mark.parametrize("content", [b"epoch,loss\n1,0.5\n", b"hello world", b"", b"\x80\x02.", b"R."])
def test_what_torch_did_not_write_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(
        UserError, match=r"^init-from .*w\.pt cannot be read \(\S.*\): give another run or file$"
    ):
        read_weights(tmp_path / "w.pt")


def test_half_precision_is_loaded_in_the_models_own(of_four_classes: Path, tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in load_file(of_four_classes).items()}
    model = build_model(task_of("cnn"), 1)
    take_over_file(write(tmp_path / "half.safetensors", halves), model, ())
    weight = model.state_dict()["features.0.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, halves["features.0.weight"].float())


def test_a_vae_with_longer_codes_keeps_what_does_not_touch_them(tmp_path: Path) -> None:
    short, long = (build_model(task_of("vae", f"latent = {latent}"), 1) for latent in (8, 16))
    transfer = take_over_file(write(tmp_path / "vae.safetensors", short.state_dict()), long, ())
    assert transfer.loaded
    assert {name.split(".")[1] for name in transfer.other_shape} == {"to_vector", "from_vector"}


def test_what_stays_with_the_clients_is_not_loaded_but_named(tmp_path: Path) -> None:
    task = task_of("gan", "width = 8, local = ['discriminator.*']")
    whole = build_model(task_of("gan", "width = 8"), 2).state_dict()
    model, fresh = build_model(task, 1), build_model(task, 1).state_dict()
    transfer = take_over_file(write(tmp_path / "gan.safetensors", whole), model, task.local)
    assert {name.split(".")[0] for name in transfer.loaded} == {"generator"}
    assert {name.split(".")[0] for name in transfer.local} == {"discriminator"}
    assert all(torch.equal(model.state_dict()[name], fresh[name]) for name in transfer.local)
    judge = {name: tensor for name, tensor in whole.items() if name.startswith("discriminator.")}
    path = write(tmp_path / "judge.safetensors", judge)
    with pytest.raises(UserError, match=rf"\({len(judge)} that stay with the clients\)$"):
        take_over_file(path, model, task.local)


def test_the_best_model_is_preferred_to_the_last(tiny: Make, of_four_classes: Path, tmp_path: Path) -> None:
    config = tiny(init_from=str(tmp_path / "earlier"), run_dir=str(tmp_path / "run"))
    for kept in ("last", "best"):
        path = tmp_path / "earlier" / "models" / f"{kept}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(of_four_classes, path)
        transfer = make_plan(config).transfer
        assert transfer
        assert transfer.source == str(path)


def remarks_of(config: dict[str, Value]) -> list[str]:
    """Return what is said of the weights, without the file."""
    transfer = make_plan(config).transfer
    assert transfer
    return [line.split(": ", 1)[1] for line in transfer.lines() if ", " not in line.split(": ", 1)[0]]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run without labels whose probe was never better than before it had learned anything."""
    folder = tmp_path_factory.mktemp("pretrained") / "run:1"
    config = {**defaults(), "task": "contrastive", "dataset": "digits", "run-dir": str(folder)}
    small = {"num-clients": 2, "num-server-rounds": 1, "learning-rate": 1e-6, "evaluate-every": 0}
    finish({**config, **small})
    # As if the untrained model had been best: it is kept, and nothing was better after it.
    weights = build_model(task_of("contrastive"), 42).state_dict()
    save_file(weights, folder / "models" / "best.safetensors", {"server_round": "0"})
    return folder


def test_a_run_without_labels_hands_on_its_last_model(tiny: Make, pretrained: Path, tmp_path: Path) -> None:
    """Its best one, by a probe that it is not trained for, may be the one that nobody has trained."""
    last, best = (pretrained / "models" / f"{which}.safetensors" for which in ("last", "best"))
    untrained = f"its best model is that of round 0, which nobody has trained; {pretrained}:last is its last"
    nothing = "what is loaded equals a fresh start: it changes nothing"
    for given, path, remarks in (
        (f"{pretrained}", last, []),
        (f"{pretrained}:last", last, []),
        (f"{pretrained}:best", best, [untrained, nothing]),
        (f"{best}", best, [nothing]),
    ):
        config = tiny(init_from=given)
        transfer = make_plan(config).transfer
        assert transfer
        assert transfer.source == str(path)
        assert remarks_of(config) == remarks
    copy = tmp_path / "cut"
    shutil.copytree(pretrained, copy)
    (copy / "models" / "last.safetensors").unlink()
    result = json.loads((copy / "result.json").read_text(encoding="utf-8"))
    (copy / "result.json").write_text(json.dumps({**result, "status": "unfinished"}), encoding="utf-8")
    assert remarks_of(tiny(init_from=str(copy)))[:2] == [
        "that run is unfinished: this is its best model so far",
        "it has kept no last model: its best one is taken",
    ]
    with pytest.raises(UserError, match=r"it holds no models/last\.safetensors$"):
        make_plan(tiny(init_from=f"{copy}:last"))


def test_a_best_model_of_an_older_run_has_its_round_in_the_result(tiny: Make, tmp_path: Path) -> None:
    earlier = finish(tiny(run_dir=str(tmp_path / "earlier"), num_server_rounds=1))
    best = earlier["folder"] / "models" / "best.safetensors"
    save_file(load_file(best), best)
    assert remarks_of(tiny(init_from=str(earlier["folder"]))) == []
    result = json.loads((earlier["folder"] / "result.json").read_text(encoding="utf-8"))
    (earlier["folder"] / "result.json").write_text(
        json.dumps({**result, "best_round": 0, "status": "failed"}), encoding="utf-8"
    )
    said = remarks_of(tiny(init_from=str(earlier["folder"])))
    assert said[0].startswith("that run failed:")
    assert said[1].startswith("its best model is that of round 0, which nobody has trained; ")


def test_what_overflows_in_the_models_type_is_refused_before_the_run(tiny: Make, tmp_path: Path) -> None:
    path = write(tmp_path / "wide", {"features.0.bias": torch.full((32,), 1e300, dtype=torch.float64)})
    with pytest.raises(UserError) as error:
        make_plan(tiny(init_from=str(path)))
    assert str(error.value) == (
        f"init-from {path} has values of float64 in features.0.bias that the model's float32 cannot hold; "
        "give another run"
    )


def test_a_tied_weight_is_loaded_by_any_of_its_names(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.decoder = nn.Embedding(3, 2), nn.Linear(2, 3)
            self.decoder.weight = self.embedding.weight

    one, two = torch.ones(3, 2), torch.full((3, 2), 2.0)
    for given in (
        {"embedding.weight": one},
        {"decoder.weight": one},
        {"embedding.weight": one, "decoder.weight": two},  # of a polyfed that averaged them apart
    ):
        model = Tied()
        transfer = take_over_file(write(tmp_path / "tied", given), model, ())
        assert torch.equal(model.embedding.weight, one)
        assert model.decoder.weight is model.embedding.weight
        assert transfer.loaded == ["embedding.weight"]
        assert (transfer.new, transfer.unused) == (["decoder.bias"], [])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "nothing",
            "init-from HERE is not there: give a run folder, with :best or :last after it where you want one "
            "of these, or a .safetensors or .pth file",
        ),
        (
            "empty",
            "init-from HERE is no run that has kept such a model: it holds neither models/best.safetensors "
            "nor models/last.safetensors",
        ),
        ("broken", "init-from HERE cannot be read (Error while deserializing header: "),
        ("nan", "init-from HERE is broken: features.0.bias is not finite; give another run"),
        (
            "none",
            "init-from HERE has nothing that fits: it holds encoder, the model features, classifier (none",
        ),
        (
            "shape",
            "has nothing that fits: it holds features, the model features, classifier (1 of another shape)",
        ),
    ],
)
def test_what_cannot_work_is_one_line_before_anybody_waits(
    tiny: Make, tmp_path: Path, what: str, message: str
) -> None:
    here = tmp_path / "here"
    if what == "empty":
        here.mkdir()
    elif what == "broken":
        here.write_bytes(b"not a model")
    elif what != "nothing":
        weights = {
            "nan": {"features.0.bias": torch.full((32,), torch.nan)},
            "none": {"encoder.0.bias": torch.zeros(32)},
            "shape": {"features.0.bias": torch.zeros(31)},
        }
        write(here, weights[what])
    with pytest.raises(UserError) as error:
        make_plan(tiny(init_from=str(here)))
    assert message.replace("HERE", str(here)) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("cnn", "freeze = 'features.*'", "freeze must be a list of patterns such as ['features.*'], got 'f"),
        (
            "cnn",
            "freeze = ['layer.*']",
            "freeze pattern 'layer.*' matches nothing: the model has features*, c",
        ),
        ("cnn", "freeze = ['*']", "local = [], freeze = ['*'] leaves nothing to average: name fewer weights"),
        (
            "gan",
            "freeze = ['discriminator.*']",
            "objective 'discriminator-loss' trains no parameter: all 8 are fr",
        ),
    ],
)
def test_patterns_that_cannot_be_frozen(tiny: Make, task: str, options: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        make_plan(tiny(task=task, task_options=options))
    assert str(error.value).startswith(message)


def test_a_tied_weight_is_frozen_by_any_of_its_names() -> None:
    class Tied(ImageGan):
        def build(self) -> torch.nn.Module:
            model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("first", "second")})
            model["second"].weight = model["first"].weight
            return model

        @property
        def objectives(self) -> list[Objective]:
            return [Objective("loss", lambda model, batch: torch.zeros(()))]

    task = Tied(task_of("gan").dataset)
    task.freeze = ("second.*",)
    assert federated_names(build_model(task, 1), task).all == ("first.bias",)


def test_weight_decay_does_not_move_frozen_weights() -> None:
    config = TaskConfig(task="cnn", task_options=FROZEN, dataset="digits", optimizer="adamw")
    task = task_of("cnn", FROZEN)
    model = build_model(task, 1)
    ((_, optimizer),) = make_optimizers(task, model.named_parameters(), config)
    trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    assert trained == {id(model.get_parameter(name)) for name in HEAD}


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian"])
def test_frozen_weights_reach_every_client_and_stay_as_they_are(
    tiny: Make, of_four_classes: Path, tmp_path: Path, strategy: str
) -> None:
    """A client that lacked them would train another head: see the one client below."""
    results = [
        finish(
            tiny(
                num_clients=7,
                strategy=strategy,
                optimizer="adamw",
                learning_rate=0.001,
                optimizer_options="weight_decay = 0.1",
                task_options=FROZEN,
                init_from=str(of_four_classes),
                fraction_evaluate=1.0,
                local_test_fraction=0.2,
                run_dir=str(tmp_path / str(num_nodes)),
            ),
            num_nodes,
        )
        for num_nodes in (1, 3)
    ]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert results[0]["rows"][1]["evaluate"] == results[1]["rows"][1]["evaluate"]
    given, last = load_file(of_four_classes), last_of(results[0]["folder"])
    assert set(last) == {*FEATURES, *HEAD}
    assert all(torch.equal(last[name], given[name]) for name in FEATURES)
    assert not torch.equal(last["classifier.0.weight"], given["classifier.0.weight"])
    assert not (results[0]["folder"] / "clients").exists()
    # Down go the head and the features, to train and to evaluate; up comes the head, or the sum of heads.
    sizes = [sum(4 * last[name].numel() for name in names) for names in (FEATURES, HEAD)]
    sent = results[0]["rows"][1]["bytes"]
    assert 2 * sum(sizes) < sent["down"] < 2 * sum(sizes) + 20_000
    heads = 2 if strategy != "FedMedian" else 7  # a sum is of float64
    assert heads * sizes[1] < sent["up"] < heads * sizes[1] + 20_000


def test_one_client_equals_plain_pytorch(tiny: Make, of_four_classes: Path, one_thread: None) -> None:
    config = tiny(
        num_clients=1,
        partitioner="iid",
        task_options=FROZEN,
        init_from=str(of_four_classes),
        optimizer="adamw",
        learning_rate=0.01,
        optimizer_options="weight_decay = 0.1",
    )
    result = finish(config)

    train = load_dataset(TaskConfig(dataset="digits")).train
    seed_torch(torch.device("cpu"), 42, "build")
    model = ConvNet(1, 8, 8, 10, "none")
    given = load_file(of_four_classes)
    model.load_state_dict({name: given[name] for name in [*FEATURES, *HEAD[:2]]}, strict=False)
    model.features.requires_grad_(False)
    for server_round in (1, 2):
        optimizer = torch.optim.AdamW(model.classifier.parameters(), lr=0.01, weight_decay=0.1)
        generator = generator_for(42, "train", server_round, 0)
        for rows in torch.randperm(len(train), generator=generator).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(train["image"][rows].float() / 16), train["label"][rows]).backward()
            optimizer.step()

    assert result["weights_sha256"] == weights_sha256(model.state_dict())


def test_a_run_goes_on_where_another_ended(tiny: Make, tmp_path: Path) -> None:
    """Round 0 evaluates what was loaded; the report and the run folder say where it is from."""
    earlier = finish(tiny(num_server_rounds=3, run_dir=str(tmp_path / "earlier")))
    later = finish(tiny(init_from=str(tmp_path / "earlier"), num_server_rounds=1))
    assert later["rows"][0]["central"] == earlier["best"]
    assert earlier["best"] != earlier["rows"][0]["central"]
    recorded = json.loads((later["folder"] / "transfer.json").read_text(encoding="utf-8"))
    assert recorded["source"] == str(tmp_path / "earlier" / "models" / "best.safetensors")
    assert recorded["entries"] == {"loaded": {"features": FEATURES, "classifier": HEAD}}
    assert recorded["remarks"] == []
    page = write_report([later["folder"]]).read_text(encoding="utf-8")
    assert "<h3>Transfer</h3>" in page
    assert "<td>loaded</td><td>features (4), classifier (4)</td>" in page
    assert recorded["source"] in page


@pytest.mark.parametrize("checkpoints", ["kept", "lost"])
def test_a_resumed_run_does_not_need_the_earlier_one(
    tiny: Make, of_four_classes: Path, tmp_path: Path, checkpoints: str
) -> None:
    """What is loaded is not loaded again over a checkpoint, and is still there without one."""
    config = tiny(init_from=str(of_four_classes), task_options=FROZEN, num_server_rounds=3)
    whole = finish({**config, "run-dir": str(tmp_path / "whole")})
    finish({**config, "num-server-rounds": 1})
    of_four_classes.unlink()
    if checkpoints == "lost":
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        metrics = tmp_path / "run" / "metrics.jsonl"  # as if it had been killed in its first round
        metrics.write_text(metrics.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    resumed = finish({**config, "resume": True})
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert [row["server_round"] for row in resumed["rows"]] == [0, 1, 2, 3]
    assert json.loads((tmp_path / "run" / "transfer.json").read_text(encoding="utf-8"))["source"] == str(
        of_four_classes
    )


def test_a_path_on_the_command_line_is_from_where_the_caller_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = tmp_path / "elsewhere" / "s.toml"
    scenario.parent.mkdir()
    scenario.write_text('dataset = "digits"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_scenario(scenario, ["init-from=runs/one"])["init-from"] == str(tmp_path / "runs" / "one")


@pytest.mark.rounding
@pytest.mark.usefixtures("float64")
def test_stacked_clients_get_the_frozen_weights_too(
    tiny: Make, of_four_classes: Path, tmp_path: Path
) -> None:
    loop, stacked = (
        last_of(
            finish(
                tiny(
                    engine=engine,
                    num_server_rounds=1,
                    task_options=FROZEN,
                    init_from=str(of_four_classes),
                    run_dir=str(tmp_path / engine),
                )
            )["folder"]
        )
        for engine in ("loop", "stacked")
    )
    assert all(torch.equal(stacked[name], loop[name]) for name in FEATURES)
    assert all(torch.allclose(stacked[name], loop[name], rtol=0, atol=1e-12) for name in HEAD)
    assert not (tmp_path / "stacked" / "clients").exists()
