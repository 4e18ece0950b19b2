"""A Ray cluster that is there already, and what a run takes to its nodes: code, data and clients' states."""

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from models.core.config import Value, read
from models.core.errors import UserError
from models.core.tracebacks import line_of
from models.core.user_code import FOLDER
from models.data.dataset import Dataset
from models.data.dataset_file import num_bytes, tensors_of
from models.data.datasets import find_source
from server.plan import Plan
from server.run_schema import CLIENTS
from simulations.config import SimulationConfig, resolve
from simulations.runtime.cluster_checks import check_address, check_nodes, check_shared, knock
from simulations.runtime.cluster_code import stage_for_workers
from simulations.runtime.ray_session import THREADS, one_ray
from simulations.runtime.ray_workers import RayWorkers

if TYPE_CHECKING:
    from ray.job_config import JobConfig

MOST_BYTES = 2**30
"""A dataset that is larger is not sent to nodes."""


@contextmanager
def on_cluster(address: str, run_config: dict[str, Value]) -> "Iterator[Cluster]":
    """Give the cluster at `address` ("HOST:PORT", or "auto"); afterwards nothing of this run is on it.

    Ray itself ends the run's workers where this process is killed: they belong to its job.
    Raises UserError for an address that is none, and where this process uses Ray already.
    """
    check_address(address)
    cluster = Cluster(address, run_config)
    with one_ray():
        try:
            yield cluster
        finally:
            cluster.leave()


class Cluster:
    """A cluster that a run is to have workers on."""

    def __init__(self, address: str, run_config: dict[str, Value]) -> None:
        """Take the address; nothing is asked yet."""
        self.address, self.run_config = address, run_config
        self.config = read(SimulationConfig, run_config)
        self.workers: RayWorkers | None = None
        self._connected = False

    def start(self, plan: Plan) -> RayWorkers:
        """Connect, take there what the plan needs, and return workers that have begun.

        Raises UserError where the cluster does not answer or is too small, where a node lacks a package or
        has it in another version, and where a dataset is too large to be sent.
        """
        self._connect()
        import ray

        from simulations.runtime.cluster_worker import ClusterWorker

        resources = ray.cluster_resources()
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        if not cpus:
            raise UserError(
                f"the Ray cluster at {self.address} has no CPUs for workers (ray start --num-cpus)"
            )
        simulation = resolve(self.config, cpus, gpus, where="the cluster")
        dataset = self._dataset(plan)
        store = None if self.config.cluster_states == "shared" else self._store()
        self.workers = RayWorkers(self.run_config, simulation, ClusterWorker, (dataset, store))
        self.workers.start()
        actors = [seat.actor for seat in self.workers.seats]
        nodes = check_nodes(actors, self.run_config, plan.config.node_timeout)
        where = "what clients remember goes to the driver"
        if store is None:
            check_shared(actors, Path(str(self.run_config["run-dir"])))
            where = "what clients remember stays in the run folder, which all nodes share"
        self.workers.where = (
            f"{len(actors)} workers on {nodes} nodes of the Ray cluster {self.address}; {where}"
        )
        return self.workers

    def leave(self) -> None:
        """End the workers, and leave the cluster as it was, even where joining it was interrupted."""
        if self._connected:
            import ray

            if self.workers:
                self.workers.end()
            ray.shutdown()
            self._connected = False

    def _connect(self) -> None:
        import ray

        if self.address != "auto":
            knock(self.address)
        logging.getLogger("ray").setLevel(logging.ERROR)
        threads = str(self.run_config["threads"])
        with tempfile.TemporaryDirectory(prefix="polyfed-") as scratch, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tip:", FutureWarning)  # to Ray's own developers
            self._connected = True  # or half of it
            try:
                ray.init(
                    address=self.address,
                    job_config=_job(),
                    log_to_driver=False,
                    configure_logging=False,
                    runtime_env={
                        "working_dir": str(stage_for_workers(Path(scratch))),
                        # The user's modules lie beside polyfed's.
                        "env_vars": {FOLDER: "", **dict.fromkeys(THREADS, threads)},
                    },
                )
            except Exception as error:  # of many kinds: other versions, no node here, no answer
                raise UserError(
                    f"this process cannot join the Ray cluster at {self.address}: {line_of(error)}; run it "
                    "on one of the cluster's nodes (ray status), with the cluster's Python and Ray"
                ) from error

    def _dataset(self, plan: Plan) -> list[Any]:
        """Return a reference to the dataset's arrays in the object store; [] where nodes read their own."""
        if self.config.cluster_data == "nodes" or find_source(plan.task_config.dataset).packaged:
            return []
        import ray

        return [ray.put(arrays_to_send(plan.dataset, plan.task_config.dataset))]

    def _store(self) -> Any:
        """Start the actor that keeps clients' states, where the run's folder is."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from simulations.runtime.cluster_worker import StateStore

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        folder = str(Path(str(self.run_config["run-dir"])) / CLIENTS)
        options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
        return ray.remote(**options)(StateStore).remote(folder)


def arrays_to_send(dataset: Dataset, name: str) -> dict[str, NDArray[Any]]:
    """Return what `dataset_of` makes the dataset of again; UserError where it is not to be sent."""
    size = num_bytes(dataset)
    if size > MOST_BYTES:
        raise UserError(
            f"dataset {name!r} has {size / 2**30:.1f} GiB, and at most {MOST_BYTES / 2**30:g} GiB are sent "
            "to a cluster's nodes: put it into the same data-dir on every node and set cluster-data = 'nodes'"
        )
    try:
        return {each: tensor.numpy() for each, tensor in tensors_of(dataset).items()}
    except TypeError as error:  # NumPy has no bfloat16, to name one
        raise UserError(
            f"dataset {name!r} cannot be sent to nodes ({error}): put its files on every node and set "
            "cluster-data = 'nodes'"
        ) from error


class _NoFolders(list[str]):
    """Stays empty, whatever is added."""

    def extend(self, _: Iterable[str]) -> None:
        """Add nothing."""


def _job() -> "JobConfig":
    """Return a job whose workers import what they are sent.

    Ray would put the folder of this process's script first, and a node may have other code in a folder of
    that name. It has no option for that.
    """
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _NoFolders()
    return job
