"""The parts of `make gpu`: what each measures, and how.

All run on any device, so that tests run them on the CPU; what is worth knowing is a GPU's.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import tomli_w
import torch

from clients.loop import train_epochs
from clients.transfer import at_hand
from clients.worker import load_worker
from models.core.config import RunConfig, TaskConfig, Value, read
from models.core.device import pinned
from models.core.seeds import generator_for
from models.data.dataset import Examples
from models.optimizers import make_optimizers
from server.errors import RunFailedError
from server.run_schema import RUN_LOG
from simulations.bench.gpu_data import Waiting
from simulations.bench.gpu_table import Row
from simulations.bench.workloads import WORKLOADS
from simulations.runs.reader import read_run
from simulations.runs.record import Run
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults, load_scenario

FAMILIES = (
    "clip",
    "cnn",
    "contrastive",
    "detect",
    "dialogue",
    "dqn",
    "gan",
    "lstm-forecast",
    "lstm-text",
    "masked-lm",
    "masked-pixels",
    "multimodal",
    "ner",
    "seq2seq",
    "text-classify",
    "vae",
)
"""A scenario of each family, whose data comes with a package."""
OF_FAMILY: Mapping[str, RunConfig] = {
    "dqn": {
        "examples-per-client": 8,  # which are environments
        "clients-per-round": 1,
        "task-options": "reward_scale = 0.01, steps = 100, warmup = 200",
    }
}
"""What a family is shortened by beside."""
PHOTOS = "simulations.bench.gpu_data:PHOTOS"
PARTS = {
    "hash": "one run twice, against the CPU",
    "families": "shortened scenarios, against the CPU",
    "stacked": "small clients stacked, against the loop",
    "transfers": "a client's training, against batches that are waited for",
    "actors": "workers that share a GPU, against one",
}
"""Part -> what is measured, against what."""


@dataclass(frozen=True)
class Sizes:
    """How much each part does."""

    rounds: int = 4
    """Of every run, the first of which is not counted."""
    clients: int = 40
    """A round, where workers share a GPU."""
    photos: int = 20_000
    """Pictures that these clients hold together."""
    steps: int = 150
    """Of the one client whose transfers are timed."""
    actors: Sequence[int] = (1, 2, 4, 8)


@dataclass(frozen=True)
class Piece:
    """A row that is still to be measured."""

    part: str
    what: str
    guess: float
    """Seconds that it takes at most, about."""
    measure: Callable[[float], Row]
    """(seconds left) -> the row."""


def pieces(device: str, sizes: Sizes, *, actors: bool = True) -> Iterator[Piece]:
    """Yield all that is to be measured, the most important first; without `actors`, in this process alone."""
    digits = "cnn on digits"
    yield Piece("hash", digits, 30, _however_long(partial(hash_row, digits, device, sizes)))
    for name in FAMILIES:
        yield Piece("families", name, 30, _however_long(partial(family_row, name, device, sizes)))
    yield Piece("stacked", "small clients", 40, _however_long(partial(stacked_row, device, sizes)))
    baseline: list[float] = []
    for variant in VARIANTS:
        measure = partial(transfer_row, variant, device, sizes, baseline)
        yield Piece("transfers", variant.what, 15, _however_long(measure))
    alone: list[float] = []
    for number in sizes.actors if actors else ():
        what = _actors_in_words(number)
        yield Piece("actors", what, 60, partial(actors_row, number, device, sizes, alone))


@dataclass(frozen=True)
class Seen:
    """What a run in this process showed."""

    run: Run
    seconds: float
    """Median of its rounds, but for the first."""
    memory: int
    unrepeatable: str
    """What torch said of operations that do not repeat; "" where it said nothing."""

    @property
    def sha256(self) -> str:
        """The hash of the final weights."""
        return self.run.result.weights_sha256 if self.run.result else ""

    @property
    def metric(self) -> str:
        """The main metric at the end, as text."""
        value = self.run.final.get(self.run.metric)
        return f"{self.run.metric} {value:.4g}" if value is not None else ""


def run_here(overrides: Mapping[str, Value], device: str) -> Seen:
    """Run in this process on the device."""
    _forget_peak(device)
    with TemporaryDirectory(prefix="polyfed-gpu-") as folder:
        run_in_process({**defaults(), **_short(overrides), "device": device, "run-dir": f"{folder}/run"})
        run, log = read_run(Path(folder, "run")), Path(folder, "run", RUN_LOG)
        said = log.read_text(encoding="utf-8") if log.exists() else ""
    told = sorted(set(re.findall(r"(\w+) does not have a deterministic implementation", said)))
    return Seen(run, _seconds(run), _peak(device), ", ".join(told))


def hash_row(what: str, device: str, sizes: Sizes) -> Row:
    """Run the same twice on the device, and once on the CPU; compare the hashes of the final weights."""
    config: dict[str, Value] = {"dataset": "digits", "num-clients": 4, "num-server-rounds": sizes.rounds}
    first, second, cpu = (run_here(config, each) for each in (device, device, "cpu"))
    also = f"{_repeats(first, second)}; CPU {cpu.sha256[:12]}; {first.metric} (CPU {cpu.metric})"
    return Row("hash", what, "s a round", second.seconds, cpu.seconds, first.memory, also)


def family_row(name: str, device: str, sizes: Sizes) -> Row:
    """Run a shortened scenario twice on the device and once on the CPU."""
    scenario = load_scenario(name)
    config = {
        **scenario,
        "num-server-rounds": sizes.rounds,
        "clients-per-round": min(4, int(scenario["num-clients"])),
        "examples-per-client": 64,
        "local-epochs": 1,
        **OF_FAMILY.get(name, {}),
    }
    first, second, cpu = (run_here(config, each) for each in (device, device, "cpu"))
    also = f"{first.metric} (CPU {cpu.metric.split(' ')[-1]}); {_repeats(first, second)}"
    return Row("families", name, "s a round", second.seconds, cpu.seconds, first.memory, also)


def stacked_row(device: str, sizes: Sizes) -> Row:
    """Train many small clients a round side by side, and one by one."""
    small = WORKLOADS["W2"]
    config = {**small.run_config(), "num-server-rounds": sizes.rounds}
    loop, stacked = (run_here({**config, "engine": engine}, device) for engine in ("loop", "stacked"))
    what = f"{small.clients_per_round} of {small.num_clients:,} small clients"
    also = f"{stacked.metric} (loop {loop.metric.split(' ')[-1]})"
    return Row("stacked", what, "rounds a s", 1 / stacked.seconds, 1 / loop.seconds, stacked.memory, also)


@dataclass(frozen=True)
class Variant:
    """A way in which a client's examples get to the GPU, and what is computed there."""

    what: str
    moved: str = "once"
    """"waiting", "batch" or "once"."""
    settings: RunConfig | None = None
    repeatable: bool = True
    """Whether with the settings that polyfed makes, or with torch's own."""


