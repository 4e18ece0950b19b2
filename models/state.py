"""Building a model repeatably, and naming its weights by their hash."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from models.core.errors import UserError
from models.core.seeds import seed_torch
from models.task import Task


@dataclass(frozen=True)
class FederatedNames:
    """Names of what is sent and averaged, in the order of the state."""

    parameters: tuple[str, ...]
    """What an optimizer trains; the strategy sees nothing else."""
    statistics: tuple[str, ...]
    """What no optimizer trains, such as BatchNorm's running means; averaged beside the strategy."""

    @property
    def all(self) -> tuple[str, ...]:
        """Both."""
        return self.parameters + self.statistics


def build_model(task: Task, seed: int) -> nn.Module:
    """Build the task's module with initial weights that follow from the run's seed alone, and freeze it.

    Raises UserError where the task's `local` or `freeze` has a pattern without a match, or they leave nothing
    to average, and where two weights share a part of their memory.
    """
    with torch.random.fork_rng(devices=[]):
        seed_torch(torch.device("cpu"), seed, "build")
        model = task.build()
    state = model.state_dict()
    _check_entries(state)
    _check_memory(state)
    _check_buffers(model)
    _check_patterns("local", task.local, state)
    # All names of a weight that is tied to another, as a language model's embedding is to its decoder.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    _check_patterns("freeze", task.freeze, [name for name in state if state[name].is_floating_point()])
    for name, parameter in parameters.items():
        if _matches(name, task.freeze):
            parameter.requires_grad_(False)
        if parameter.requires_grad and parameter.is_complex() and not _matches(name, task.local):
            raise UserError(
                f"{name} is complex, and only real weights are averaged: hold it as two real ones "
                "(torch.view_as_real), or name it in local"
            )
    federated = federated_names(model, task)
    for name in federated.all:
        if "/" in name:  # which parts the kinds of aux tensors from weights in messages
            raise UserError(f"{name} has a slash in its name: name that part of the model otherwise")
        if state[name].dtype == torch.bfloat16:
            raise UserError(
                f"{name} is bfloat16, which NumPy lacks: build in float32, and set precision = 'bfloat16'"
            )
    if not federated.parameters:
        given = f"local = {list(task.local)}, freeze = {list(task.freeze)}"
        raise UserError(f"{given} leaves nothing to average: name fewer weights")
    return model


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's `state_dict()`, in which a tied weight stands once, under its first name.

    Two names of one memory are one weight: it is sent, averaged, clipped, saved and hashed once.
    """
    state = model.state_dict()
    return {names[0]: state[names[0]] for names in _names_of(state)}


def tied_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the name in `model_state` -> all names of that weight in `state_dict()`."""
    return {names[0]: names for names in _names_of(model.state_dict())}


def shareable_names(model: nn.Module, local: Sequence[str]) -> tuple[str, ...]:
    """Return the entries that the server may have and send: floating point and not matching `local`.

    A tied weight is local where one of its names matches.
    """
    state = model.state_dict()
    return tuple(
        names[0]
        for names in _names_of(state)
        if state[names[0]].is_floating_point() and not any(_matches(name, local) for name in names)
    )


def frozen_names(model: nn.Module, freeze: Sequence[str]) -> tuple[str, ...]:
    """Return the parameters that ask for no gradient, and the floating buffers of frozen modules."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    for prefix, module in _frozen_modules(model, freeze):
        frozen += [f"{prefix}{name}" for name in _floating_buffers(module)]
    return tuple(frozen)


def federated_names(model: nn.Module, task: Task) -> FederatedNames:
    """Return the entries that are sent and averaged: those that can be shared and are not frozen."""
    frozen = set(frozen_names(model, task.freeze))
    averaged = [name for name in shareable_names(model, task.local) if name not in frozen]
    patterns = [pattern for objective in task.objectives for pattern in objective.parameters]
    trained = {name for name, _ in model.named_parameters() if _matches(name, patterns)}
    return FederatedNames(
        parameters=tuple(name for name in averaged if name in trained),
        statistics=tuple(name for name in averaged if name not in trained),
    )


def part_names(task: Task, federated: FederatedNames) -> dict[str, tuple[str, ...]]:
    """Return the parameters of each of the task's `parts` that are averaged, in the order of the state.

    Raises UserError for a weight of two parts, and for statistics: those are averaged beside the strategy,
    over all clients.
    """
    part_of: dict[str, str] = {}
    for part, patterns in task.parts.items():
        if statistics := [name for name in federated.statistics if _matches(name, patterns)]:
            raise UserError(
                f"not every client trains the part {part}, and it sends statistics, such as {statistics[0]}: "
                "set norm = 'group' in task-options, or keep them with the clients by local = ['*running_*']"
            )
        for name in federated.parameters:
            if _matches(name, patterns) and part_of.setdefault(name, part) != part:
                raise UserError(f"{name} is of two parts, {part_of[name]} and {part}: name it in one")
    return {part: tuple(name for name in part_of if part_of[name] == part) for part in task.parts}


def start_training(model: nn.Module, freeze: Sequence[str]) -> None:
    """Put the model into training mode, all but frozen modules: their running statistics stay as they are."""
    if not model.training:
        model.train()
        for _, module in _frozen_modules(model, freeze):
            module.eval()


def by_module(names: Iterable[str]) -> dict[str, list[str]]:
    """Group the entries of a state by the outermost part of the model that they belong to."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split(".")[0], []).append(name)
    return groups


