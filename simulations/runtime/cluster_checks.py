"""Whether a Ray cluster is there, and whether its nodes have what the driver has."""

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from models.core.config import Value
from models.core.errors import UserError
from models.core.tracebacks import line_of

PATIENCE = 10.0
"""Seconds that a cluster's head gets to take a connection, and then to answer."""
PACKAGES = ("flwr", "torch", "torchvision", "numpy", "transformers", "tokenizers", "gymnasium")
"""Packages that a node has in the driver's versions."""
GROUPS = ("polyfed.tasks", "polyfed.strategies", "polyfed.datasets")
"""Entry points by which a run config may name what a package brings."""


def check_address(address: str) -> None:
    """Raise UserError for what is no address of a cluster."""
    host, _, port = address.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and 0 < int(port) < 2**16
    if address != "auto" and not (host and is_port and "/" not in host):
        raise UserError(
            f'ray-address must be "HOST:PORT" of a cluster\'s head, such as "10.0.0.1:6379", or "auto", got '
            f"{address!r}: run polyfed on a node of the cluster, and not through Ray's client (ray://)"
        )


def knock(address: str) -> None:
    """Raise UserError where no Ray answers: it would try for minutes itself, with lines on the terminal."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({line_of(error)}): start one with `ray start --head`, or "
            "leave out --ray-address and RAY_ADDRESS to run on this machine alone"
        ) from error
    if os.environ.get("RAY_USE_TLS", "0") in ("", "0") and (said := _health(address)):
        raise UserError(
            f"what listens at {address} is no head of a Ray cluster ({said}): give the address that "
            "`ray start --head` printed"
        )


def _health(address: str) -> str:
    """Ask the head of a cluster for its health, as anybody may; return what is wrong, "" for nothing."""
    import grpc  # which Flower talks by

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            ask(b"", timeout=PATIENCE)
        except grpc.RpcError as error:
            refused = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            return "" if error.code() in refused else str(error.code().name)
    return ""


def check_nodes(actors: Sequence[Any], run_config: Mapping[str, Value], patience: float) -> int:
    """Wait for the workers to begin; return on how many nodes they are.

    Raises UserError where they do not within `patience` seconds, or have other packages than this process.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError

    mine = packages_of(run_config)
    try:
        theirs = ray.get([actor.versions.remote(list(mine)) for actor in actors], timeout=patience)
        nodes = set(ray.get([actor.node.remote() for actor in actors]))
    except GetTimeoutError as error:
        raise UserError(
            f"not all of {len(actors)} workers began within {patience:g} s: has the cluster as many free "
            "CPUs (ray status)? lower num-workers, or raise node-timeout"
        ) from error
    except RayActorError as error:
        raise UserError(f"a worker cannot begin on its node: {line_of(error)}") from error
    for versions in theirs:
        for name, wanted in mine.items():
            if versions[name] != wanted:
                raise UserError(
                    f"the driver has {name} {wanted}, and a node of the cluster "
                    f"{versions[name] or 'has none'}: install the same version on every node"
                )
    return len(nodes)


def check_shared(actors: Sequence[Any], folder: Path) -> None:
    """Raise UserError where a worker does not see what this process writes into the run's folder."""
    import ray

    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".shared-{secrets.token_hex(8)}"
    probe.touch()
    try:
        seen = ray.get([actor.sees.remote(str(probe)) for actor in actors])
    finally:
        probe.unlink()
    if not all(seen):
        raise UserError(
            f"cluster-states is 'shared', and a node does not see {folder}: give a --run-dir on a disk that "
            "all nodes share, or set cluster-states = 'driver'"
        )


def packages_of(run_config: Mapping[str, Value]) -> dict[str, str]:
    """Return name -> version of what a node must have alike: what computes, and what plugins come from."""
    named = {str(value).partition(":")[0] for value in run_config.values()}
    points = [point for group in GROUPS for point in entry_points(group=group) if point.name in named]
    found = {point.dist.name: point.dist.version for point in points if point.dist}
    return found | {name: there for name in PACKAGES if (there := version_of(name))}


def version_of(package: str) -> str:
    """Return the version of an installed package, "" for one that is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
