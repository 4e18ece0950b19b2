"""Language pre-training by predicting hidden pieces of words (BERT: Devlin et al. 2019, arXiv:1810.04805)."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbone import SCRATCH, load_backbone
from models.config import require
from models.data.dataset import Dataset, Examples
from models.data.ner import OUTSIDE, read
from models.probe import probe
from models.task import Batch, Metrics, Objective, OptimizerChoice, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATION_BATCH = 64
NOT_ASKED = -100
"""Label of the pieces that are not predicted."""
MASKED, REPLACED = 0.8, 0.1
"""Parts of the predicted pieces that are hidden, and that another stands for; the rest is left as it is."""
SHOWN, GUESSES = 8, 3
"""Held-out sentences that are drawn, and guesses for each of their hidden pieces."""


class MaskedLanguageModel(Task):
    """Predict hidden pieces of the words of sentences; a tagger (`ner`) can start from what is learned.

    Options: `backbone`, as `models.backbone.load_backbone` takes it; `mask_ratio`, the part of the pieces
    that is predicted; `warmup_steps` of each round.

    Metrics: `loss` in nats and `accuracy` over predicted pieces; `probe-accuracy`, how often a linear
    classifier (models/probe.py) says of a word in an entity what the entity is: a name, a firm, a place ...
    It sees the features of the word's first piece. Words outside entities are not asked about: most are, so
    that an answer which is always the same would look good. Tags serve the probe alone.
    """

    kind = "tagged-sentences"
    metric = "probe-accuracy"
    metrics = ("accuracy", "loss")

    def __init__(
        self, dataset: Dataset, backbone: str = SCRATCH, mask_ratio: float = 0.15, warmup_steps: int = 10
    ) -> None:
        super().__init__(dataset)
        require(0 < mask_ratio < 1, "mask_ratio", "in (0, 1)", mask_ratio)
        require(warmup_steps >= 0, "warmup_steps", ">= 0", warmup_steps)
        self.mask_ratio, self.warmup_steps = mask_ratio, warmup_steps
        self.words: tuple[str, ...] = dataset.info["words"]
        self.backbone = load_backbone(
            backbone, (" ".join(sentence) for sentence in self._sentences(dataset.train))
        )
        self.agreed = (self.backbone.vocabulary_sha256,)
        tags: tuple[str, ...] = dataset.info["tags"]
        types = sorted({tag[2:] for tag in tags if tag != OUTSIDE})
        self._type_of_tag = torch.tensor([types.index(tag[2:]) if tag != OUTSIDE else -1 for tag in tags])

    def build(self) -> nn.Module:
        """Return the network; its encoder is named as that of a tagger with the same backbone."""
        return self.backbone.build("AutoModelForMaskedLM")

    @property
    def objectives(self) -> Sequence[Objective]:
        """Cross-entropy of the predicted pieces by AdamW, with the settings of BERT (ibid., A.2)."""
        rate = 5e-5 if self.backbone.source else 1e-3
        return [
            Objective(
                "loss",
                _cross_entropy,
                optimizer=OptimizerChoice("adamw", rate, {"weight_decay": 0.01}),
                max_grad_norm=1.0,
                warmup_steps=self.warmup_steps,
            )
        ]

    def batches(
        self, model: nn.Module, data: Examples, generator: torch.Generator, batch_size: int
    ) -> Iterator[Batch]:
        """Yield shuffled batches with pieces hidden, each as long as its longest sentence."""
        for rows in torch.randperm(len(data), generator=generator).split(batch_size):
            yield self.hide(data.take(rows), generator)

    def hide(self, data: Examples, generator: torch.Generator) -> Batch:
        """Draw which pieces are predicted: `input_ids`, `attention_mask` and `labels`, all (B, L)."""
        batch, _ = self.backbone.encode(self._sentences(data))
        tokenizer = self.backbone.tokenizer
        special = torch.isin(batch["input_ids"], torch.tensor(tokenizer.all_special_ids))
        pieces, labels = corrupt(
            batch["input_ids"], ~special, self.mask_ratio, tokenizer.mask_token_id, len(tokenizer), generator
        )
        return {**batch, "input_ids": pieces, "labels": labels}

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of loss and right answers over predicted pieces, and of the probes' answers."""
        device = next(model.parameters()).device
        loss, right, asked = 0.0, 0, 0
        for rows in torch.arange(len(data)).split(EVALUATION_BATCH):
            batch = {name: value.to(device) for name, value in self.hide(data.take(rows), generator).items()}
            predicted = batch["labels"] != NOT_ASKED
            logits, labels = _logits(model, batch)[predicted].double(), batch["labels"][predicted]
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
            asked += len(labels)
        return {
            "probe-accuracy": self._probe(model, data),
            "loss": (loss, asked),
            "accuracy": (right, asked),
        }

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Write held-out sentences with hidden pieces, and the likeliest guesses for these."""
        # Only the server draws; workers are spared the second that this import takes.
        from matplotlib.figure import Figure

        device = next(model.parameters()).device
        batch = self.hide(data.take(torch.arange(min(SHOWN, len(data)))), generator)
        tokenizer = self.backbone.tokenizer
        asked = batch["labels"] != NOT_ASKED
        hidden = batch["input_ids"].masked_fill(asked, tokenizer.mask_token_id)
        inputs = {"input_ids": hidden, "attention_mask": batch["attention_mask"]}
        logits = _logits(model, {name: value.to(device) for name, value in inputs.items()}).float().cpu()
        best = logits.softmax(-1).topk(GUESSES)
        lines = []
        for row in range(len(hidden)):
            length = int(batch["attention_mask"][row].sum())
            lines.append(" ".join(tokenizer.convert_ids_to_tokens(hidden[row, 1 : length - 1].tolist())))
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
        axes.set_title("Held-out sentences with pieces hidden; below, each piece and its guesses", loc="left")
        text = "\n".join(lines)
        axes.text(0, 1, text, va="top", family="monospace", fontsize=8, parse_math=False)
        return {"guesses": figure}

    def _probe(self, model: nn.Module, data: Examples) -> tuple[int, int]:
        train, words = self.dataset.train, self._labelled_words
        asked = self._entity_words(data)
        return probe(
            lambda rows: self._embed(model, train, words[rows]),
            self._types(train, words),
            self._embed(model, data, asked),
            self._types(data, asked),
        )

    @cached_property
    def _labelled_words(self) -> Tensor:
        return self._entity_words(self.dataset.train)

    def _entity_words(self, data: Examples) -> Tensor:
        """Return row and place of every word in an entity: (W, 2)."""
        inside = torch.arange(data["tag"].shape[1]) < data["length"][:, None]
        return (inside & (self._type_of_tag[data["tag"]] >= 0)).nonzero()

    def _types(self, data: Examples, words: Tensor) -> Tensor:
        """Return the entity types of words (W, 2): (W,)."""
        return self._type_of_tag[data["tag"][words[:, 0], words[:, 1]]]

    def _embed(self, model: Any, data: Examples, words: Tensor) -> Tensor:
        """Return the features of words (W, 2), those of their first pieces: (W, D), 0 for words without."""
        device = next(model.parameters()).device
        rows, sentence = words[:, 0].unique(return_inverse=True)
        features = torch.zeros(len(words), model.config.hidden_size)
        for start, chosen in enumerate(rows.split(EVALUATION_BATCH)):
            batch, first = self.backbone.encode(self._sentences(data.take(chosen)))
            inputs = {name: value.to(device) for name, value in batch.items()}
            states = model.base_model(**inputs).last_hidden_state.float().cpu()  # (B, L, D)
            here = (sentence // EVALUATION_BATCH == start).nonzero().flatten()
            lines = sentence[here] % EVALUATION_BATCH
            found, place = (first[lines] == words[here, 1:]).max(1)  # (w, L) -> (w,)
            features[here] = states[lines, place] * found[:, None]
        return features

    def _sentences(self, data: Examples) -> list[list[str]]:
        return read(data["word"], data["length"], self.words)


def corrupt(
    pieces: Tensor,
    may_hide: Tensor,
    mask_ratio: float,
    mask: int,
    vocabulary_size: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Choose pieces (B, L) to predict, and return what is seen instead and their labels (ibid., 3.1).

    Of those that `may_hide` (B, L), each is chosen with chance `mask_ratio`; of the chosen 80 % become
    `mask`, 10 % any piece of the vocabulary and 10 % stay, so that the network must not trust what it sees.
    """
    chosen = (torch.rand(pieces.shape, generator=generator) < mask_ratio) & may_hide
    fate = torch.rand(pieces.shape, generator=generator)
    others = torch.randint(vocabulary_size, pieces.shape, generator=generator)
    seen = pieces.masked_fill(chosen & (fate < MASKED), mask)
    seen = torch.where(chosen & (fate >= MASKED) & (fate < MASKED + REPLACED), others, seen)
    return seen, pieces.masked_fill(~chosen, NOT_ASKED)


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits


def _cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    labels = batch["labels"]
    total = F.cross_entropy(
        _logits(model, batch).flatten(0, 1), labels.flatten(), ignore_index=NOT_ASKED, reduction="sum"
    )
    # A few short sentences may have no piece chosen; they must not make the mean a NaN.
    return total / (labels != NOT_ASKED).sum().clamp(min=1)
