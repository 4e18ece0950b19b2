"""HOST:PORT, as it is written, listened on and reached."""

import ipaddress
import socket
from contextlib import closing

import psutil

from models.core.errors import UserError

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that stand for all of a machine's, and the one by which it reaches itself there."""


def parse(given: str) -> tuple[str, int]:
    """Return the host and the port of HOST:PORT or [IPv6]:PORT; UserError for anything else."""
    host, _, port = given.rpartition(":")
    if not host or "://" in given or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"an address is HOST:PORT, as in fed.example.org:8000, got {given!r}")
    return host.strip("[]"), int(port)


def joined(host: str, port: int) -> str:
    """Return HOST:PORT, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reached(host: str) -> str:
    """Return the address by which this machine reaches what listens on `host`."""
    return EVERYWHERE.get(host, host)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_free(host: str, port: int) -> None:
    """Raise UserError where nothing can listen on a port, and name the process that does."""
    try:
        kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(kind)) as probe:
            # As servers do, so that a port which was used a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise UserError(f"cannot listen on {joined(host, port)} ({error.strerror}){_holder(port)}") from error


def _holder(port: int) -> str:
    try:
        holders = {s.pid for s in psutil.net_connections("tcp")
                   if s.status == psutil.CONN_LISTEN and s.laddr.port == port and s.pid}  # fmt: skip
        named = [f"process {pid} ({psutil.Process(pid).name()})" for pid in sorted(holders)]
    except psutil.Error:
        named = []
    return f": {', '.join(named)} listens there; end it or give another --port" if named else ": give another"
