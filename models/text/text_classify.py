"""Text classification: a transformer that says of a text which class it is of, such as its topic."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.confusion_matrix import confusion_matrix
from models.data.dataset import Dataset, Examples
from models.data.labelled_text import KIND, read_texts
from models.explain.attribution import INTEGRATED_GRADIENTS
from models.explain.explanation import WORDS, Explained, Explanation
from models.task import Batch, Metrics
from models.text.backbone import SCRATCH
from models.text.explained import METHODS, Question, explain_words
from models.text.fine_tuned import FineTuned
from models.text.length_buckets import by_length
from models.text.pieces import OVERLAP, SPLIT, Piece, Sentences, encode
from models.text.tokens import EVALUATION_BATCH, logits_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORD = re.compile(r"\S+")
F1 = "f1-"
"""What the F1 of a class begins with."""


class TextClassification(FineTuned):
    """Say of a text which class it is of: its topic, its sentiment, what somebody wants.

    Options: those of `FineTuned`.

    Metrics: `macro-f1` is the mean of the F1 of all classes that there are, or that were predicted. A text
    that is read in pieces is trained on with each of them; what is said of it is the mean of the scores of
    its pieces, each weighted by the words that it is asked about.
    """

    auto = "AutoModelForSequenceClassification"
    kind = KIND
    metric = "accuracy"
    metrics: ClassVar[tuple[str, ...]] = ("macro-f1", f"{F1}*", "loss")
    explained_by = METHODS

    def __init__(
        self,
        dataset: Dataset,
        backbone: str = SCRATCH,
        lora: int = 0,
        warmup_steps: int = 10,
        long_sentences: str = SPLIT,
        overlap: int = OVERLAP,
        length_buckets: int = 0,
    ) -> None:
        super().__init__(
            dataset, dataset.classes, backbone, lora, warmup_steps, long_sentences, overlap, length_buckets
        )

    def ask(
        self, data: Examples, sentences: Sentences, pieces: Sequence[Piece], generator: torch.Generator
    ) -> Batch:
        """Return the tokens of pieces (B, L), and the class of the text of each as `labels` (B,)."""
        batch, _ = encode(self.backbone, sentences, pieces)
        return {**batch, "labels": data["label"][[piece.sentence for piece in pieces]]}

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of loss and of right answers, and the counts that make the F1 of each class."""
        logits, label = self._logits(model, data), data["label"]
        size = len(self.dataset.classes)
        predicted = logits.argmax(1)
        right = torch.bincount(label[predicted == label], minlength=size)
        true, given = (torch.bincount(classes, minlength=size) for classes in (label, predicted))
        counts = zip(self.dataset.classes, right.tolist(), (true + given).tolist(), strict=True)
        return {
            "accuracy": (int(right.sum()), len(data)),
            "loss": (float(F.cross_entropy(logits, label, reduction="sum")), len(data)),
            **{f"{F1}{name}": (2 * both, either) for name, both, either in counts},
        }

    def ratios(self, metrics: Metrics) -> dict[str, float]:
        """Return the means, and that of the F1 of all classes, each taken once of the merged counts."""
        means = super().ratios(metrics)
        of_classes = [mean for name, mean in means.items() if name.startswith(F1)]
        if of_classes:
            means["macro-f1"] = sum(of_classes) / len(of_classes)
        return means

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw the confusion matrix of the held-out examples."""
        predicted = self._logits(model, data).argmax(1)
        return {"confusion-matrix": confusion_matrix(data["label"], predicted, self.dataset.classes)}

    def explain(
        self, model: nn.Module, data: Examples, method: str, asked: Sequence[int] | None = None
    ) -> Explanation:
        """Tell which words speak for a class; of a text that is read in pieces, all of them together."""
        with torch.no_grad():
            said = self._logits(model, data).argmax(1).tolist()
        answers, sentences, classes = asked or said, self.words(data), self.dataset.classes
        pieces = self.long_sentences.pieces(sentences)
        whole = [0] * len(sentences)
        for piece in pieces:
            whole[piece.sentence] += _weight(piece)
        questions = [
            Question(each, answers[each.sentence], share=_weight(each) / whole[each.sentence])
            for each in pieces
        ]
        found = explain_words(model, self.backbone, sentences, questions, method)
        rows = zip(found, sentences, answers, said, data["label"].tolist(), strict=True)
        examples = [
            Explained(
                each.values,
                answer=classes[answer],
                said=classes[given],
                truth=classes[true],
                score=each.score,
                start=each.start,
                asked=answer,
                parts=tuple(words),
            )
            for each, words, answer, given, true in rows
        ]
        return Explanation(WORDS, examples, signed=method == INTEGRATED_GRADIENTS)

    def words(self, data: Examples) -> list[list[str]]:
        """Return what lies between the blanks of each text."""
        return [_WORD.findall(text) for text in read_texts(data["text"])]

    def _logits(self, model: nn.Module, data: Examples) -> Tensor:
        """Return the scores of the classes for each text: (N, num_classes), float64, on the CPU."""
        device = next(model.parameters()).device
        sentences = self.words(data)
        pieces = by_length(self.long_sentences.pieces(sentences), self.length_buckets)
        logits = torch.zeros(len(data), len(self.dataset.classes), dtype=torch.float64)
        weights = torch.zeros(len(data), dtype=torch.float64)
        for start in range(0, len(pieces), EVALUATION_BATCH):
            chosen = pieces[start : start + EVALUATION_BATCH]
            batch, _ = encode(self.backbone, sentences, chosen)
            given = logits_of(model, {name: column.to(device) for name, column in batch.items()})
            text = torch.tensor([piece.sentence for piece in chosen])
            weight = torch.tensor([_weight(piece) for piece in chosen]).double()
            logits.index_add_(0, text, given.double().cpu() * weight[:, None])
            weights.index_add_(0, text, weight)
        return logits / weights[:, None]


def _weight(piece: Piece) -> int:
    """Return what a piece counts in its text; one of blanks alone has one piece without a word."""
    return max(piece.asked_end - piece.asked_start, 1)
