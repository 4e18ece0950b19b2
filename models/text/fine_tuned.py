"""What tasks share for which a transformer gets a head of its own, and both are trained."""

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from models.core.config import require
from models.data.dataset import Dataset
from models.data.tokens import TOKENS
from models.task import Objective
from models.text.adapters import add_lora
from models.text.backbone import load_backbone
from models.text.sentence_task import SentenceTask
from models.text.tokens import objective


class FineTuned(SentenceTask):
    """A task on sentences whose network is a transformer with a head that tells labels.

    These are options of every such task, beside those of `SentenceTask`.
    `backbone`, "scratch" (a small BERT), "minilm", the absolute folder of a saved model, or a name on the
    Hugging Face hub;
    `lora`, the rank of adapters (Hu et al. 2021, arXiv:2106.09685) that are trained and sent with the head
    instead of the whole, 0 for none.
    """

    auto: ClassVar[str]
    """The class of transformers that puts the head on, such as "AutoModelForTokenClassification"."""

    def __init__(
        self,
        dataset: Dataset,
        labels: Sequence[str],
        backbone: str,
        lora: int,
        warmup_steps: int,
        long_sentences: str,
        overlap: int,
        length_buckets: int,
    ) -> None:
        """Load the backbone; `words` is asked for the dataset's words before that."""
        require(lora >= 0, "lora", ">= 0", lora)
        self.lora = lora
        loaded = load_backbone(
            backbone,
            (" ".join(words) for words in self.words(dataset.train)),
            tokens=dataset.info.get(TOKENS),
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
        super().__init__(dataset, loaded, warmup_steps, long_sentences, overlap, length_buckets)
        self.agreed = (*labels, self.backbone.vocabulary_sha256)

    def build(self) -> nn.Module:
        """Return the network, with adapters where they are asked for."""
        network = self.backbone.build(self.auto)
        if self.lora:
            add_lora(network, self.lora)
        return network

    @property
    def objectives(self) -> Sequence[Objective]:
        """Cross-entropy by AdamW, with the settings of BERT (Devlin et al. 2019, arXiv:1810.04805, A.3)."""
        # Fused, a step of MiniLM's 22 million weights takes 30 ms instead of 155 on a CPU.
        return [objective(self.backbone, self.warmup_steps, fused=True)]
