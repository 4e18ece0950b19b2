"""Flower's own command lines, started as the README says and stopped by their process id."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from simulations.runtime.staging import stage

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def environment(home: Path) -> dict[str, str]:
    """Return an environment that shares nothing with another Flower on this machine."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@contextmanager
def started(command: list[str], folder: Path, env: Mapping[str, str], log: Path) -> Iterator[None]:
    """Keep a server running in an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], cwd=folder, env=env, stdout=output, stderr=output
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_port(port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(log.read_text(encoding="utf-8"))


def flwr_run(app: Path, env: Mapping[str, str], home: Path, port: int, *arguments: str) -> str:
    """Run `flwr run APP here --stream ...` against the SuperLink on `port`; return its output."""
    (home / "config.toml").write_text(
        f'[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n', encoding="utf-8"
    )
    command = [str(BIN / "flwr"), "run", str(app), "here", "--stream", *arguments]
    ended = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=300, check=False, encoding="utf-8"
    )
    return ended.stdout + ended.stderr


@contextmanager
def flower_simulation(folder: Path, num_supernodes: int, num_cpus: int) -> Iterator[Callable[[Path], str]]:
    """Keep a SuperLink for simulations; yield `flwr run` of a scenario there, which returns its output."""
    home, port, log = folder / "home", free_port(), folder / "superlink.log"
    env = environment(home)
    nodes = f"num-supernodes={num_supernodes} client-resources-num-cpus=1 init-args-num-cpus={num_cpus}"
    superlink = ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
    app = stage(folder / "app")

    def run(scenario: Path) -> str:
        arguments = ("--run-config", str(scenario), "--federation-config", nodes)
        return flwr_run(app, env, home, port, *arguments)

    with started(superlink, folder / "empty", env, log):
        wait_for_port(port, log)
        yield run
