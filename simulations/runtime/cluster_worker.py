"""What a run has on a cluster's nodes: workers that share no disk with the driver, and a store that does."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from clients.held_states import HeldStates, NewState, read_states, write_states
from clients.node_work import NodeWork
from clients.worker import Worker, make_worker
from models.core.config import TaskConfig, Value
from models.core.errors import UserError
from models.data.dataset_file import dataset_of
from simulations.runtime.cluster_checks import version_of
from simulations.runtime.ray_worker import RayWorker
from strategies.wire.arrays import tensor_view
from strategies.wire.reply import NodeReply
from strategies.wire.saved_state import SavedState


class StateStore:
    """Keeps what clients remember in the run's folder; a Ray actor on the driver's node is one of these."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def read(self, wanted: dict[int, SavedState]) -> dict[int, bytes]:
        """Return client -> its state's file, where it is there."""
        return read_states(self.folder, wanted)

    def write(self, states: list[NewState]) -> None:
        """Keep new states."""
        write_states(self.folder, states)


class ClusterWorker(RayWorker):
    """A worker on any node of a cluster."""

    def __init__(self, run_config: dict[str, Value], dataset: list[Any], store: Any | None) -> None:
        """Take references to what the driver has put into the object store, and to the store of states.

        `dataset` holds one to the dataset's arrays, or is empty where each node reads it by itself; without
        a `store` the run's folder lies on a disk that all nodes share.
        """
        super().__init__(run_config)
        self.dataset, self.store = dataset, store
        self._loaded: Worker | None = None

    def load(self, config: TaskConfig, data_path: str) -> Worker:
        """Return what this process keeps warm; a dataset that was sent lies in memory of the whole node."""
        if not self.dataset:
            return super().load(config, data_path)
        if self._loaded is None:
            arrays = ray.get(self.dataset[0])
            dataset = dataset_of({name: tensor_view(array) for name, array in arrays.items()})
            self._loaded = make_worker(config, dataset, own_data=False)
            self._check_unwritten()
        return self._loaded

    def work(self, work: NodeWork, clients: Collection[int], reply: NodeReply | None) -> NodeReply:
        """Do a part of a message's work, for which the clients' states come from the store and go back."""
        reply = self._with_states(work, clients, reply)
        self._check_unwritten()
        return reply

    def _with_states(self, work: NodeWork, clients: Collection[int], reply: NodeReply | None) -> NodeReply:
        if self.store is None:
            return super().work(work, clients, reply)
        named = {client: state for client, state in (work.states.named or {}).items() if client in clients}
        received = _answer(self.store.read.remote(named)) if named else {}
        states = HeldStates(work.states.folder, work.states.named, received)
        reply = super().work(replace(work, states=states), clients, reply)
        if states.saved:
            _answer(self.store.write.remote(states.saved))
        return reply

    def _check_unwritten(self) -> None:
        """Raise UserError where a task has written to the dataset that was sent.

        NumPy holds it to be read-only, PyTorch knows nothing of the kind, and the memory is not protected.
        """
        if not (self.dataset and self._loaded):
            return
        dataset = self._loaded.dataset
        for part in (dataset.train, dataset.test, dataset.validation):
            for name, column in part.source.items() if part else ():
                if column._version:  # how often it was written to, itself or by a view
                    raise UserError(
                        f"the task has written to column {name!r} of the dataset, which all workers of a "
                        "node share: copy it before, or set cluster-data = 'nodes'"
                    )

    def versions(self, packages: list[str]) -> dict[str, str]:
        """Return the versions of installed packages, "" for one that is not."""
        return {name: version_of(name) for name in packages}

    def node(self) -> str:
        """Return the id of the node that this process is on."""
        return str(ray.get_runtime_context().get_node_id())

    def sees(self, file: str) -> bool:
        """Return whether this node has a file."""
        return Path(file).is_file()


def _answer(asked: Any) -> Any:
    try:
        return ray.get(asked)
    except RayError as error:
        # Not as it is: an actor's death, seen from the driver, is that of the worker itself.
        raise RuntimeError(f"what clients remember cannot be reached on the driver's node: {error}") from None
