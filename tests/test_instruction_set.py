"""`make rounding` computes as other processors do."""

import os

import pytest
from torch.backends.cpu import get_cpu_capability

NAMES = {"default": "DEFAULT", "avx2": "AVX2"}


@pytest.mark.rounding
@pytest.mark.skipif("ATEN_CPU_CAPABILITY" not in os.environ, reason="the processor's own instruction set")
def test_torch_computes_with_what_it_was_told() -> None:
    assert get_cpu_capability() == NAMES[os.environ["ATEN_CPU_CAPABILITY"]]
