"""Pre-training by telling which text belongs to which picture (CLIP: Radford et al. 2021).

arXiv:2103.00020. What is contrasted are a client's own pairs, those of a batch.
"""

import math
from collections.abc import Collection, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.probe import probe
from models.data.dataset import Dataset, Examples
from models.data.modalities import HAS, IMAGE, MODALITIES, TEXT
from models.multimodal.modality_task import ModalityTask, has_of, in_chunks, vectors_of
from models.task import Batch, Metrics, Objective, OptimizerChoice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS = "pairs"
"""The one part of the model, which is all of it: without a pair there is nothing to learn."""
PROJECTED = 64
FIRST, LARGEST = math.log(1 / 0.07), math.log(100.0)
"""Logarithm of what similarities are multiplied by, at first and at most (ibid., section 2.5)."""
CANDIDATES = 250
"""Held-out pairs among which another half is looked for: among fewer it is found more easily."""
QUERIES, NEIGHBOURS = 8, 6
"""Texts that a figure shows, and the pictures that are nearest to each."""


class PairedEncoders(nn.Module):
    """Encoders, and projections of their vectors into one space that serve the loss alone."""

    def __init__(self, encoders: nn.ModuleDict, size: int) -> None:
        super().__init__()
        self.encoders = encoders
        self.projections = nn.ModuleDict({name: nn.Linear(size, PROJECTED, bias=False) for name in encoders})
        self.scale = nn.Parameter(torch.tensor(FIRST))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return directions of length 1: modality -> (B, 64)."""
        vectors = vectors_of(self, batch)
        return {name: F.normalize(self.projections[name](each), dim=1) for name, each in vectors.items()}


class PairContrast(ModalityTask):
    """Find a picture's text among the texts of a batch, and a text's picture.

    Options: `size`, numbers in a vector; `network` and `norm` of the encoder of pictures, as for cnn.
    `multimodal` goes on from its encoders by `init-from`.

    Metrics: `probe-accuracy`, of linear classifiers of both encoders' vectors (models/core/probe.py);
    `image-to-text` and `text-to-image`, how often the nearest of the other kind among 250 held-out pairs is
    of the same class; `loss`, among as many. Pairs beyond a multiple of 250 are not asked about, and of fewer
    than 250 only the probe is told. Labels serve these alone. An example without a picture or a text is not
    learned from, and a client of such examples alone trains and averages nothing.
    """

    metric = "probe-accuracy"
    pretrains = True
    metrics = ("image-to-text", "text-to-image", "loss")
    parts = MappingProxyType({PAIRS: ("*",)})

    def __init__(self, dataset: Dataset, size: int = 64, network: str = "", norm: str = "") -> None:
        super().__init__(dataset, MODALITIES, size, network, norm)

    def build(self) -> nn.Module:
        """Return encoders and projections."""
        return PairedEncoders(self.encoders(), self.size)

    @property
    def objectives(self) -> Sequence[Objective]:
        """The symmetric cross-entropy of pairs, by Adam."""
        return [Objective("loss", _loss, optimizer=OptimizerChoice("adam", 1e-3), count=_num_pairs)]

    def trained_parts(self, data: Examples) -> Collection[str]:
        """Return the model, where there are pairs."""
        return [PAIRS] if self.num_examples(data) else []

    def num_examples(self, data: Examples) -> int:
        """Return how many examples are pairs."""
        return int((data[HAS + IMAGE] * data[HAS + TEXT]).sum())

    def batch(self, examples: Examples, generator: torch.Generator) -> Batch:
        """Return pictures and texts, without the labels that the loss does not ask for."""
        batch = self.seen(examples, self.has(examples))
        return {name: column for name, column in batch.items() if name != "label"}

    def evaluate(self, model: nn.Module, data: Examples, generator: torch.Generator) -> Metrics:
        """Return the sums of right probes, and of each CANDIDATES pairs those of loss and near neighbours."""
        if not len(data):
            return {}
        loss = pairs = 0.0
        near = dict.fromkeys(("image-to-text", "text-to-image"), 0)
        for chunk in in_chunks(self._paired(data), CANDIDATES):
            if len(chunk) < CANDIDATES:
                break
            batch = self._on_device(model, chunk)
            directions = {name: each.cpu() for name, each in model(batch).items()}
            loss += float(_loss(model, batch)) * len(chunk)
            pairs += len(chunk)
            for metric, (one, other) in zip(near, (MODALITIES, MODALITIES[::-1]), strict=True):
                nearest = (directions[one] @ directions[other].T).argmax(1)
                label = chunk["label"].cpu()
                near[metric] += int((label[nearest] == label).sum())
        train = self.dataset.train
        right = probe(
            lambda rows: self.embed(model, train.at(rows)),
            train["label"],
            self.embed(model, data),
            data["label"].cpu(),
        )
        return {
            "probe-accuracy": right,
            **{metric: (found, pairs) for metric, found in near.items()},
            "loss": (loss, pairs),
        }

    def embed(self, model: nn.Module, data: Examples) -> Tensor:
        """Return both encoders' vectors, zeros for what is lacking: (N, 2 * size), on the CPU."""
        found = []
        for chunk in in_chunks(data):
            batch = self._on_device(model, chunk)
            vectors, has = vectors_of(model, batch), has_of(model, batch)
            blank = torch.zeros(len(chunk), self.size)
            both = [(vectors[n] * has[n][:, None]).cpu() if n in vectors else blank for n in MODALITIES]
            found.append(torch.cat(both, 1))
        return torch.cat(found)

    def figures(self, model: nn.Module, data: Examples, generator: torch.Generator) -> "dict[str, Figure]":
        """Draw a few held-out texts with the pictures that are nearest to each."""
        from models.multimodal.figures import nearest_figure

        paired = self._paired(data)
        if not len(paired):
            return {}
        directions: dict[str, list[Tensor]] = {name: [] for name in MODALITIES}
        for chunk in in_chunks(paired):
            for name, each in model(self._on_device(model, chunk)).items():
                directions[name].append(each.cpu())
        image, text = (torch.cat(directions[name]) for name in MODALITIES)
        order = (text[:QUERIES] @ image.T).argsort(1, descending=True)[:, :NEIGHBOURS]
        return {"nearest-pictures": nearest_figure(paired, order, self.max_value)}

    def _paired(self, data: Examples) -> Examples:
        return data.at((data[HAS + IMAGE] * data[HAS + TEXT]).nonzero()[:, 0])

    def _on_device(self, model: nn.Module, data: Examples) -> Batch:
        device = next(model.parameters()).device
        return {name: column.to(device) for name, column in self.seen(data, self.has(data)).items()}


