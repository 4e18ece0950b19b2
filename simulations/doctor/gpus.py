"""GPUs that torch sees, or why it sees none."""

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from simulations.doctor.finding import Finding, in_bytes

DRIVER = Path("/proc/driver/nvidia/version")
DEVICES = Path("/dev")
VISIBLE = "CUDA_VISIBLE_DEVICES"
ANSWER_WITHIN = 10.0
"""Seconds that nvidia-smi gets."""


@dataclass(frozen=True)
class Gpu:
    """A GPU."""

    name: str
    memory: int
    """Bytes."""


@dataclass(frozen=True)
class Graphics:
    """What there is to compute with beside CPUs."""

    gpus: Sequence[Gpu]
    torch: str
    """Version of torch."""
    cuda: str | None
    """Version of CUDA that torch was built for; None for a build without."""
    driver: str = ""
    """Version of NVIDIA's driver; "" where there is none."""
    device_files: bool = False
    """Whether the system has a file for a GPU."""
    visible: str | None = None
    """What CUDA_VISIBLE_DEVICES says; None where it is not set."""
    error: str = ""
    """What torch says when it is to use a GPU all the same."""


def graphics() -> Graphics:
    """Look at this machine."""
    error = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say, the error says too
        num_gpus = torch.cuda.device_count()
        if not num_gpus and torch.version.cuda is not None:
            try:
                torch.cuda.init()
            except Exception as reason:  # whatever a driver may say
                error = next(iter(str(reason).splitlines()), type(reason).__name__)
        properties = [torch.cuda.get_device_properties(number) for number in range(num_gpus)]
    return Graphics(
        gpus=[Gpu(each.name, each.total_memory) for each in properties],
        torch=torch.__version__,
        cuda=torch.version.cuda,
        driver=_driver(),
        device_files=any(DEVICES.glob("nvidia[0-9]*")) or (DEVICES / "dxg").exists(),
        visible=os.environ.get(VISIBLE),
        error=error,
    )


def gpu_findings(found: Graphics) -> list[Finding]:
    """Say which GPUs torch sees, or why none; a run needs none unless it asks for one."""
    if not found.gpus:
        why, remedy = _why_none(found)
        return [Finding("GPUs", f"torch sees none: {why}", "note" if remedy else "ok", remedy)]
    built = f"torch for CUDA {found.cuda}, driver {found.driver or 'unknown'}"
    rows = [
        Finding(f"GPU {number}", f"{gpu.name}, {in_bytes(gpu.memory)}, {built}")
        for number, gpu in enumerate(found.gpus)
    ]
    if found.visible is not None:
        text = f"{VISIBLE} = {found.visible!r}"
        rows.append(Finding("GPUs", text, "note", f"unset {VISIBLE} to use all that there are"))
    return rows


def _why_none(found: Graphics) -> tuple[str, str]:
    """Return the reason, and what to do; nothing on a machine that has no GPU."""
    if not (found.driver or found.device_files):
        return "there is no NVIDIA driver here", ""
    if found.cuda is None:
        return (
            f"torch {found.torch} is a build for the CPU alone",
            "install a build of torch for CUDA (https://pytorch.org/get-started/locally)",
        )
    if found.visible is not None and found.visible.strip() in ("", "-1", "NoDevFiles"):
        return f"{VISIBLE} = {found.visible!r} hides them", f"unset {VISIBLE}"
    if not found.device_files:
        return (
            f"driver {found.driver} is loaded, and there is no /dev/nvidia0",
            "give the container its GPUs (docker run --gpus all)",
        )
    now = found.driver or "unknown"
    remedy = f"install a driver for CUDA {found.cuda} (now {now}), or torch for an older CUDA"
    return found.error or "it does not say why", remedy


def _driver() -> str:
    """Return the version of NVIDIA's driver; "" where there is none."""
    try:
        loaded = re.search(
            r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", DRIVER.read_text(encoding="utf-8", errors="replace")
        )
    except OSError:
        loaded = None
    if loaded:
        return loaded[1]
    if not shutil.which("nvidia-smi"):
        return ""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(
            query, capture_output=True, text=True, encoding="utf-8", timeout=ANSWER_WITHIN, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(said.stdout.split()), "")
