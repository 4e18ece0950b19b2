"""`make gpu`: its parts on a CPU, its table from given numbers, and what it says without CUDA."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from models.core.config import TaskConfig
from simulations.bench.gpu import _sizes, measured
from simulations.bench.gpu_data import NUM_TEST, load_photos
from simulations.bench.gpu_parts import (
    FAMILIES,
    PARTS,
    VARIANTS,
    Piece,
    Sizes,
    actors_row,
    family_row,
    hash_row,
    pieces,
    stacked_row,
    transfer_row,
)
from simulations.bench.gpu_table import HEADINGS, Row, markdown, write

TINY = Sizes(rounds=2, clients=2, photos=64, steps=2, actors=(1,))
DEAR = ("detect", "dialogue", "lstm-text", "masked-lm", "ner", "seq2seq", "text-classify")
"""Families whose rows take ten seconds: by `make bars`; test_scenarios.py runs their scenarios."""
MEASURED = Row("stacked", "small", "rounds a s", 6.0, 2.0, 3 << 20, "x")


def test_times_say_how_much_better_it_is() -> None:
    assert MEASURED.times == 3.0
    assert Row("hash", "", "s a round", 0.5, 2.0).times == 4.0
    assert Row("hash", "", "s a round", 0.5).times is None


def test_the_table_from_given_numbers(tmp_path: Path) -> None:
    rows = [MEASURED, Row("actors", "2 a GPU", also="left out", failed=True)]
    text = markdown(rows, "A card.")
    assert text.startswith("A card.\n\n| part | what |")
    assert "| stacked | small | rounds a s | 6 | 2 | 3.00 | 3 MiB | x |" in text
    assert "| actors | 2 a GPU | – | – | – | – | – | left out |" in text
    assert len(HEADINGS) == len(MEASURED.cells())
    write(tmp_path / "new", rows, "A card.", {"device": "A card"})
    found = json.loads((tmp_path / "new" / "gpu.json").read_text(encoding="utf-8"))
    assert found["machine"] == {"device": "A card"}
    assert [row["times"] for row in found["rows"]] == [3.0, None]


def test_what_does_not_fit_is_left_out_and_what_fails_is_said() -> None:
    def fails(left: float) -> Row:
        assert 0 < left <= 100
        raise ValueError("no such card")

    wanted = [
        Piece("hash", "a", 5.0, lambda _: MEASURED),
        Piece("stacked", "b", 101.0, lambda _: MEASURED),
        Piece("actors", "c", 5.0, fails),
    ]
    first, second, third = measured(wanted, time.monotonic() + 100)
    assert first is MEASURED
    assert second.value is None
    assert second.also.startswith("left out: it may take 101 s, and ")
    assert not second.failed
    assert (third.also, third.failed) == ("failed: ValueError: no such card", True)


def test_every_part_has_pieces_and_workers_can_be_left_out() -> None:
    every = list(pieces("cpu", Sizes()))
    assert {piece.part for piece in every} == PARTS.keys()
    assert [piece.what for piece in every if piece.part == "families"] == list(FAMILIES)
    assert {piece.part for piece in pieces("cpu", Sizes(), actors=False)} == PARTS.keys() - {"actors"}


def test_there_are_no_more_workers_than_cpus() -> None:
    assert _sizes(16).actors == [1, 2, 4, 8]
    assert _sizes(3).actors == [1, 2]


def test_photos_are_the_same_each_time() -> None:
    one, other = (load_photos(TaskConfig(), num_train=3) for _ in range(2))
    assert one.train["image"].shape == (3, 3, 32, 32)
    assert torch.equal(one.train["image"], other.train["image"])
    assert len(one.test) == NUM_TEST


@pytest.mark.slow
def test_a_run_twice_has_one_hash() -> None:
    row = hash_row("cnn", "cpu", TINY)
    repeats, cpu, _ = row.also.split("; ")
    assert repeats.startswith("repeats, ")
    assert cpu.removeprefix("CPU ") == repeats.removeprefix("repeats, ")
    assert row.times


def test_a_family() -> None:
    row = family_row("masked-pixels", "cpu", TINY)
    assert row.also.startswith("probe-accuracy 0.")
    assert "; repeats, " in row.also


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.bar if name in DEAR else ()) for name in FAMILIES]
)
def test_all_families(name: str) -> None:
    assert "; repeats, " in family_row(name, "cpu", TINY).also


def test_transfers_are_compared_with_the_first() -> None:
    baseline: list[float] = []
    rows = [transfer_row(variant, "cpu", TINY, baseline) for variant in VARIANTS]
    assert rows[0].value == rows[0].against == baseline[0]
    assert [row.against for row in rows] == [baseline[0]] * len(VARIANTS)
    assert all(row.value for row in rows)


@pytest.mark.slow
def test_small_clients_stacked() -> None:
    assert stacked_row("cpu", TINY).times


@pytest.mark.slow
def test_workers_are_compared_with_one() -> None:
    alone: list[float] = []
    row = actors_row(1, "cpu", TINY, alone, left=300)
    assert row.value == row.against == alone[0]
    assert row.times == 1.0


@pytest.mark.slow
def test_without_cuda_it_claims_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "simulations.bench.gpu", "--folder", str(tmp_path / "gpu")],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert ended.returncode == 0
    assert ended.stdout.startswith("Nothing is measured: torch sees none: ")
    assert len(ended.stdout.splitlines()) == 1
    assert not (tmp_path / "gpu").exists()
