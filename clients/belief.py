"""What a real node believes of the run config that a server sends.

A run config names code, data and files, and says how large things are. In a simulation all of that is the
user's own. A node's owner is somebody else: it loads what its own installation offers, and what its owner
allows beside that (`allow-code`), and reads data where its owner says (`data-path`, `data-dir`). All of it is
checked before anything is imported, read or built.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from clients.node_config import (
    BACKBONE,
    DATA_DIR,
    DATA_PATH,
    NodeConfig,
)
from clients.rules import rule_class
from models.core.config import TaskConfig, parse_options
from models.core.errors import UserError, shown
from models.core.paths import names_a_place
from models.core.plugins import check_module, check_offered, comes_with
from models.core.refusal import key_of
from models.core.toml import quoted
from models.data.datasets import check_believed
from models.registry import ENTRY_POINTS, TASKS
from models.text.backbone import MINILM, SCRATCH
from models.text.vocabulary import BYTES
from strategies.registry import ENTRY_POINTS as STRATEGY_POINTS
from strategies.registry import brings

MOST: Mapping[str, int] = {
    "num_clients": 10**6,
    "examples_per_client": 10**7,
    "shards_per_client": 10**5,
    "local_epochs": 10**4,
    "batch_size": 2**20,
    "threads": 1024,
    "stack_size": 10**6,
}
"""Key of the run config -> the largest number that a node takes: beyond it a node would be kept busy."""
LONGEST_TEXT = 2**16
"""Characters of a text in the run config."""


def believed(config: TaskConfig, node: NodeConfig) -> TaskConfig:
    """Return the config as this node follows it; a simulated one follows it as it is.

    Data lies where the node's owner says, and a pre-trained network is the owner's. Raises UserError for
    code that the node does not offer, for a path, and for a number beyond MOST.
    """
    return config if node.simulated else _believed(config, node)


@lru_cache(maxsize=1)
def _believed(config: TaskConfig, node: NodeConfig) -> TaskConfig:
    _check_sizes(config)
    check_offered(config.task, "task", TASKS, ENTRY_POINTS, node.allow_code)
    source = check_believed(config, node.allow_code)
    folder = node.data_path or node.data_dir
    if not source.packaged and not folder:
        raise UserError(
            f"dataset {config.dataset!r} is read from a folder, which a node's owner names: start it with "
            f'--node-config {DATA_PATH}="/folder" (its own data, of one client) or {DATA_DIR}="/folder" '
            "(files that all nodes have alike)"
        )
    options = _own_backbone(parse_options("task-options", config.task_options), node)
    for key in ("dataset_options", "optimizer_options"):
        _check_places(key_of(key), parse_options(key_of(key), getattr(config, key)))
    return config.model_copy(
        update={
            "data_dir": "" if source.packaged else folder,
            "download": config.download and node.allow_download,
            "task_options": config.task_options if options is None else quoted(options),
        }
    )


def check_rules(rules: tuple[str, ...], node: NodeConfig) -> None:
    """Raise UserError for a local rule that neither polyfed nor an installed strategy brings, nor is allowed.

    A rule is one of those that came along when its strategy was loaded, so that nothing else is imported.
    Raises TypeError for what is no rule.
    """
    for rule in () if node.simulated else rules:
        module = rule.partition(":")[0]
        if not (brings(module) or comes_with(module, STRATEGY_POINTS)):
            check_module(f"local rule {shown(rule)}", module, node.allow_code)
        rule_class(rule)


def _check_sizes(config: TaskConfig) -> None:
    for name, most in MOST.items():
        if getattr(config, name) > most:
            raise UserError(f"{key_of(name)} must be <= {most} on a real node, got {getattr(config, name)}")
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise UserError(f"{key_of(name)} must be <= {LONGEST_TEXT} characters, got {len(value)}")


def _own_backbone(options: dict[str, Any], node: NodeConfig) -> dict[str, Any] | None:
    """Return the task's options with the node's own pre-trained network; None where they stay as they are."""
    named = options.pop(BACKBONE, SCRATCH)
    _check_places("task-options", options)
    if named in (SCRATCH, MINILM, BYTES):
        return None
    if not node.backbone:
        raise UserError(
            f"backbone {shown(named)} is a folder or a name of the Hugging Face hub, which a node's owner "
            f'names: start it with --node-config {BACKBONE}="/folder", or take {SCRATCH} or {MINILM}'
        )
    return {**options, BACKBONE: node.backbone}


def _check_places(owner: str, options: Mapping[str, Any]) -> None:
    for text in _texts(options):
        if names_a_place(text):
            raise UserError(
                f"{owner} must name no path and no address, which are a node's owner's to give, got "
                f"{shown(text)}"
            )


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for key, each in value.items():
                yield from (key, *_texts(each))
        case list():
            for each in value:
                yield from _texts(each)
