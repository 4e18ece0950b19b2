"""Optimizers without torch's compiler, and with it once it is there."""

import subprocess
import sys

import pytest

CODE = """
import sys
import torch
from models.core.compiler import leave_out_compiler

def train(cls):
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = cls([weight], lr=0.25)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
        schedule.step()
        assert torch.is_grad_enabled()
    optimizer.load_state_dict(optimizer.state_dict())
    return weight.detach()

classes = [torch.optim.SGD, torch.optim.AdamW, torch.optim.Rprop, torch.optim.Muon]
leave_out_compiler()
leave_out_compiler()
without = [train(cls) for cls in classes]
assert "torch._dynamo" not in sys.modules
import torch._dynamo
for cls, weight in zip(classes, without):
    assert torch.equal(train(cls), weight) and not torch.equal(weight, torch.ones(2, 2))
inner = torch.optim.Optimizer.add_param_group.__wrapped__
assert "torch/_dynamo" in getattr(inner, "__dynamo_disable").__code__.co_filename
"""


@pytest.mark.slow
def test_the_compiler_is_imported_by_whoever_wants_it_and_then_knows_of_optimizers() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)
