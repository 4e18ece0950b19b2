"""Leaves torch's compiler out of processes that compile nothing: it takes as long to import as torch itself.

torch imports it when the first optimizer is made and steps, only to keep it from compiling what is called.
"""

import functools
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch.optim import Optimizer

_COMPILER = "torch._dynamo"
_METHODS = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
_KEPT = "__dynamo_disable"
"""Where torch keeps, on such a method, what it has made of it at the first call."""
_STEP = "_use_grad"
"""What torch calls its wrapper around a step that imports the compiler."""


def leave_out_compiler() -> None:
    """Let optimizers work without the compiler until something else imports it, such as torch.compile.

    Where another version of torch has none of this, all is as torch does it.
    """
    for name in _METHODS:
        method = getattr(Optimizer, name)
        inner = getattr(method, "__wrapped__", None)
        if inner is not None and not hasattr(inner, _KEPT):
            setattr(inner, _KEPT, _plain_method(method, inner))
    for cls in vars(torch.optim).values():
        step = vars(cls).get("step") if isinstance(cls, type) and issubclass(cls, Optimizer) else None
        if getattr(getattr(step, "__code__", None), "co_name", "") == _STEP and hasattr(step, "__wrapped__"):
            cls.step = _plain_step(step)


def _plain_method(method: Callable[..., Any], inner: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `inner`, and hands over to `method` once there is a compiler."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if _COMPILER not in sys.modules:
            return inner(*args, **kwargs)
        with suppress(AttributeError):  # torch now makes its own
            delattr(inner, _KEPT)
        return method(*args, **kwargs)

    return call


def _plain_step(step: Any) -> Callable[..., Any]:
    """Return a step that does as torch's, which beside this tells the compiler where its graph ends."""
    inner = step.__wrapped__

    @functools.wraps(inner)
    def call(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if _COMPILER in sys.modules:
            return step(self, *args, **kwargs)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return inner(self, *args, **kwargs)

    return call
