"""Language pre-training on sentences whose words carry tags, which judge what was learned."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from models.core.probe import probe
from models.data.dataset import Dataset, Examples
from models.data.tag_schemes import OUTSIDE
from models.data.tagged_sentences import read
from models.task import Metrics
from models.text.backbone import SCRATCH
from models.text.masked_lm import MaskedLanguageModel
from models.text.pieces import OVERLAP, SPLIT, encode, is_asked
from models.text.tokens import EVALUATION_BATCH


class MaskedSentences(MaskedLanguageModel):
    """Predict hidden tokens of the words of sentences; a tagger (`ner`) can start from what is learned.

    Options: those of `MaskedLanguageModel`.

    Metrics: those of `MaskedLanguageModel`, and `probe-accuracy`, how often a linear classifier
    (models/core/probe.py) says of a word in an entity what the entity is: a name, a firm, a place ...
    It sees the features of the word's first token. Words outside entities are not asked about: most are, so
    that an answer which is always the same would look good. Tags serve the probe alone.
    """

    kind = "tagged-sentences"
    metric = "probe-accuracy"
    maximize = True
    metrics = ("accuracy", "loss")

    def __init__(
        self,
        dataset: Dataset,
        backbone: str = SCRATCH,
        mask_ratio: float = 0.15,
        warmup_steps: int = 10,
        long_sentences: str = SPLIT,
        overlap: int = OVERLAP,
    ) -> None:
        super().__init__(dataset, backbone, mask_ratio, warmup_steps, long_sentences, overlap)
        tags: tuple[str, ...] = dataset.info["tags"]
        types = sorted({tag[2:] for tag in tags if tag != OUTSIDE})
        self._type_of_tag = torch.tensor([types.index(tag[2:]) if tag != OUTSIDE else -1 for tag in tags])

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of the probes' answers too."""
        return {"probe-accuracy": self._probe(model, data), **super().evaluate(model, data, generator)}

    def words(self, data: Examples) -> list[list[str]]:
        """Return the words of each sentence."""
        return read(data["word"], data["length"], self.dataset.info["words"])

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
        """Return the example and the place of every word in an entity: (W, 2)."""
        inside = torch.arange(data["tag"].shape[1]) < data["length"][:, None]
        return (inside & (self._type_of_tag[data["tag"]] >= 0)).nonzero()

    def _types(self, data: Examples, words: Tensor) -> Tensor:
        """Return the entity types of words (W, 2): (W,)."""
        return self._type_of_tag[data["tag"][words[:, 0], words[:, 1]]]

    def _embed(self, model: Any, data: Examples, words: Tensor) -> Tensor:
        """Return the features of words (W, 2), those of their first tokens: (W, D), 0 for words without."""
        device = next(model.parameters()).device
        rows, sentence = words[:, 0].unique(return_inverse=True)
        sentences = self.words(data.take(rows))
        pieces = self.long_sentences.pieces(sentences)
        features = torch.zeros(len(words), model.config.hidden_size)
        for start in range(0, len(pieces), EVALUATION_BATCH):
            chosen = pieces[start : start + EVALUATION_BATCH]
            batch, first = encode(self.backbone, sentences, chosen)
            inputs = {name: value.to(device) for name, value in batch.items()}
            states = model.base_model(**inputs).last_hidden_state.float().cpu()  # (B, L, D)
            line, place = ((first >= 0) & is_asked(first, chosen)).nonzero(as_tuple=True)
            # Word of a sentence -> its token among those that are asked about here.
            token = torch.full((len(rows), data["word"].shape[1]), -1)
            in_sentence = torch.tensor([piece.sentence for piece in chosen])[line]
            token[in_sentence, first[line, place]] = torch.arange(len(line))
            wanted = token[sentence, words[:, 1]]
            here = wanted >= 0
            features[here] = states[line[wanted[here]], place[wanted[here]]]
        return features
