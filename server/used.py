"""What a run really uses, where its config leaves the choice to the task, to torch or to a file."""

import math
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from models.data.data_files import data_files
from models.data.fingerprint import data_sha256
from models.optimizers import NO_OPTIONS, make_optimizers
from models.task import Objective
from server.plan import Plan
from server.run_schema import DataFile, OptimizerUsed, Used


def used_by(plan: Plan) -> Used:
    """Return what the plan uses."""
    optimizers = make_optimizers(plan.task, plan.model.named_parameters(), plan.task_config)
    return Used(
        optimizers=[_used(objective, optimizer) for objective, optimizer in optimizers],
        engine=plan.engine.name,
        data_sha256=data_sha256(plan.dataset),
        data_files=[DataFile(**file._asdict()) for file in data_files(plan.task_config)],
        validation_examples=len(plan.dataset.validation or ()),
    )


def _used(objective: Objective, optimizer: Optimizer) -> OptimizerUsed:
    chosen = [name for name in optimizer.defaults if name not in NO_OPTIONS]
    options = {name: _of_all([group[name] for group in optimizer.param_groups]) for name in chosen}
    return OptimizerUsed(
        objective=objective.name,
        optimizer=type(optimizer).__name__,
        learning_rate=float(optimizer.defaults["lr"]),  # not the groups', in which it has still to warm up
        options={name: value for name, value in options.items() if value is not None},  # None: as torch likes
        max_grad_norm=objective.max_grad_norm if objective.max_grad_norm < math.inf else None,
        warmup_steps=objective.warmup_steps,
    )


def _of_all(values: Sequence[Any]) -> Any:
    """Return the value that groups of parameters share, else the different ones in their order."""
    plain = [list(value) if isinstance(value, tuple) else value for value in values]
    different = [value for at, value in enumerate(plain) if value not in plain[:at]]
    return different[0] if len(different) == 1 else different
