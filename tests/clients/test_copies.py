"""How often a large model stands in memory while a client has its turn."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message
from torch import nn

from clients.app import app as client_app
from models.core.config import Value
from models.images.cnn import ImageClassification
from simulations.runtime.in_process import run_in_process

SIDE = 4750
MODEL = 4 * SIDE**2
"""Bytes of the model: 90 MB."""
CLEAR_PEAK = Path("/proc/self/clear_refs")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CLEAR_PEAK.exists(), reason="the peak of memory is read from Linux's /proc"),
]


class LargeClassification(ImageClassification):
    """Carries 22.6 million weights beside its network, which no loss depends on."""

    def build(self) -> nn.Module:
        model = super().build()
        model.large = nn.Parameter(torch.zeros(SIDE, SIDE))
        return model


def memory(key: str) -> int:
    """Return a figure of this process, in bytes: "VmRSS" is now, "VmHWM" the peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(key))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize(
    ("num_clients", "most"),
    [
        # The server's weights, what they travelled as, and each client's reply as it travels. In the first
        # round also the gradient that autograd prepares. Measured before a reply was typed: 3.43.
        (1, 3.6),
        # Six replies are added up: the halves of the sum are four models, and travel as four. Before: 9.00.
        (6, 9.3),
    ],
)
def test_no_copy_of_a_model_is_made_that_nobody_needs(
    tiny: Callable[..., dict[str, Value]],
    monkeypatch: pytest.MonkeyPatch,
    num_clients: int,
    most: float,
) -> None:
    peaks = []

    def measured(message: Message, context: Context) -> Message:
        gc.collect()
        CLEAR_PEAK.write_text("5", encoding="utf-8")
        before = memory("VmRSS")
        reply = client_app(message, context)
        if message.metadata.message_type == "train":
            peaks.append((memory("VmHWM") - before) / MODEL)
        return reply

    monkeypatch.setattr("simulations.runtime.in_process.client_app", measured)
    run_in_process(
        tiny(
            task="test_copies:LargeClassification",
            num_clients=num_clients,
            num_server_rounds=1,
            evaluate_every=0,
            checkpoint_every=0,
        )
    )
    assert len(peaks) == 1
    assert max(peaks) <= most
