"""Agreement on labels between nodes that have data of their own: the union of the names, and no row is shown.

Each node says the names that its data has. Where they differ, all are told the union, with every message from
then on; each maps its own labels to it, and the server does the same with its held-out examples.
"""

from logging import INFO
from pathlib import Path

from pydantic import ValidationError

from models.core.config import RunConfig, TaskConfig, Value, read
from models.core.errors import UserError
from models.core.log import log
from models.data.agreed_labels import labelled
from models.data.labels import labels_of
from server.node_fit import has_other_labels
from server.node_registry import NodeRegistry
from server.plan import Plan, make_plan
from server.run_folder import write_json
from server.run_schema import LABELS, AgreedLabels, explain

SHOWN = 10
"""Names that a line of the log lists."""


def agreed_before(run_dir: Path) -> tuple[str, ...]:
    """Return the labels that the nodes of a run agreed on when it began; () where they agreed on none."""
    path = run_dir / LABELS
    try:
        return AgreedLabels.model_validate_json(path.read_bytes()).labels if path.exists() else ()
    except (OSError, ValidationError) as error:
        why = explain(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{path} is broken ({why}): restore it, or give another run-dir") from error


def with_labels(run_config: RunConfig, labels: tuple[str, ...]) -> RunConfig:
    """Return the run config by which data is read with these labels; with none of them, as it is."""
    if not labels:
        return run_config
    options: Value = labelled(read(TaskConfig, run_config), labels).dataset_options
    return {**run_config, "dataset-options": options}


def agree(
    plan: Plan, run_config: RunConfig, registry: NodeRegistry, run_dir: Path
) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan with the labels of all data, and these where nodes have to be told them, else ().

    The union is written down, so that a run that goes on has the same network whoever takes part then.
    """
    union = union_of_labels(registry)
    if not union:
        registry.close_labels()
        return plan, ()
    before = labels_of(plan.dataset)
    told = {
        each.sighting.called: each.said.examples for each in registry.accepted.values() if each.said.own_data
    }
    added = {
        who: tuple(name for name in said.classes if name not in before) for who, said in told.items() if said
    }
    by_node = {who: names for who, names in added.items() if names}
    write_json(run_dir / LABELS, AgreedLabels(labels=union, by_node=by_node))
    log(INFO, "The nodes' labels together are %d: %s", len(union), _shown(union))
    for who, names in by_node.items():
        log(INFO, "%s has labels that the server's data has not: %s", who, _shown(names))
    if union != before:
        plan = make_plan(with_labels(run_config, union), real_nodes=plan.real_nodes)
    return plan, union


def union_of_labels(registry: NodeRegistry) -> tuple[str, ...]:
    """Return the labels of all data together; () where everybody has those of the server.

    A node whose labels would make too many of them is left out.
    """
    if registry.open_labels is None or registry.examples is None:
        return ()
    union, others = registry.examples.classes, False
    for node, claim in sorted(registry.accepted.items(), key=lambda item: item[1].partition):
        if claim.said.examples is None or not has_other_labels(claim.said, registry):
            continue
        try:
            union = registry.open_labels.union([union, claim.said.examples.classes])
            others = True
        except ValueError as error:
            registry.leave_out(node, f"the labels of its data cannot be taken: {error}")
    return union if others else ()


def _shown(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