VARIANTS = (
    Variant("each batch, waited for", "waiting"),
    Variant("each batch, by pinned memory", "batch"),
    Variant("once a round"),
    Variant("once a round, channels-last", settings={"channels-last": True}),
    Variant("once a round, bfloat16", settings={"precision": "bfloat16"}),
    Variant(
        "once a round, channels-last, bfloat16", settings={"channels-last": True, "precision": "bfloat16"}
    ),
    Variant("once a round, torch's own settings (TF32, sums in any order)", repeatable=False),
)


def transfer_row(variant: Variant, device: str, sizes: Sizes, baseline: list[float]) -> Row:
    """Time a client's steps; the first variant's go into `baseline`, which the others are compared with."""
    task = f"{Waiting.__module__}:{Waiting.__name__}" if variant.moved == "waiting" else "cnn"
    keys = {"task": task, "dataset": PHOTOS, "dataset-options": f"num_train = {sizes.steps * 32}"}
    config = read(TaskConfig, {**keys, "num-clients": 1, "device": device, **(variant.settings or {})})
    worker = load_worker(config, "")
    examples, _ = worker.examples(0)
    if variant.moved == "once":
        examples = at_hand(worker.task, examples, worker.device)
    _forget_peak(device)
    with pinned(config.threads) if variant.repeatable else nullcontext():
        _train(config, examples)
        seconds = median(_train(config, examples) for _ in range(3))
    memory = _peak(device)
    if variant is VARIANTS[0]:
        baseline.append(sizes.steps / seconds)
    against = baseline[0] if baseline else None
    return Row("transfers", variant.what, "steps a s", sizes.steps / seconds, against, memory)


