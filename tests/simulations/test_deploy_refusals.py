"""A SuperNode that the SuperLink refuses."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.node_clients import fingerprint
from simulations.deploy import gated, keys
from simulations.deploy.refusals import ExitLog

REFUSED = (
    "Exit Code: 305\nFailed to initialize the connection to the SuperLink.\n"
    "[code: 2004] Failed to activate SuperNode.\nThe SuperNode could not establish a connection"
)
UNREACHED = "Exit Code: 305\nFailed to initialize the connection to the SuperLink.\ncertificate verify failed"


@pytest.fixture(autouse=True)
def handlers_as_they_were() -> Iterator[None]:
    log = logging.getLogger("flwr")
    before = list(log.handlers)
    yield
    log.handlers[:] = before


def ending(text: str) -> ExitLog:
    heard = ExitLog()
    heard.emit(logging.LogRecord("flwr", logging.ERROR, "", 0, text, (), None))
    return heard


def test_what_flowers_log_says_of_the_end() -> None:
    assert ending(REFUSED).is_refusal
    assert not ending(UNREACHED).is_refusal
    assert not ending("SuperNode terminated gracefully.").is_refusal


def refuse() -> None:
    logging.getLogger("flwr").error(REFUSED)
    raise SystemExit(1)


def arguments(tmp_path: Path) -> tuple[list[str], str]:
    key = keys.new_key()
    keys.write_key(tmp_path / "node.key", key, ssh=True)
    command = [
        "flower-supernode",
        "--superlink",
        "here:1",
        "--auth-supernode-private-key",
        str(tmp_path / "node.key"),
    ]
    return command, fingerprint(keys.public_line(key, "").encode())


def test_a_refused_node_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, fingerprint = arguments(tmp_path)
    started: list[tuple[list[str], dict[str, str]]] = []
    slept: list[float] = []
    monkeypatch.setattr(gated.os, "execve", lambda _, again, env: started.append((again, env)))
    monkeypatch.setattr(gated.time, "sleep", slept.append)
    monkeypatch.setattr(gated.time, "time", lambda: 1000.0)
    monkeypatch.setenv(gated.PATIENCE, "120")
    monkeypatch.delenv(gated.SINCE, raising=False)
    gated.run_node(refuse, argv)
    said = capsys.readouterr().err
    assert said == (
        f"polyfed: the SuperLink at here:1 refuses the key {fingerprint} of {tmp_path / 'node.key'}; "
        "tries again for 120 s\n"
    )
    ((again, env),) = started
    assert again[1:] == ["-m", "simulations.deploy.gated", *argv]
    assert env[gated.SINCE] == "1000.0"
    assert slept == [], "Flower ends a process that stays"
    monkeypatch.setenv(gated.SINCE, "1000.0")
    gated.run_node(lambda: None, argv)
    assert slept == [gated.PAUSE], "the next start waits"


def test_a_key_that_is_refused_for_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv, fingerprint = arguments(tmp_path)
    monkeypatch.setattr(gated.time, "time", lambda: 1120.0)
    monkeypatch.setattr(gated.time, "sleep", lambda _: None)
    monkeypatch.setenv(gated.PATIENCE, "120")
    monkeypatch.setenv(gated.SINCE, "1000.0")
    with pytest.raises(SystemExit, match=r"have node\.pub registered there") as exit_:
        gated.run_node(refuse, argv)
    assert fingerprint in str(exit_.value.code)


def test_another_end_is_flowers_own(tmp_path: Path) -> None:
    def fail() -> None:
        logging.getLogger("flwr").error(UNREACHED)
        raise SystemExit(1)

    with pytest.raises(SystemExit) as exit_:
        gated.run_node(fail, arguments(tmp_path)[0])
    assert exit_.value.code == 1
