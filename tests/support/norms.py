"""A task as tutorials write it, with a norm over the batch; given to runs as "norms:Norm1d"."""

from torch import nn

from models.images.cnn import ImageClassification


class Norm1d(ImageClassification):
    """A head with BatchNorm1d."""

    def build(self) -> nn.Module:
        _, c, h, w = self.dataset.train["image"].shape
        width = 8
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(c * h * w, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, len(self.dataset.classes)),
        )
