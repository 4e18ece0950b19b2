"""What tasks share that ask a transformer about a text, or about some of its tokens."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from models.task import Batch, Objective, OptimizerChoice
from models.text.backbone import Backbone

EVALUATION_BATCH = 64
BIASES_AND_NORMS = ("*bias", "*[Nn]orm*")
"""What the authors' code of BERT decays no more than its biases: LayerNorm, under the names of its kin."""
NOT_ASKED = -100
"""Label of the tokens that nothing is asked about, padding among them."""


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """Return the scores of the answers for each token: (B, L) -> (B, L, answers); or text, (B, answers)."""
    logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean over what has `labels` other than NOT_ASKED, tokens (B, L) or texts (B,), in nats."""
    logits, labels = logits_of(model, batch), batch["labels"]
    total = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=NOT_ASKED, reduction="sum")
    # A few short examples may have no token that is asked about; they must not make the mean a NaN.
    return total / (labels != NOT_ASKED).sum().clamp(min=1)


def num_asked(batch: Batch) -> int:
    """Return how many tokens, or texts, of a batch something is asked about."""
    return int((batch["labels"] != NOT_ASKED).sum())


def objective(backbone: Backbone, warmup_steps: int, **options: Any) -> Objective:
    """Cross-entropy by AdamW, with the settings of BERT (Devlin et al. 2019, arXiv:1810.04805, A.2, A.3).

    `options` are AdamW's.
    """
    rate = 5e-5 if backbone.source else 1e-3
    return Objective(
        "loss",
        cross_entropy,
        optimizer=OptimizerChoice("adamw", rate, {"weight_decay": 0.01, **options}),
        max_grad_norm=1.0,
        not_decayed=BIASES_AND_NORMS,
        warmup_steps=warmup_steps,
        count=num_asked,
    )
