"""What killed a process is said by its right name."""

from pathlib import Path

import pytest

from simulations.runtime.flower import NO_HEARTBEAT, error_line
from simulations.runtime.oom import lack_of_memory, num_oom_kills


@pytest.mark.parametrize(
    ("content", "count", "said"),
    [
        ("nr_free 1\noom_kill 4\n", 4, " (not for lack of memory)"),
        (
            "oom_kill 5\n",
            5,
            " (the kernel killed a process for lack of memory: use fewer workers or smaller batches)",
        ),
        ("nr_free 1\n", None, ""),
        (None, None, ""),
    ],
)
def test_only_the_kernels_count_says_out_of_memory(
    tmp_path: Path, content: str | None, count: int | None, said: str
) -> None:
    vmstat = tmp_path / "vmstat"
    if content is not None:
        vmstat.write_text(content, encoding="utf-8")
    assert num_oom_kills(vmstat) == count
    assert lack_of_memory(4, vmstat) == said
    assert lack_of_memory(None, vmstat) == ""
    assert error_line("", NO_HEARTBEAT, said) == (
        f"the process of the ServerApp was killed, or died without a word{said}"
    )
