"""What a classifier of images looks at: the pixels, or where in the map of its features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.explain.attribution import GRAD_CAM, INTEGRATED_GRADIENTS, SALIENCY, attribute
from models.explain.explanation import IMAGE, Explained, Explanation

METHODS: tuple[str, ...] = (INTEGRATED_GRADIENTS, SALIENCY, GRAD_CAM)


def methods_of(feature_map: tuple[int, int, int]) -> tuple[str, ...]:
    """Return the methods for a network with this map of features: of a vector Grad-CAM draws nothing."""
    _, height, width = feature_map
    return METHODS if height * width > 1 else tuple(each for each in METHODS if each != GRAD_CAM)


def explain_images(
    classifier: nn.Module,
    image: Tensor,
    label: Tensor,
    classes: Sequence[str],
    method: str,
    asked: Sequence[int] | None,
    feature_map: tuple[int, int, int],
) -> Explanation:
    """Explain the scores that a classifier, whose part `features` has this map, gives images (N, C, H, W).

    Integrated gradients begin with a black image, and are added up over the channels. Of saliency it is the
    largest of the channels. A map of Grad-CAM is made as large as the image.
    """
    with torch.no_grad():
        scores = torch.cat([classifier(chunk) for chunk in image.split(100)])
    said = scores.argmax(1)
    answer = said if asked is None else torch.tensor([*asked])
    score = scores.gather(1, answer[:, None])[:, 0].double()
    start = torch.full_like(score, torch.nan)
    if method == GRAD_CAM:
        values = grad_cam(classifier, feature_layer(classifier, image[:1], feature_map), image, answer)
    else:
        values, score, start = attribute(classifier, image, method, answer)
        values = (
            values.sum(1) if method == INTEGRATED_GRADIENTS else values.amax(1)
        )  # (N, C, H, W) -> (N, H, W)
    rows = zip(
        values.double(), answer.tolist(), said.tolist(), label.tolist(), score, start, image, strict=True
    )
    return Explanation(
        IMAGE,
        [
            Explained(
                values=each,
                answer=classes[number],
                said=classes[given],
                truth=classes[true],
                score=float(one),
                start=float(at_start),
                asked=number,
                image=picture,
            )
            for each, number, given, true, one, at_start, picture in rows
        ],
        signed=method == INTEGRATED_GRADIENTS,
    )


def grad_cam(classifier: nn.Module, layer: nn.Module, image: Tensor, answer: Tensor) -> Tensor:
    """Return where the map that `layer` makes speaks for the answers (N,): (N, H, W), none below zero.

    Its channels are weighted by the means of the gradients of the score over the map.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    maps = LayerGradCam(classifier, layer).attribute(
        image.detach().clone().requires_grad_(), target=answer, relu_attributions=True
    )
    sides = (image.shape[2], image.shape[3])
    grown: Tensor = LayerAttribution.interpolate(maps.detach(), sides, interpolate_mode="bilinear")
    return grown[:, 0]


def feature_layer(classifier: nn.Module, image: Tensor, feature_map: tuple[int, int, int]) -> nn.Module:
    """Return the last layer below `features` that makes a map of this size of an image."""
    found: list[nn.Module] = []

    def look(layer: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and tuple(output.shape[1:]) == feature_map:
            found.append(layer)

    handles = [each.register_forward_hook(look) for each in classifier.get_submodule("features").modules()]
    try:
        with torch.no_grad():
            classifier(image)
    finally:
        for handle in handles:
            handle.remove()
    return found[-1]