def describe_state(state: Mapping[str, Tensor]) -> list[str]:
    """Return a line for each entry, to compare models on two machines by."""
    return [f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in state.items()]


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of a state, in the order of its names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _names_of(state: Mapping[str, Tensor]) -> list[tuple[str, ...]]:
    """Return all names of each weight: those under which the same memory stands in the same shape."""
    groups: dict[object, list[str]] = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        groups.setdefault(place if tensor.numel() else name, []).append(name)
    return [tuple(names) for names in groups.values()]


def _check_entries(state: Mapping[str, object]) -> None:
    """Raise UserError for what has no place in memory yet, or none that can be sent."""
    for name, entry in state.items():
        if not isinstance(entry, Tensor):
            raise UserError(f"{name} is {type(entry).__name__}, and a model's state holds tensors alone")
        if is_lazy(entry):
            raise UserError(
                f"{name} has no shape yet: give the layer its size, or run the model once in build"
            )
        if entry.layout != torch.strided or entry.is_meta:
            kind = "meta" if entry.is_meta else str(entry.layout).removeprefix("torch.")
            raise UserError(
                f"{name} is a {kind} tensor, and a model's state holds dense ones: use to_dense()"
            )


def _check_buffers(model: nn.Module) -> None:
    """Raise UserError for a buffer that is a parameter's memory: it would be trained, and averaged beside."""
    owners = {parameter.data_ptr(): name for name, parameter in model.named_parameters() if parameter.numel()}
    for name, buffer in model.named_buffers():
        if buffer.numel() and buffer.data_ptr() in owners:
            raise UserError(
                f"buffer {name} is the memory of parameter {owners[buffer.data_ptr()]}: clone it, or drop it"
            )


def _check_memory(state: Mapping[str, Tensor]) -> None:
    """Raise UserError for weights of which one is a view of the other, as a transposed one is."""
    distinct = [names[0] for names in _names_of(state) if state[names[0]].numel()]
    spans = sorted((*_span(state[name]), name) for name in distinct)
    for (_, end, name), (start, _, other) in pairwise(spans):
        if start < end:
            raise UserError(
                f"{name} and {other} share memory, and neither is the other as a whole: tie a weight by "
                "giving one nn.Parameter to both modules, and transpose it where it is used"
            )


def _span(tensor: Tensor) -> tuple[int, int]:
    """Return the first address of a tensor's memory, and the one behind its last."""
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (steps + 1) * tensor.element_size()


def _frozen_modules(model: nn.Module, freeze: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield (prefix of its entries, module) for the modules with running statistics that are frozen.

    They are those whose parameters are all frozen, and those of which `freeze` names a buffer.
    """
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        buffers = _floating_buffers(module)
        parameters = list(module.parameters(recurse=False))
        all_frozen = parameters and not any(parameter.requires_grad for parameter in parameters)
        if buffers and (all_frozen or any(_matches(f"{prefix}{name}", freeze) for name in buffers)):
            yield prefix, module


def _floating_buffers(module: nn.Module) -> list[str]:
    """Return the names of the module's own floating-point buffers."""
    return [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_floating_point()]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_patterns(option: str, patterns: Sequence[str], names: Iterable[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            parts = ", ".join(f"{module}*" for module in by_module(names))
            raise UserError(f"{option} pattern {pattern!r} matches nothing: the model has {parts}")