def actors_row(number: int, device: str, sizes: Sizes, alone: list[float], left: float) -> Row:
    """Run `polyfed run` with so many workers on one GPU; one worker's seconds go into `alone`."""
    config: dict[str, Value] = {
        "task": "cnn",
        "dataset": PHOTOS,
        "dataset-options": f"num_train = {sizes.photos}",
        "num-clients": sizes.clients,
        "partitioner": "iid",
        "num-server-rounds": sizes.rounds + 2,  # workers load torch in the first
        "num-workers": number,
        "client-gpus": 0.0 if device == "cpu" else 1 / number,
        "device": "cpu" if device == "cpu" else "cuda",
    }
    with TemporaryDirectory(prefix="polyfed-gpu-") as folder:
        scenario = Path(folder, "actors.toml")
        scenario.write_text(tomli_w.dumps(_short(config)), encoding="utf-8")
        started = time.monotonic()
        run = _polyfed_run(scenario, Path(folder, "run"), left)
        whole = time.monotonic() - started
    seconds = _seconds(run, warm_up=2)
    if number == 1:
        alone.append(seconds)
    sha256 = run.result.weights_sha256[:12] if run.result else ""
    also = f"{sha256}; {whole:.0f} s from the command to the end"
    what = _actors_in_words(number)
    return Row("actors", what, "s a round", seconds, alone[0] if alone else None, also=also)


def _polyfed_run(scenario: Path, run_dir: Path, left: float) -> Run:
    """Run the command in a process of its own; RunFailedError where it fails or takes too long."""
    code = "from simulations.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "run", str(scenario), "--run-dir", str(run_dir)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", timeout=left, env=environment
        )
    except subprocess.TimeoutExpired:
        raise RunFailedError(f"it was not done within {left:.0f} s") from None
    if ended.returncode:
        raise RunFailedError(" ".join((ended.stdout + ended.stderr).split())[-500:])
    return read_run(run_dir)


def _forget_peak(device: str) -> None:
    """Begin to look for the largest memory anew."""
    if device != "cpu":
        torch.cuda.init()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> int:
    """Return the largest memory that tensors have taken on the GPU, in bytes."""
    return torch.cuda.max_memory_allocated() if device != "cpu" else 0


def _train(config: TaskConfig, examples: Examples) -> float:
    """Train the worker's model for an epoch of these examples; return the seconds."""
    worker = load_worker(config, "")
    optimizers = make_optimizers(worker.task, worker.model.named_parameters(), config)
    started = time.perf_counter()
    train_epochs(  # the losses that it returns wait for the GPU
        worker.task,
        worker.model,
        examples,
        optimizers,
        generator=generator_for(config.seed, "train", 1, 0),
        local_epochs=1,
        batch_size=config.batch_size,
        device=worker.device,
        autocast=config.precision == "bfloat16",
    )
    return time.perf_counter() - started


def _short(config: Mapping[str, Value]) -> dict[str, Value]:
    """Return a config without what would be timed beside training."""
    off = {"evaluate-every": 0, "draw-every": 0, "checkpoint-every": 0, "validation-fraction": 0.0}
    return {**config, **off, "trackers": ""}


def _seconds(run: Run, warm_up: int = 1) -> float:
    """Return the median seconds of a round, from asking its clients to their replies."""
    rounds = [line.seconds for line in run.rounds if line.server_round > warm_up]
    return median(each["training"] + each["transport"] for each in rounds)


def _repeats(first: Seen, second: Seen) -> str:
    """Say whether two runs ended in the same weights."""
    said = f" ({first.unrepeatable})" if first.unrepeatable else ""
    if first.sha256 == second.sha256:
        return f"repeats, {first.sha256[:12]}{said}"
    return f"does not repeat: {first.sha256[:12]}, {second.sha256[:12]}{said}"


def _however_long(measure: Callable[[], Row]) -> Callable[[float], Row]:
    """Return what measures without looking at the time that is left."""
    return lambda _: measure()


def _actors_in_words(number: int) -> str:
    return f"{number} a GPU (client-gpus = {1 / number:g})"
