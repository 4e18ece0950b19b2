"""Why two runs of one config end in other weights."""

from pathlib import Path
from typing import Any

from run_folders import write_run

from simulations.report.page import write_report
from simulations.runs.origins import origin_lines, origin_rows
from simulations.runs.reader import read_runs
from simulations.runs.record import Run

ONE = {
    "schema_number": 3,
    "weights_sha256": "a" * 64,
    "versions": {"python": "3.11.7", "torch": "2.14.1"},
    "packages": {"torch": "2.14.1", "sympy": "1.13", "pytest": "8.0"},
    "git_commit": "c" * 40,
    "lock_sha256": "e" * 64,
    "streams": 1,
    "machine": {
        "cpu": "Some CPU",
        "instruction_set": "AVX2",
        "threads": 1,
        "features": ["avx", "avx2", "fma"],
        "system": "Linux x86_64, glibc 2.36",
        "device": "cpu",
    },
    "nodes": ["torch 2.14.1, Some CPU (AVX2, x86_64), 1 thread, cpu"],
    "used": {
        "optimizers": [{"objective": "loss", "optimizer": "SGD", "learning_rate": 0.05}],
        "data_sha256": "d" * 64,
        "data_files": [{"name": "prices.csv", "num_bytes": 10, "sha256": "1" * 64}],
    },
}


def pair(folder: Path, **changes: Any) -> list[Run]:
    """Return two runs of one config, of which the second has other weights and `changes`."""
    other = ONE | {"weights_sha256": "b" * 64} | changes
    paths = [write_run(folder / "a", {"run-dir": "/x"}, result=ONE), write_run(folder / "b", result=other)]
    return read_runs(paths)


def test_the_machine_is_told_where_it_differs(tmp_path: Path) -> None:
    machine = {**ONE["machine"], "instruction_set": "AVX512", "features": ["avx", "avx2", "avx512f", "fma"]}  # type: ignore[dict-item]
    assert origin_lines(pair(tmp_path, machine=machine)) == [
        "a | b: one config, other weights (aaaaaaaaaaaa | bbbbbbbbbbbb); what differs:",
        "  instruction set of the CPU: AVX2 | AVX512",
        "  instructions that only one CPU has: none | avx512f",
    ]


def test_code_versions_seeding_threads_device_and_data_are_told(tmp_path: Path) -> None:
    used = {
        "optimizers": [{"objective": "loss", "optimizer": "SGD", "learning_rate": 0.1}],
        "data_sha256": "f" * 64,
        "data_files": [{"name": "prices.csv", "num_bytes": 10, "sha256": "2" * 64}],
    }
    machine = {**ONE["machine"], "threads": 2, "device": "NVIDIA H100, CUDA 13.0, cuDNN 9"}  # type: ignore[dict-item]
    machine["settings"] = {"ATEN_CPU_CAPABILITY": "avx2"}
    changes = {
        "git_commit": "0" * 40,
        "lock_sha256": "9" * 64,
        "streams": 2,
        "versions": {"python": "3.11.7", "torch": "2.9.1"},
        "packages": {"torch": "2.9.1", "sympy": "1.14"},
        "machine": machine,
        "used": used,
    }
    _, *lines = origin_lines(pair(tmp_path, **changes))
    assert lines == [
        f"  commit of the code: {'c' * 40} | {'0' * 40}",
        "  lock of dependencies: eeeeeeeeeeee | 999999999999",
        "  streams of random numbers: 1 | 2",
        "  data: dddddddddddd | ffffffffffff",
        "  optimizers: SGD(lr=0.05) | SGD(lr=0.1)",
        "  settings of kernels: none | ATEN_CPU_CAPABILITY=avx2",
        "  threads of a model: 1 | 2",
        "  device: cpu | NVIDIA H100, CUDA 13.0, cuDNN 9",
        "  torch: 2.14.1 | 2.9.1",
        "  pytest: 8.0 | not installed",
        "  sympy: 1.13 | 1.14",
        "  data file prices.csv: 111111111111 | 222222222222",
    ]


def test_what_nobody_recorded_is_no_reason_and_is_said(tmp_path: Path) -> None:
    (line,) = origin_lines(pair(tmp_path / "same"))
    assert line.endswith("nothing that was recorded differs")
    (line,) = origin_lines(
        read_runs(
            [
                write_run(
                    tmp_path / name, result=ONE | {"git_commit": "c" * 40 + "-dirty", "weights_sha256": sha}
                )
                for name, sha in (("a", "a" * 64), ("b", "b" * 64))
            ]
        )
    )
    assert line.endswith("but the code was changed after its commit, and how is not recorded")
    *_, last = origin_lines(pair(tmp_path / "old", machine=None, used=None))
    assert last.startswith("  not recorded of both: data, optimizers, instruction set of the CPU")


def test_equal_weights_and_runs_without_an_end_are_said(tmp_path: Path) -> None:
    (line,) = origin_lines(pair(tmp_path / "equal", weights_sha256="a" * 64))
    assert line == "a | b: one config and the same weights, aaaaaaaaaaaa"
    (line,) = origin_lines(pair(tmp_path / "failed", weights_sha256="", status="failed"))
    assert line == "a | b: one config; b has no final weights to compare"
    runs = [write_run(tmp_path / "c"), write_run(tmp_path / "d", {"strategy": "Krum"})]
    assert origin_lines(read_runs(runs)) == []


def test_runs_of_different_configs_have_rows(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", result=ONE),
        write_run(tmp_path / "b", {"strategy": "Krum"}, result=ONE | {"versions": {"torch": "2.9.1"}}),
        write_run(tmp_path / "old"),
    ]
    assert origin_rows(read_runs(runs)) == {"torch": ["2.14.1", "2.9.1", "2.9.1"]}


def test_the_page_says_it_too(tmp_path: Path) -> None:
    runs = pair(tmp_path, git_commit="0" * 40)
    page = write_report([run.path for run in runs], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "a | b: one config, other weights (aaaaaaaaaaaa | bbbbbbbbbbbb); what differs:" in page
    assert f"commit of the code: {'c' * 40} | {'0' * 40}" in page
