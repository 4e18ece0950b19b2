"""The small CNN without its kinks; given to runs as "smooth:SmoothCnn"."""

from torch import nn

from models.images.cnn import ImageClassification

SMOOTH = {nn.ReLU: nn.SiLU, nn.MaxPool2d: lambda: nn.AvgPool2d(2)}


class SmoothCnn(ImageClassification):
    """Has gradients that move no further than the weights do, so that rounding stays what it is.

    At a kink, of ReLU or of max-pooling, the last bit of a number decides which gradient there is.
    """

    def build(self) -> nn.Module:
        network = super().build()
        for module in list(network.modules()):
            for name, child in module.named_children():
                if type(child) in SMOOTH:
                    setattr(module, name, SMOOTH[type(child)]())
        return network
