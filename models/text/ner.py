"""Named-entity recognition: a transformer that tags the words of a sentence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.dataset import Dataset, Examples
from models.data.tag_schemes import OUTSIDE
from models.data.tagged_sentences import read
from models.explain.attribution import INTEGRATED_GRADIENTS
from models.explain.explanation import WORDS, Explained, Explanation
from models.task import Batch, Metrics
from models.text.backbone import SCRATCH
from models.text.entities import entity_metrics
from models.text.explained import METHODS, Question, explain_words
from models.text.fine_tuned import FineTuned
from models.text.length_buckets import by_length
from models.text.pieces import OVERLAP, SPLIT, Piece, Sentences, encode, is_asked
from models.text.tokens import EVALUATION_BATCH, NOT_ASKED, logits_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class EntityRecognition(FineTuned):
    """Tag the words of a sentence with the entities that they belong to.

    Options: `strict`, whether an entity must begin with a B- tag. Those of `FineTuned` too.

    Metrics: `loss` is the mean over the words that the network was asked about; an entity of words that were
    cut off counts as missed.
    """

    auto = "AutoModelForTokenClassification"
    kind = "tagged-sentences"
    metric = "f1"
    metrics = ("precision", "recall", "f1-*", "precision-*", "recall-*", "loss")
    explained_by = METHODS

    def __init__(
        self,
        dataset: Dataset,
        backbone: str = SCRATCH,
        lora: int = 0,
        warmup_steps: int = 10,
        strict: bool = False,
        long_sentences: str = SPLIT,
        overlap: int = OVERLAP,
        length_buckets: int = 0,
    ) -> None:
        self.strict = strict
        self.vocabulary: tuple[str, ...] = dataset.info["words"]
        self.tags: tuple[str, ...] = dataset.info["tags"]
        self.types = [tag[2:] for tag in self.tags if tag.startswith("B-")]
        super().__init__(
            dataset, self.tags, backbone, lora, warmup_steps, long_sentences, overlap, length_buckets
        )

    def ask(
        self, data: Examples, sentences: Sentences, pieces: Sequence[Piece], generator: torch.Generator
    ) -> Batch:
        """Return the tokens of pieces and their tags, as long as the longest piece."""
        return self.encode(data, sentences, pieces)[0]

    def encode(self, data: Examples, sentences: Sentences, pieces: Sequence[Piece]) -> tuple[Batch, Tensor]:
        """Return the tokens of pieces, as long as the longest, and the words that are asked about.

        The batch holds `input_ids`, `attention_mask` and `labels`; the words' numbers in their sentences are
        -1 for all tokens but the first of a word that is asked about: all (B, L).
        """
        batch, first = encode(self.backbone, sentences, pieces)
        word = first.where(is_asked(first, pieces), -1)
        tags = data["tag"][[piece.sentence for piece in pieces]]
        labels = tags.gather(1, word.clamp(min=0)).where(word >= 0, NOT_ASKED)
        return {**batch, "labels": labels}, word

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of loss over words, and of precision, recall and F1 over entities."""
        loss, seen, predicted = self._predict(model, data)
        pairs = zip(self._tags(data["tag"], data), self._tags(predicted, data), strict=True)
        return {
            **entity_metrics(pairs, self.types, self.strict),
            "loss": (loss, seen),
        }

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw the classification report of the held-out examples, and a few of their sentences with tags."""
        # Only the server draws; workers are spared the second that these imports take.
        from models.text.ner_figures import report_figure, sentences_figure

        _, _, predicted = self._predict(model, data)
        true, given = self._tags(data["tag"], data), self._tags(predicted, data)
        metrics = entity_metrics(zip(true, given, strict=True), self.types, self.strict)
        shown = torch.randperm(len(data), generator=generator)[:8].tolist()
        words = self.words(data)
        return {
            "classification-report": report_figure(metrics, self.types),
            "sentences": sentences_figure([(words[row], true[row], given[row]) for row in shown], self.types),
        }

    def explain(
        self, model: nn.Module, data: Examples, method: str, asked: Sequence[int] | None = None
    ) -> Explanation:
        """Tell which words speak for the tag of the first word of a sentence's first entity.

        In a sentence without an entity that the network is asked about it is the first word.
        """
        sentences = self.words(data)
        with torch.no_grad():
            _, _, predicted = self._predict(model, data)
        chosen = self._first_entities(data, sentences)
        row, word = torch.arange(len(data)), torch.tensor([place for _, place in chosen])
        said, true = predicted[row, word].tolist(), data["tag"][row, word].tolist()
        answers = asked or said
        questions = [
            Question(piece, answer, place) for (piece, place), answer in zip(chosen, answers, strict=True)
        ]
        found = explain_words(model, self.backbone, sentences, questions, method)
        rows = zip(found, sentences, word.tolist(), answers, said, true, strict=True)
        examples = [
            Explained(
                each.values,
                answer=f"{words[place]}: {self.tags[answer]}",
                said=self.tags[given],
                truth=self.tags[tag],
                score=each.score,
                start=each.start,
                asked=answer,
                parts=tuple(words),
            )
            for each, words, place, answer, given, tag in rows
        ]
        return Explanation(WORDS, examples, signed=method == INTEGRATED_GRADIENTS)

    def _first_entities(self, data: Examples, sentences: Sentences) -> list[tuple[Piece, int]]:
        """Return of each sentence a word that the network is asked about, and the piece in which it is."""
        pieces = self.long_sentences.pieces(sentences)
        _, words = self.encode(data, sentences, pieces)
        outside = self.tags.index(OUTSIDE)
        found: dict[int, tuple[Piece, int]] = {}
        for piece, row in zip(pieces, words.tolist(), strict=True):
            for word in row:
                if word >= 0:
                    before = found.setdefault(piece.sentence, (piece, word))
                    tags = data["tag"][piece.sentence]
                    if tags[before[1]] == outside != tags[word]:
                        found[piece.sentence] = piece, word
        # A sentence of words without a token has none that is asked about.
        return [found.get(piece.sentence, (piece, 0)) for piece in pieces if piece.start == 0]

    def words(self, data: Examples) -> list[list[str]]:
        """Return the words of each sentence."""
        return read(data["word"], data["length"], self.vocabulary)

    def _predict(self, model: nn.Module, data: Examples) -> tuple[float, int, Tensor]:
        """Return the loss summed over words, how many these are, and the tag of each word (N, T).

        The tag is O for words without a token, and for those that were cut off.
        """
        device = next(model.parameters()).device
        total, seen, predicted = 0.0, 0, torch.full_like(data["tag"], self.tags.index(OUTSIDE))
        sentences = self.words(data)
        pieces = by_length(self.long_sentences.pieces(sentences), self.length_buckets)
        for start in range(0, len(pieces), EVALUATION_BATCH):
            chosen = pieces[start : start + EVALUATION_BATCH]
            batch, word = self.encode(data, sentences, chosen)
            inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
            logits = logits_of(model, inputs).double().cpu()
            total += float(F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum"))
            row, place = (word >= 0).nonzero(as_tuple=True)
            seen += len(row)
            sentence = torch.tensor([piece.sentence for piece in chosen])
            predicted[sentence[row], word[row, place]] = logits[row, place].argmax(1)
        return total, seen, predicted

    def _tags(self, tags: Tensor, data: Examples) -> list[list[str]]:
        return read(tags, data["length"], self.tags)
