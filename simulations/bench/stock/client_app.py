"""The ClientApp: one message, one client."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from task import load_data
from task import train as train_fn

from simulations.bench.workloads import WORKLOADS

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the model on the client's data."""
    torch.set_num_threads(context.run_config["threads"])
    workload = context.run_config["workload"]
    model = WORKLOADS[workload].network()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    loader = load_data(workload, context.node_config["partition-id"], context.run_config["batch-size"])
    train_loss = train_fn(
        model, loader, context.run_config["local-epochs"], msg.content["config"]["lr"], device
    )
    metrics = MetricRecord({"train_loss": train_loss, "num-examples": len(loader.dataset)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=msg)
