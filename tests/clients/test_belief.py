"""What a real node believes of a run config, and of the rules that a message names."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from clients.belief import MOST, believed, check_rules
from clients.node_config import NodeConfig
from clients.rules import rule_class
from clients.simulated import SIMULATED
from models.core import plugins
from models.core.config import TaskConfig, parse_options
from models.core.errors import UserError

REAL = NodeConfig(0, 2)
ALLOWING = NodeConfig(0, 2, allow_code=("allowed", "other.part"))


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start the node in a folder of modules, each of which leaves a file where it is imported."""
    wrote = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
    (tmp_path / "allowed").mkdir()
    for name in ("stranger", "allowed/__init__", "allowed/rules"):
        (tmp_path / f"{name}.py").write_text(
            wrote + "from strategies import LocalRule\nclass Rule(LocalRule): ...\nclass Plain: ...\n",
            encoding="utf-8",
        )
    monkeypatch.setenv("POLYFED_USER_CODE", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    rule_class.cache_clear()
    for name in ("stranger", "allowed", "allowed.rules"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "given",
    [
        {"task": "stranger:Rule"},
        {"task": "subprocess:Popen"},
        {"task": "allowed_too:Task"},
        {"task": "other:Task"},
        {"dataset": "stranger:SOURCE"},
        {"dataset": "stranger:SOURCE:rest"},
        {"dataset": "gym:stranger:Env-v0"},
    ],
)
def test_code_that_a_node_does_not_offer_is_not_imported(given: dict[str, Any], modules: Path) -> None:
    with pytest.raises(
        UserError, match=r"is code that this node does not offer.* which allows allowed, other.part"
    ):
        believed(TaskConfig(**given), ALLOWING)
    assert not list(modules.rglob("*.ran"))


@pytest.mark.parametrize("name", ["stranger:Rule", "subprocess:Popen", "strategies.nowhere:Rule", "x"])
def test_a_rule_that_a_node_does_not_offer_is_not_imported(name: str, modules: Path) -> None:
    with pytest.raises(UserError, match=rf"^local rule '{name}' is code .* which allows none$"):
        check_rules((name,), REAL)
    assert not list(modules.rglob("*.ran"))


def test_what_a_node_offers_and_what_its_owner_allows() -> None:
    check_rules(("strategies.algorithms.fedprox:Proximal", "strategies.privacy.clipping:Clipping"), REAL)
    check_rules(("allowed:Rule", "allowed.rules:Rule"), ALLOWING)
    config = TaskConfig(task="allowed.rules:Task", dataset="digits")
    assert believed(config, ALLOWING) == config


def test_rules_come_with_the_strategies_of_installed_packages(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of such a package is imported that the strategy itself does not import."""
    point = EntryPoint("Mine", "allowed:Rule", "polyfed.strategies")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.syspath_prepend(modules)
    check_rules(("allowed:Rule",), REAL)
    for name in ("allowed.rules:Rule", "stranger:Rule"):
        with pytest.raises(UserError, match=f"^local rule '{name}' is code that this node does not offer"):
            check_rules((name,), REAL)
    assert [path.name for path in modules.rglob("*.ran")] == ["__init__.ran"]


@pytest.mark.parametrize("name", ["allowed:Plain", "allowed:Path", "strategies.wire.reply:NodeReply"])
def test_a_rule_is_one_before_it_is_called(name: str) -> None:
    with pytest.raises(TypeError, match=r"must be a subclass of strategies.LocalRule"):
        check_rules((name,), ALLOWING)


def test_a_simulated_node_takes_its_users_own() -> None:
    simulated = NodeConfig.from_flower({SIMULATED: True})
    config = TaskConfig(task="stranger:Task", dataset="csv:/data/x.csv", num_clients=10**9)
    assert believed(config, simulated) is config
    check_rules(("stranger:Rule",), simulated)


@pytest.mark.parametrize("given", [{}, {SIMULATED: False}, {SIMULATED: "true"}, {"partition-id": 0}])
def test_what_does_not_say_that_it_is_simulated_is_real(given: dict[str, Any]) -> None:
    assert not NodeConfig.from_flower(given).simulated


def test_data_is_read_where_the_owner_says() -> None:
    config = TaskConfig(dataset="csv:a/b.csv", data_dir="/servers/own", download=True)
    own, shared = (
        NodeConfig(0, 2, data_path="/own"),
        NodeConfig(0, 2, data_dir="/shared", allow_download=True),
    )
    assert believed(config, own) == config.model_copy(update={"data_dir": "/own", "download": False})
    assert believed(config, shared) == config.model_copy(update={"data_dir": "/shared"})
    assert believed(TaskConfig(dataset="digits", data_dir="/servers/own"), REAL).data_dir == ""
    with pytest.raises(UserError, match=r'^dataset .* start it with --node-config data-path="/folder"'):
        believed(config, REAL)


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "~/x", r"C:\x", r"\\host\x", r"..\x", "a\0"])
@pytest.mark.parametrize("kind", ["csv", "hf", "text", "conll"])
def test_a_path_does_not_lead_out_of_the_owners_folder(kind: str, path: str) -> None:
    with pytest.raises(UserError, match="after the colon dataset must have a path below that folder"):
        believed(TaskConfig(dataset=f"{kind}:{path}"), NodeConfig(0, 2, data_path="/own"))


def test_arguments_of_environments_are_no_paths() -> None:
    for path in ("/x.xml", "a/x.xml", "~/x", r"C:\x"):
        with pytest.raises(UserError, match=r"^xml_file of CartPole-v1 must be no path"):
            believed(TaskConfig(task="dqn", dataset=f"gym:CartPole-v1?xml_file={path}"), REAL)
    fine = TaskConfig(task="dqn", dataset="gym:FrozenLake-v1?is_slippery=false&map_name=8x8")
    assert believed(fine, REAL) == fine


def test_a_pre_trained_network_is_the_owners() -> None:
    options = "backbone = '/servers/own', lora = 4, local = ['a.*']"
    config = TaskConfig(task="ner", dataset="pii", task_options=options)
    with pytest.raises(UserError, match=r"^backbone '/servers/own' is a folder or a name"):
        believed(config, REAL)
    found = believed(config, NodeConfig(0, 2, backbone="/nodes/own"))
    assert parse_options("", found.task_options) == {"backbone": "/nodes/own", "lora": 4, "local": ["a.*"]}
    for built_in in ("scratch", "minilm"):
        fine = TaskConfig(task="ner", dataset="pii", task_options=f"backbone = '{built_in}'")
        assert believed(fine, NodeConfig(0, 2, backbone="/nodes/own")) == fine


@pytest.mark.parametrize("key", ["task_options", "dataset_options", "optimizer_options"])
def test_options_name_no_place(key: str) -> None:
    for text in ("a = '/x'", "a = ['b', {c = '../x'}]", "a = 'https://x'", "'~/x' = 1"):
        with pytest.raises(UserError, match="must name no path and no address"):
            believed(TaskConfig(dataset="digits", **{key: text}), REAL)
    fine = TaskConfig(dataset="digits", **{key: "a = '%d/%m/%Y', b = ['features.*'], c = 'group'"})
    assert believed(fine, REAL) == fine


def test_numbers_have_a_limit() -> None:
    for name, most in MOST.items():
        believed(TaskConfig(dataset="digits", **{name: most}), REAL)
        with pytest.raises(UserError, match=f"^{name.replace('_', '-')} must be <= {most} on a real node"):
            believed(TaskConfig(dataset="digits", **{name: most + 1}), REAL)
    with pytest.raises(UserError, match="task-options must be <= 65536 characters, got 65537"):
        believed(TaskConfig(dataset="digits", task_options=" " * 65537), REAL)
