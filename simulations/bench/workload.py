"""A workload that is all overhead: many clients, few examples each, a small network."""

from torch import nn

from models.core.config import RunConfig
from models.images.cnn import ImageClassification

NUM_CLIENTS, CLIENTS_PER_ROUND = 1000, 100
CHANNELS, NUM_CLASSES, SIDE = 16, 10, 8


def network() -> nn.Sequential:
    """Return the network: (B, 1, 8, 8) -> logits (B, 10), 10,410 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, CHANNELS, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(CHANNELS * SIDE * SIDE, NUM_CLASSES),
    )


class SmallClassification(ImageClassification):
    """Classify 8x8 pixels with that network, trained as its parent is: SGD, 0.05, momentum 0.9."""

    def build(self) -> nn.Module:
        """Return the network."""
        return network()


RUN_CONFIG: RunConfig = {
    "task": "simulations.bench.workload:SmallClassification",
    "dataset": "digits",
    "num-clients": NUM_CLIENTS,
    "clients-per-round": CLIENTS_PER_ROUND,
    "partitioner": "iid",
    "examples-per-client": 32,
    "batch-size": 16,
    "local-epochs": 1,
    "evaluate-every": 0,
}
"""What polyfed is asked for; checkpoints, metrics and TensorBoard stay on, as they are by default."""
