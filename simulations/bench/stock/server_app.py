"""The ServerApp: FedAvg, and a clock that is read at the start of every round."""

from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from simulations.bench.clock import ClockedFedAvg
from simulations.bench.workloads import WORKLOADS

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run FedAvg over a part of the clients a round, and save the model."""
    config = context.run_config
    model = WORKLOADS[config["workload"]].network()
    folder = Path(config["run-dir"])
    strategy = ClockedFedAvg(
        clock=str(folder / "clock"),
        fraction_train=config["fraction-train"],
        fraction_evaluate=0.0,
        # Without it FedAvg samples from those nodes that have registered so far.
        min_available_nodes=config["num-clients"],
        min_train_nodes=round(config["fraction-train"] * config["num-clients"]),
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        train_config=ConfigRecord({"lr": config["learning-rate"]}),
        num_rounds=config["num-server-rounds"],
    )
    torch.save(result.arrays.to_torch_state_dict(), folder / "final_model.pt")
