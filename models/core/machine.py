"""The machine that computes: what decides, beside versions, how floating-point numbers are rounded."""

import os
import platform
import re
from functools import cache
from pathlib import Path

import torch

SETTINGS = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
)
"""Environment variables by which a user chooses other kernels."""
ROUNDING = re.compile(r"sse4_[12]|f16c|fma|avx\w*|amx\w*|asimd\w*|sve\w*|bf16|fphp|i8mm")
"""Features of a processor that kernels are chosen by, as Linux names them."""


@cache
def cpu_name() -> str:
    """Return the name of the processor's model."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


@cache
def cpu_features() -> tuple[str, ...]:
    """Return the processor's vector instructions, sorted; () where the system does not tell."""
    flags = _cpu_info("flags") or _cpu_info("Features")
    return tuple(sorted({flag for flag in flags.split() if ROUNDING.fullmatch(flag)}))


def instruction_set() -> str:
    """Return the best instructions that torch's own kernels use here, such as "AVX2"."""
    return torch.backends.cpu.get_cpu_capability()


def settings() -> dict[str, str]:
    """Return the environment variables that are set of those that choose kernels."""
    return {name: os.environ[name] for name in SETTINGS if name in os.environ}


def device_name(device: torch.device) -> str:
    """Return "cpu", or the GPU's model with the versions of CUDA and cuDNN."""
    if device.type != "cuda":
        return device.type
    model = torch.cuda.get_device_name(device)
    return f"{model}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def described(threads: int, device: torch.device) -> str:
    """Return one line that two machines share whose results should have the same bits."""
    parts = [f"torch {torch.__version__}", f"{cpu_name()} ({instruction_set()}", f"{platform.machine()})"]
    parts.append(f"{threads} thread{'s' if threads > 1 else ''}")
    return ", ".join(
        [*parts, device_name(device), *(f"{name}={value}" for name, value in settings().items())]
    )


def _cpu_info(key: str) -> str:
    """Return the first processor's entry in Linux' list; "" where there is none."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    found = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else ""
