"""What secure aggregation costs: `python -m simulations.bench.masking`.

Seconds of a processor that one node and the server take for a round's masks, by weights and nodes, and the
bytes that a node sends; with `--rounds`, seconds a round of `cnn` on three real nodes on the loopback.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from models.core.config import Value
from server.errors import RunFailedError
from simulations.bench.clock import clocked, read_starts
from simulations.bench.measurements import FOLDER, machine_line, save
from simulations.bench.real_nodes import real_nodes
from simulations.runtime.staging import stage
from strategies.secure.fixed_point import limbs_of, total_of
from strategies.secure.member import Member
from strategies.secure.modular import Limbs, add, subtract
from strategies.secure.session import Session, threshold_of
from strategies.wire.exact_sum import ExactSum

FILE = "masking.json"
NODES = (3, 10, 30)
WEIGHTS = (100_000, 1_000_000, 10_000_000)
HEADINGS = (
    "nodes",
    "weights",
    "a node's masks, s",
    "the server, s",
    "the server, one node gone, s",
    "a node sends, MB",
    "in plain, MB",
)
WARM_UP = 1
"""Rounds that do not count."""
SHARE = 0.6

Cost = dict[str, float]
"""Heading -> number."""


def cost_of(nodes: int, weights: int) -> Cost:
    """Return what one round costs."""
    numbers = tuple(range(nodes))
    session = Session(b"bench", numbers, threshold_of(SHARE, nodes))
    members = {at + 1: Member.begin(b"bench", numbers, at, session.threshold) for at in numbers}
    for place, member in members.items():
        session.mask_keys[place], session.seal_keys[place] = member.public_keys()
    for place, member in members.items():
        session.take_dealt(place, member.deal(session.mask_keys, session.seal_keys))
    total = ExactSum()
    total.add({"w": np.random.default_rng(0).normal(size=weights).astype(np.float32)}, 500.0)
    spent = _seconds(masking_of(members[1], session, total))
    vector = limbs_of(total)
    for member in list(members.values())[1:]:  # their vectors cost what the first one's does
        member.receive(session.sealed_for(member.place))
        member.stage = "masked"
    opening = []
    for gone in ([], [nodes]):
        alive = told_of(session, members, gone)
        masked = masked_sum(session, alive, vector)
        opening.append(_seconds(opening_of(session, alive, masked, vector)))
    sent = 16 * weights + 92 * (nodes - 1) + 64 * nodes
    return dict(zip(HEADINGS, (nodes, weights, spent, *opening, sent / 1e6, 4 * weights / 1e6), strict=True))


def masking_of(member: Member, session: Session, total: ExactSum) -> Iterator[None]:
    """Do what a node does for its masks."""
    member.receive(session.sealed_for(member.place))
    vector = limbs_of(total)
    member.mask(vector)
    yield


def told_of(session: Session, members: dict[int, Member], gone: Sequence[int]) -> list[int]:
    """Have as many nodes as it takes tell their shares; return those that have not gone."""
    alive = [place for place in members if place not in gone]
    session.told.clear()
    for place in alive[: session.threshold]:
        members[place].stage = "masked"
        session.take_told(place, members[place].tell(alive, list(gone)), alive)
    return alive


def opening_of(session: Session, alive: Sequence[int], masked: Limbs, vector: Limbs) -> Iterator[None]:
    """Do what the server does: add up the vectors of those that have not gone, open the sum, and read it."""
    for _ in alive[1:]:
        add(masked, vector)
    session.unmask(masked, alive)
    yield
    total_of(masked, {"w": (masked.shape[1],)}, 1.0).mean()


def masked_sum(session: Session, alive: Sequence[int], vector: Limbs) -> Limbs:
    """Return a vector under all the masks that their sum would have."""
    masked, masks = vector.copy(), np.zeros_like(vector)
    session.unmask(masks, alive)
    subtract(masked, masks)
    return masked


def _seconds(steps: Iterator[None]) -> float:
    begun = time.process_time()
    for _ in steps:
        pass
    return time.process_time() - begun


def seconds_a_round(rounds: int, *, secure: bool, resident: bool) -> float:
    """Return the median of `cnn`'s rounds on three nodes."""
    count = rounds + WARM_UP + 1
    with real_nodes(3, "resident=true" if resident else "") as federation:
        clock = federation.folder / "clock"
        clock.touch()
        run_config: dict[str, Value] = {
            "task": "cnn",
            "dataset": "digits",
            "num-clients": 3,
            "num-server-rounds": count,
            "run-dir": str(federation.folder / "run"),
            "secure-aggregation": secure,
            **clocked(clock),
        }
        said = federation.run(stage(federation.folder / "staged"), run_config)
        starts = read_starts(clock)
    if len(starts) != count:
        raise RunFailedError(f"{len(starts)} of {count} rounds have begun\n{said}")
    return median(after - before for before, after in pairwise(starts[WARM_UP:]))


def main(
    rounds: Annotated[
        int, typer.Option(min=0, help="Rounds on real nodes that count, each way; 0 = none.")
    ] = 0,
    most: Annotated[int, typer.Option(min=1, help="Weights of the largest model.")] = WEIGHTS[-1],
    output: Annotated[Path, typer.Option(help="JSON file for every number measured.")] = FOLDER / FILE,
) -> None:
    """Measure, print tables, and write what was measured."""
    found = []
    print(f"| {' | '.join(HEADINGS)} |", flush=True)
    for nodes, weights in product(NODES, WEIGHTS):
        if weights <= most:
            found.append(cost_of(nodes, weights))
            cells = [f"{each:,.0f}" if each >= 100 else f"{each:.3g}" for each in found[-1].values()]
            print(f"| {' | '.join(cells)} |", flush=True)
    ways = [(secure, resident) for resident in (False, True) for secure in (False, True)] if rounds else []
    on_nodes = [
        {
            "secure": secure,
            "resident": resident,
            "seconds": seconds_a_round(rounds, secure=secure, resident=resident),
        }
        for secure, resident in ways
    ]
    for each in on_nodes:
        print(each)
    print(f"Measured on: {machine_line()}.")
    save(output, {"masks": found, "rounds": on_nodes})


if __name__ == "__main__":
    typer.run(main)