def pair_loss(image: Tensor, text: Tensor, scale: Tensor, pairs: Tensor) -> Tensor:
    """Return the mean cross-entropy of finding a pair's other half, both ways (ibid., figure 3), in nats.

    `image` and `text` (B, D) are of length 1, `scale` the logarithm of what cosines are multiplied by, and
    `pairs` (B,) says which rows are pairs: the others are neither asked nor found.
    """
    cosines = image @ text.T * scale.clamp(max=LARGEST).exp()
    known = cosines.masked_fill((pairs[:, None] * pairs) == 0, -1e9)
    own = torch.arange(len(pairs), device=pairs.device)
    both = [F.cross_entropy(each, own, reduction="none") for each in (known, known.T)]
    return ((both[0] + both[1]) / 2 * pairs).sum() / pairs.sum().clamp(min=1)


def _pairs(batch: Batch) -> Tensor:
    return batch[HAS + IMAGE] * batch[HAS + TEXT]


def _num_pairs(batch: Batch) -> int:
    return int(_pairs(batch).sum())


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    directions, pairs = model(batch), _pairs(batch)
    if len(directions) < len(MODALITIES):  # nobody has a pair; the sum is one that gradients can be asked of
        return torch.stack([weight.sum() for weight in model.parameters()]).sum() * 0.0
    with torch.autocast(pairs.device.type, enabled=False):
        image, text = (directions[name].float() for name in MODALITIES)
        return pair_loss(image, text, model.scale, pairs)  # type: ignore[arg-type]
