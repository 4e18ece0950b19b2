"""Who is at the other end of a connection: this user on this machine, or anybody else."""

import ipaddress
import os
import struct
import sys
from pathlib import Path

Address = tuple[str, int]
"""An address and a port."""
TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
"""Linux's lists of this machine's own TCP sockets, with the user of each."""
ESTABLISHED = "01"
"""State of a connection that is open at both ends; others have lost their owner, and show user 0."""
USER = 7
"""The user's number among a row's columns."""


def is_own(client: Address, server: Address) -> bool:
    """Whether a connection's client is a process of this user, on this machine.

    Root is another user: it can become this one, and what forwards requests of others often runs as root. The
    kernel's list of sockets says who it is, which no client can write. On systems without that list, other
    than Linux or sandboxes that hide it, it is whether the client is on the loopback.
    """
    if sys.platform != "linux" or not TABLES[0].exists():
        return ipaddress.ip_address(client[0]).is_loopback
    return user_of(client, server) == os.geteuid()


def user_of(client: Address, server: Address, tables: tuple[Path, ...] = TABLES) -> int | None:
    """Return the user who opened a connection from `client` to `server`; None where it was not here."""
    for table, needle in zip(tables, _needles(client, server), strict=True):
        try:
            rows = table.read_text(encoding="ascii")
        except OSError:  # without IPv6
            continue
        _, found, rest = rows.partition(f" {needle} {ESTABLISHED} ")
        if found:
            return int(f"0: {needle} {ESTABLISHED} {rest}".split(maxsplit=USER + 1)[USER])
    return None


def _needles(client: Address, server: Address) -> tuple[str, str]:
    """Return how the client's socket is written in the list of IPv4 and in that of IPv6."""
    ends = [_six(host) for host, _ in (client, server)]
    ports = (client[1], server[1])
    four = " ".join(f"{_hex(end[-4:])}:{port:04X}" for end, port in zip(ends, ports, strict=True))
    six = " ".join(f"{_hex(end)}:{port:04X}" for end, port in zip(ends, ports, strict=True))
    return four if all(end[:12] == _six("0.0.0.0")[:12] for end in ends) else "-", six


def _six(host: str) -> bytes:
    """Return an address as IPv6 writes it; an IPv4 address is mapped."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        address = ipaddress.IPv6Address(f"::ffff:{address}")
    return address.packed


def _hex(packed: bytes) -> str:
    # The kernel prints each word of four bytes as a number of the machine's own byte order.
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))
