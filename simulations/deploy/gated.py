"""Starts a program of Flower behind the gate: `python -m simulations.deploy.gated flower-superlink ...`.

The arguments are the program's own. Every HTTP server that it opens in its process is behind the gate.
"""

import importlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import uvicorn

from server.node_clients import fingerprint
from simulations.deploy.gate import FOR_NODES, Gate, Scope
from simulations.deploy.keys import public_line, read_key
from simulations.deploy.punctual import Punctual, allow_many_files
from simulations.deploy.refusals import ExitLog
from simulations.deploy.signatures import registered_in, signed_by

PROGRAMS = {"flower-superlink": "flwr.superlink.cli", "flower-supernode": "flwr.supernode.cli"}
"""Program -> the module that holds its function, which has the same name with an underscore."""
OPEN = {"flower-superlink": FOR_NODES, "flower-supernode": frozenset[str]()}
"""Program -> what registered nodes may ask of it."""
OLD_SERVERS = ("FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API", "FORWARDED_ALLOW_IPS")
"""Variables by which Flower would open servers of an earlier version, or believe what a client says it is."""
SINCE = "POLYFED_REFUSED_SINCE"
"""Variable that tells a started-again node since when the SuperLink has refused it, in seconds."""
PATIENCE = "POLYFED_REFUSED_FOR"
"""Variable that says for how many seconds a node that is refused tries again."""
PAUSE = 10.0
"""Seconds between two tries of a node that is refused."""


def gate_servers(open_paths: frozenset[str]) -> None:
    """Put the gate before every application that uvicorn serves in this process from now on."""
    plain = uvicorn.Config.__init__

    def gated(self: uvicorn.Config, app: Any, *arguments: Any, **options: Any) -> None:
        registered = registered_in(app)

        def of_node(scope: Scope) -> bool:
            key = signed_by(scope.get("headers", ()))
            return key is not None and registered(key)

        # A proxy's word on who the client is would be believed by the gate.
        # A line of the log for each request lets strangers fill the disk; the gate says what it refuses.
        ours = {"proxy_headers": False, "http": Punctual, "access_log": False}
        plain(self, Gate(app, open_paths, of_node), *arguments, **options | ours)

    uvicorn.Config.__init__ = gated  # type: ignore[method-assign]


def main(argv: Sequence[str]) -> None:
    """Run the program that the first argument names, to its end."""
    if not argv or argv[0] not in PROGRAMS:
        sys.exit(f"give one of {', '.join(PROGRAMS)}, and its arguments")
    program = argv[0]
    for name in OLD_SERVERS:
        os.environ.pop(name, None)
    allow_many_files()
    gate_servers(OPEN[program])
    run = getattr(importlib.import_module(PROGRAMS[program]), program.replace("-", "_"))
    sys.argv = list(argv)
    if program == "flower-supernode":
        run_node(run, argv)
    else:
        run()


def run_node(run: Callable[[], None], argv: Sequence[str]) -> None:
    """Run a SuperNode; where the SuperLink does not take it yet, start again after a pause.

    A SuperLink that has lost a node to a kill refuses it for about a minute. It says the same of a key that
    it does not know, so that this ends after a while.
    """
    if SINCE in os.environ:
        time.sleep(PAUSE)
    ending = ExitLog.attached()
    try:
        run()
    except SystemExit:
        _end_children()
        if not ending.is_refusal:
            raise
        since = float(os.environ.get(SINCE) or time.time())
        left = since + float(os.environ.get(PATIENCE) or 0) - time.time()
        if left <= 0:
            sys.exit(f"polyfed: {_refused(argv)}: have node.pub registered there (polyfed deploy register)")
        print(f"polyfed: {_refused(argv)}; tries again for {left:.0f} s", file=sys.stderr, flush=True)
        # At once, as Flower has set an alarm that would end this process in its pause.
        again = [sys.executable, "-m", "simulations.deploy.gated", *argv]
        os.execve(sys.executable, again, {**os.environ, SINCE: str(since)})


def _refused(argv: Sequence[str]) -> str:
    """Return who refuses which key, in words."""
    said = dict(itertools.pairwise(argv))
    path = said.get("--auth-supernode-private-key", "")
    line = public_line(read_key(Path(path)), "").encode() if path else b""
    key = f"the key {fingerprint(line)} of {path}" if line else "a node without a key"
    return f"the SuperLink at {said.get('--superlink')} refuses {key}"


def _end_children() -> None:
    """End what the program has started: it would try to reach it for a minute, or serve the next one."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        child.terminate()
    _, left = psutil.wait_procs(children, timeout=5)
    for child in left:
        child.kill()


if __name__ == "__main__":
    main(sys.argv[1:])
