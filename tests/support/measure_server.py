"""Prints the peak of a run's memory in MB: python measure_server.py FOLDER NUM_NODES.

Every node hosts three clients and replies their sum; all of them train in this process, one after the other.
"""

import resource
import sys
from pathlib import Path

from simulations.bench.workloads import WORKLOADS
from simulations.runtime.in_process import run_in_process
from simulations.scenario import defaults

folder, num_nodes = Path(sys.argv[1]), int(sys.argv[2])
run_in_process(
    {
        **defaults(),
        **WORKLOADS["W4"].run_config(),
        "task-options": "hidden = 1500",
        "dataset-options": f"num_examples = {3 * num_nodes}",
        "num-clients": 3 * num_nodes,
        "clients-per-round": 3 * num_nodes,
        "num-server-rounds": 1,
        "run-dir": str(folder / "run"),
    },
    num_nodes,
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
