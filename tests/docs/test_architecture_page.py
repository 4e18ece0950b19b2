"""docs/architecture.md, held against the calls that a round really makes."""

import re
import sys
from collections.abc import Callable
from types import FrameType

from places import ROOT

from models.core.config import Value
from simulations.runtime.in_process import run_in_process

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STRATEGY = "the strategy"
RESERVED = (
    "activate|alt|and|autonumber|box|break|create|critical|deactivate|destroy|else|end|link|links|loop|note"
    "|opt|option|par|participant|rect"
)
"""Words of mermaid's own; a participant of such a name, in any case, is a parse error and draws nothing."""


def source() -> str:
    (text,) = re.findall(r"^```mermaid\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return str(text)


def participants(text: str) -> list[tuple[str, str]]:
    return re.findall(r"participant (\w+) as (.+)", text)


def diagram() -> list[tuple[str, str, str]]:
    """Return (file, file, function): who hands the weight to whom, in order."""
    text = source()
    files = {name: label.replace("<br/>", "") for name, label in participants(text)}
    return [
        (files[one], files[other], what) for one, other, what in re.findall(r"(\w+)->>(\w+): (\S+)", text)
    ]


def test_a_round_makes_the_calls_of_the_diagram_in_their_order(tiny: Callable[..., dict[str, Value]]) -> None:
    called: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and "/flwr/serverapp/strategy/" in file:
            called.append((STRATEGY, frame.f_code.co_name))
        elif event == "call" and file.startswith(f"{ROOT}/"):
            called.append((file.removeprefix(f"{ROOT}/"), frame.f_code.co_qualname))

    config = tiny(num_clients=6, num_server_rounds=1, evaluate_every=0, checkpoint_every=0)
    sys.setprofile(note)
    try:
        run_in_process(config)
    finally:
        sys.setprofile(None)
    at = called.index((STRATEGY, "configure_train"))
    for _, file, function in diagram():
        try:
            at = called.index((file, function), at) + 1
        except ValueError:
            raise AssertionError(f"{file}: {function} is not called, or not in this order") from None


def test_the_walk_is_as_short_as_the_page_says() -> None:
    steps = diagram()
    files = {file for one, other, _ in steps for file in (one, other)} - {STRATEGY}
    said = re.search(r"in (\d+) hand-overs between (\d+) files", PAGE)
    assert said is not None
    assert (len(steps), len(files)) == (int(said[1]), int(said[2])) == (21, 16)


def test_mermaid_can_draw_the_diagram() -> None:
    assert [name for name, _ in participants(source()) if re.fullmatch(RESERVED, name, re.IGNORECASE)] == []
