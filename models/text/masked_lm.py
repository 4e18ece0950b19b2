"""Language pre-training by predicting hidden tokens of words (BERT: Devlin et al. 2019, arXiv:1810.04805)."""

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.config import require
from models.core.errors import UserError
from models.data.dataset import Dataset, Examples
from models.data.text import read
from models.data.tokens import TOKENS
from models.task import Batch, Metrics, Objective
from models.text.backbone import SCRATCH, Backbone, load_backbone
from models.text.length_buckets import by_length
from models.text.pieces import OVERLAP, SPLIT, Piece, Sentences, encode, is_asked
from models.text.sentence_task import SentenceTask
from models.text.tokens import EVALUATION_BATCH, NOT_ASKED, logits_of, objective

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MASKED, REPLACED = 0.8, 0.1
"""Parts of the predicted tokens that are hidden, and that another stands for; the rest is left as it is."""
_WORD = re.compile(r"[^ \t\n\r\f\v]+")
"""What lies between blanks and ends of lines; a no-break space is part of a word, as in a column file."""
SHOWN, GUESSES, LINE = 8, 3, 140
"""Held-out examples that are drawn, guesses for each of their hidden tokens, and characters of a line."""


class MaskedLanguageModel(SentenceTask):
    """Predict hidden tokens of the words of a text.

    Options: `backbone`, "scratch" (a small BERT), "minilm", the absolute folder of a saved model, or a name
    on the Hugging Face hub; `mask_ratio`, the part of the tokens that is predicted. Those of
    `SentenceTask` too.

    Metrics: `loss` in nats and `accuracy`, both over predicted tokens.
    """

    kind = "text"
    metric = "loss"
    pretrains = True
    maximize = False
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    def __init__(
        self,
        dataset: Dataset,
        backbone: str = SCRATCH,
        mask_ratio: float = 0.15,
        warmup_steps: int = 10,
        long_sentences: str = SPLIT,
        overlap: int = OVERLAP,
        length_buckets: int = 0,
    ) -> None:
        require(0 < mask_ratio < 1, "mask_ratio", "in (0, 1)", mask_ratio)
        self.mask_ratio = mask_ratio
        self.dataset = dataset  # which tells the words
        text = (" ".join(words) for words in self.words(dataset.train))
        loaded = load_backbone(backbone, text, tokens=dataset.info.get(TOKENS))
        _check_mask(backbone, loaded)
        super().__init__(dataset, loaded, warmup_steps, long_sentences, overlap, length_buckets)
        self.agreed = (self.backbone.vocabulary_sha256,)

    def build(self) -> nn.Module:
        """Return the network; its encoder is named as that of a tagger with the same backbone."""
        return self.backbone.build("AutoModelForMaskedLM")

    @property
    def objectives(self) -> Sequence[Objective]:
        """Cross-entropy of the predicted tokens by AdamW, with the settings of BERT (ibid., A.2)."""
        return [objective(self.backbone, self.warmup_steps)]

    def ask(
        self, data: Examples, sentences: Sentences, pieces: Sequence[Piece], generator: torch.Generator
    ) -> Batch:
        """Draw which tokens are predicted: `input_ids`, `attention_mask` and `labels`, all (B, L)."""
        batch, first = encode(self.backbone, sentences, pieces)
        tokenizer = self.backbone.tokenizer
        special = torch.isin(batch["input_ids"], torch.tensor(tokenizer.all_special_ids))
        tokens, labels = corrupt(
            batch["input_ids"],
            ~special & is_asked(first, pieces),
            self.mask_ratio,
            tokenizer.mask_token_id,
            len(tokenizer),
            generator,
        )
        return {**batch, "input_ids": tokens, "labels": labels}

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of loss and of right answers over predicted tokens."""
        device = next(model.parameters()).device
        loss, right, asked = 0.0, 0, 0
        sentences = self.words(data)
        pieces = by_length(self.long_sentences.pieces(sentences), self.length_buckets)
        for start in range(0, len(pieces), EVALUATION_BATCH):
            hidden = self.ask(data, sentences, pieces[start : start + EVALUATION_BATCH], generator)
            batch = {name: value.to(device) for name, value in hidden.items()}
            predicted = batch["labels"] != NOT_ASKED
            logits, labels = logits_of(model, batch)[predicted].double(), batch["labels"][predicted]
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
            asked += len(labels)
        return {"loss": (loss, asked), "accuracy": (right, asked)}

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Write held-out text with tokens hidden, and the likeliest guesses for these."""
        # Only the server draws; workers are spared the second that this import takes.
        from matplotlib.figure import Figure

        device = next(model.parameters()).device
        sentences = self.words(data.take(torch.arange(min(SHOWN, len(data)))))
        pieces = self.long_sentences.pieces(sentences)[:SHOWN]
        batch = self.ask(data, sentences, pieces, generator)
        tokenizer = self.backbone.tokenizer
        asked = batch["labels"] != NOT_ASKED
        hidden = batch["input_ids"].masked_fill(asked, tokenizer.mask_token_id)
        inputs = {"input_ids": hidden, "attention_mask": batch["attention_mask"]}
        logits = logits_of(model, {name: value.to(device) for name, value in inputs.items()}).float().cpu()
        best = logits.softmax(-1).topk(GUESSES)
        lines = []
        for row in range(len(hidden)):
            length = int(batch["attention_mask"][row].sum())
            shown = " ".join(tokenizer.convert_ids_to_tokens(hidden[row, 1 : length - 1].tolist()))
            lines += textwrap.wrap(shown, LINE) or [""]
            for place in asked[row].nonzero().flatten().tolist():
                truth = tokenizer.convert_ids_to_tokens(int(batch["labels"][row, place]))
                guesses = tokenizer.convert_ids_to_tokens(best.indices[row, place].tolist())
                chances = best.values[row, place].tolist()
                said = ", ".join(
                    f"{guess} {chance:.2f}" for guess, chance in zip(guesses, chances, strict=True)
                )
                lines.append(f"    {truth}: {said}")
        figure = Figure(figsize=(10, 0.6 + 0.17 * len(lines)), layout="constrained")
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set_title("Held-out text with tokens hidden; below, each token and its guesses", loc="left")
        text = "\n".join(lines)
        axes.text(0, 1, text, va="top", family="monospace", fontsize=8, parse_math=False)
        return {"guesses": figure}

    def words(self, data: Examples) -> list[list[str]]:
        """Return the words of each example."""
        return [_WORD.findall(text) for text in read(data["text"])]


