"""run.log of a run in this process; tests/server/test_error_log.py has one under Flower."""

import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.common.logger import FLOWER_LOGGER

from models.core.config import Value
from models.core.log import logger
from models.images.cnn import ImageClassification
from server.run_log import LINE, run_log
from simulations.runtime.in_process import run_in_process

Make = Callable[..., dict[str, Value]]


class Warns(ImageClassification):
    """Warns whenever it draws, on the server."""

    def figures(self, *arguments: Any) -> Any:
        warnings.warn("a pale\ncolour", UserWarning, stacklevel=1)
        return super().figures(*arguments)


def entries(folder: Path) -> list[tuple[str, str, str]]:
    found = [LINE.fullmatch(line) for line in (folder / "run.log").read_text(encoding="utf-8").splitlines()]
    return [(each["level"], each["name"], each["text"]) for each in found if each]


@pytest.mark.usefixtures("drawn")
@pytest.mark.filterwarnings("always")
def test_it_has_what_polyfed_says_and_what_others_warn_of(tiny: Make, tmp_path: Path) -> None:
    config = tiny(task="test_run_log:Warns", num_server_rounds=1)
    run_in_process(config, num_nodes=2)
    found = entries(tmp_path / "run")
    assert ("INFO", "polyfed", "4 clients on 2 nodes") in found
    assert any(text.startswith("[ROUND 1/1] ") for _, name, text in found if name == "polyfed")
    assert [level for level, name, _ in found if name == "flwr"] == ["WARNING"]  # of its hundred lines
    (warned,) = [(level, text) for level, name, text in found if name == "py.warnings"]
    assert warned[0] == "WARNING"
    assert warned[1].endswith("UserWarning: a pale")
    assert "\n    colour\n" in (tmp_path / "run" / "run.log").read_text(
        encoding="utf-8"
    )  # of the record above
    assert not (tmp_path / "run" / "errors.log").exists()


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    python = logging.getLogger("py.warnings")
    before = [list(each.handlers) for each in (logger, FLOWER_LOGGER)], logger.level, warnings.showwarning
    for _ in range(2):
        with run_log(tmp_path):
            logger.info("once")
    assert before == (
        [list(each.handlers) for each in (logger, FLOWER_LOGGER)],
        logger.level,
        warnings.showwarning,
    )
    assert not [each for each in python.handlers if not isinstance(each, logging.NullHandler)]
    logger.warning("after it")
    assert (
        re.sub(r"(?m)^\S+ \S+ ", "", (tmp_path / "run.log").read_text(encoding="utf-8"))
        == "INFO polyfed: once\n" * 2
    )


def test_flowers_console_shows_polyfeds_lines_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.common.logger import console_handler

    shown: list[str] = []
    monkeypatch.setattr(console_handler, "emit", lambda record: shown.append(record.getMessage()))
    with run_log(tmp_path):
        logger.info("for the stream")
        FLOWER_LOGGER.info("Flower's own")
    assert shown == ["for the stream", "Flower's own"]


def test_somebody_else_who_shows_polyfeds_lines_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flwr.common.logger import console_handler

    shown: list[str] = []
    monkeypatch.setattr(console_handler, "emit", lambda record: shown.append(record.getMessage()))
    other = logging.StreamHandler()
    logger.addHandler(other)
    try:
        with run_log(tmp_path):
            logger.info("for the terminal")
    finally:
        logger.removeHandler(other)
    assert shown == []
