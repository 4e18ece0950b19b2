"""Talks to a SuperLink as the `flwr` command does, but in process: each start of `flwr` takes a second."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest, StopRunRequest, StreamLogsRequest
from flwr.proto.federation_config_pb2 import SimulationConfig as FederationConfig
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab

from models.core.config import Value
from simulations.config import ResolvedSimulation


class RefusedError(Exception):
    """The SuperLink would not start the run; its log says why."""


class Control:
    """The Control API of a SuperLink; methods raise httpx.TransportError once that is gone."""

    def __init__(self, client: ControlHttpClient) -> None:
        self._client = client

    @classmethod
    def at(cls, url: str) -> Self:
        """Return that of the SuperLink at `url`, which has no TLS."""
        return cls(ControlHttpClient(url))

    def start_run(
        self, app: Path, run_config: Mapping[str, Value], simulation: ResolvedSimulation | None = None
    ) -> int:
        """Submit the app in the folder `app` and return the run's number; may raise RefusedError.

        Without a simulation it is for real nodes.
        """
        content = build_fab_from_disk(app)
        request = StartRunRequest(
            fab=fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {})),
            override_config=user_config_to_proto(dict(run_config)),
            override_federation_config=_simulated(simulation) if simulation else None,
        )
        try:
            response = self._client.StartRun(request)
        except httpx.HTTPStatusError as error:
            raise RefusedError from error
        if not response.HasField("run_id"):
            raise RefusedError
        return response.run_id

    def log(self, run_id: int) -> Iterator[str]:
        """Yield the run's log in chunks as they come, until the run has ended."""
        for response in self._client.StreamLogs(StreamLogsRequest(run_id=run_id)):
            yield response.log_output

    def status(self, run_id: int) -> tuple[str, str]:
        """Return how a run that has ended did so ("completed", "failed", "stopped"), and Flower's details."""
        status = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id].status
        return status.sub_status, status.details

    def stop_run(self, run_id: int) -> None:
        """End a run."""
        self._client.StopRun(StopRunRequest(run_id=run_id))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _simulated(simulation: ResolvedSimulation) -> FederationConfig:
    return FederationConfig(
        num_supernodes=simulation.num_nodes,
        client_resources_num_cpus=1,
        client_resources_num_gpus=simulation.client_gpus,
        init_args_num_cpus=simulation.num_workers,
    )