def _check_mask(name: str, backbone: Backbone) -> None:
    """Raise UserError for a backbone that has no token which stands for a hidden one."""
    if backbone.tokenizer.mask_token_id is None:
        raise UserError(
            f"backbone {name!r} has no mask token, so that nothing can be hidden from it: give a masked "
            "language model such as BERT or RoBERTa"
        )


def corrupt(
    tokens: Tensor,
    may_hide: Tensor,
    mask_ratio: float,
    mask: int,
    vocabulary_size: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Choose tokens (B, L) to predict, and return what is seen instead and their labels (ibid., 3.1).

    Of those that `may_hide` (B, L), each is chosen with chance `mask_ratio`; of the chosen 80 % become
    `mask`, 10 % any token of the vocabulary and 10 % stay, so that the network must not trust what it sees.
    """
    chosen = (torch.rand(tokens.shape, generator=generator) < mask_ratio) & may_hide
    fate = torch.rand(tokens.shape, generator=generator)
    others = torch.randint(vocabulary_size, tokens.shape, generator=generator)
    seen = tokens.masked_fill(chosen & (fate < MASKED), mask)
    seen = torch.where(chosen & (fate >= MASKED) & (fate < MASKED + REPLACED), others, seen)
    return seen, tokens.masked_fill(~chosen, NOT_ASKED)
