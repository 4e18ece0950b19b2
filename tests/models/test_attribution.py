"""Attributions in exact numbers, and by networks that were trained where a single part matters."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.data.dataset import Dataset, Examples
from models.data.labelled_text import dataset_of as texts_of
from models.data.labelled_text import half_of
from models.data.tagged_sentences import Sentence
from models.data.tagged_sentences import dataset_of as sentences_of
from models.explain.attribution import (
    ATTENTION,
    GRAD_CAM,
    GRADIENTS,
    INTEGRATED_GRADIENTS,
    SALIENCY,
    attribute,
)
from models.explain.explanation import Explanation
from models.images.cnn import ImageClassification
from models.images.contrastive import ContrastiveLearning
from models.images.explained import METHODS, explain_images, feature_layer, methods_of
from models.images.pretraining import pooled
from models.series.lstm_forecast import Forecasting
from models.state import build_model
from models.task import Task
from models.text.explained import rollout, words_of
from models.text.ner import EntityRecognition
from models.text.pieces import encode
from models.text.text_classify import TextClassification

WEIGHT = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, -4.0]])
"""Of two answers."""


def linear(x: Tensor) -> Tensor:
    return x @ WEIGHT.T + 7


def product(x: Tensor) -> Tensor:
    return x.prod(1)


def test_saliency_of_a_linear_model_is_the_size_of_its_weights() -> None:
    found = attribute(linear, torch.randn(2, 3), SALIENCY, torch.tensor([0, 1]))
    assert found.values.tolist() == [[1, 2, 3], [0.5, 0, 4]]
    assert all(map(math.isnan, found.start))


def test_integrated_gradients_of_a_linear_model_are_weight_times_change() -> None:
    x, baseline = torch.tensor([[1.0, 1.0, 2.0]]), torch.tensor([[0.0, 3.0, 1.0]])
    found = attribute(linear, x, INTEGRATED_GRADIENTS, torch.tensor([0]), baseline)
    assert found.values[0].tolist() == pytest.approx([1 * 1, -2 * -2, 3 * 1])
    assert (found.score.item(), found.start.item()) == (1 - 2 + 6 + 7, -6 + 3 + 7)


def test_integrated_gradients_share_a_product_in_equal_parts() -> None:
    """On the way t * (a, b, c) the first gradient is t^2 * b * c, whose integral is b * c / 3."""
    x = torch.tensor([[2.0, 3.0, 5.0], [1.0, 1.0, -1.0]], dtype=torch.float64)
    found = attribute(product, x, INTEGRATED_GRADIENTS)
    assert found.values.numpy() == pytest.approx(np.array([[10.0] * 3, [-1 / 3] * 3]), abs=1e-6)


@pytest.mark.rounding
def test_integrated_gradients_add_up_to_what_the_example_changes() -> None:
    torch.manual_seed(0)
    smooth = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3)).double()
    x, asked = torch.randn(30, 6, dtype=torch.float64), torch.arange(30) % 3
    found = attribute(smooth, x, INTEGRATED_GRADIENTS, asked, torch.ones_like(x))
    at_x, at_ones = (smooth(each).gather(1, asked[:, None])[:, 0] for each in (x, torch.ones_like(x)))
    assert found.values.sum(1).numpy() == pytest.approx((at_x - at_ones).detach().numpy(), abs=1e-6)
    torch.testing.assert_close(found.score, at_x, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.start, at_ones, rtol=0, atol=1e-12)


class Toy(nn.Module):
    """Two maps, the image once and three times, and two answers that are linear in them."""

    def __init__(self, pool: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.AvgPool2d(pool), nn.Flatten())
        self.classifier = nn.Linear(8, 2, bias=False)
        self.features[0].weight.data = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
        # (answer, map, 2, 2): the means of the gradients are 1 and -1/2, and 1/4 and 1/2.
        weight = torch.tensor([[[[4, 0], [0, 0]], [[0, -2], [0, 0]]], [[[1, 0], [0, 0]], [[0, 0], [0, 2]]]])
        self.classifier.weight.data = weight.flatten(1).float()

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(image))
        return logits


def explained(model: nn.Module, image: Tensor, asked: list[int]) -> Explanation:
    label = torch.zeros(len(image), dtype=torch.int64)
    return explain_images(model, image, label, ("a", "b"), GRAD_CAM, asked, (2, 2, 2))


def test_grad_cam_by_hand() -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]).repeat(2, 1, 1, 1)
    nothing, whole = explained(Toy(), image, [0, 1]).examples
    assert nothing.values.tolist() == [[0, 0], [0, 0]]  # (1 * 1 - 1/2 * 3) * image is below zero
    assert whole.values.tolist() == [[1.75, 3.5], [5.25, 7]]  # (1/4 * 1 + 1/2 * 3) * image
    assert (whole.answer, whole.truth, whole.asked) == ("b", "a", 1)
    # 1 * 1 from the first map, 3 * 4 * 2 from the second.
    assert whole.score == 1 + 24


def test_a_map_is_made_as_large_as_the_image() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
    (found,) = explained(Toy(pool=2), image, [1]).examples
    first, *_, last = found.values
    assert first.tolist() == [1.75, 1.75 * 1.25, 1.75 * 1.75, 3.5]
    assert last.tolist() == [5.25, 5.25 + 1.75 / 4, 5.25 + 1.75 * 3 / 4, 7]


def images(num_rows: int, side: int = 8) -> Dataset:
    """Noise in which the class is whether the pixel in line 2, column 5 is bright."""
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (num_rows, 1, side, side), dtype=torch.uint8, generator=generator)
    label = torch.arange(num_rows) % 2
    image[:, 0, 2, 5] = (255 * label).to(torch.uint8)
    rows = Examples({"image": image, "label": label})
    test = rows.take(torch.arange(min(10, num_rows)))
    return Dataset("toy", "images", rows, test, "label", ("dark", "bright"), info={"max_value": 255})


def trained(task: Task, epochs: int, learning_rate: float = 3e-3) -> nn.Module:
    """Train as a client would, on all examples."""
    model, generator = build_model(task, 1).train(), torch.Generator().manual_seed(0)
    (objective,) = task.objectives
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    for _ in range(epochs):
        for batch in task.batches(model, task.dataset.train, generator, 32):
            optimizer.zero_grad()
            objective.loss(model, batch).backward()
            optimizer.step()
    return model.eval()


@pytest.mark.usefixtures("one_thread")
def test_a_network_is_seen_to_go_by_the_pixel_that_matters() -> None:
    task = ImageClassification(images(256))
    model = trained(task, 12)
    found = {method: task.explain(model, task.dataset.test, method) for method in GRADIENTS}
    assert [each.answer for each in found[SALIENCY].examples] == ["dark", "bright"] * 5
    for each in found[SALIENCY].examples:
        assert divmod(int(each.values.argmax()), 8) == (2, 5)
    # From a black image on, a pixel that is black has changed nothing.
    for each in found[INTEGRATED_GRADIENTS].examples[1::2]:
        assert divmod(int(each.values.argmax()), 8) == (2, 5)
        assert each.gap == pytest.approx(0, abs=0.02 * abs(each.score - each.start))
    for each in found[INTEGRATED_GRADIENTS].examples[::2]:
        assert each.values[2, 5] == 0


def test_another_model_is_asked_about_the_same_classes() -> None:
    task = ImageClassification(images(8))
    model = build_model(task, 1).eval()
    for method in METHODS:
        asked = task.explain(model, task.dataset.test.take(torch.arange(4)), method, [1, 0, 1, 0])
        assert [each.answer for each in asked.examples] == ["bright", "dark", "bright", "dark"]
        assert len({each.said for each in asked.examples}) >= 1
        again = task.explain(model, task.dataset.test.take(torch.arange(4)), method, [1, 0, 1, 0])
        assert all(
            torch.equal(a.values, b.values) for a, b in zip(asked.examples, again.examples, strict=True)
        )


def test_features_without_labels_are_explained_by_a_linear_classifier_of_them() -> None:
    task = ContrastiveLearning(images(64))
    model = build_model(task, 1).eval()
    found = task.explain(model, task.dataset.test, INTEGRATED_GRADIENTS)
    with torch.no_grad():
        features = pooled(model.features(task.pixels(task.dataset.train["image"])), model.channels).double()
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.numpy())
    label = task.dataset.train["label"].numpy()
    probe = LogisticRegression(max_iter=1000).fit(scaler.transform(features.numpy()), label)
    asked = scaler.transform(features[:10].numpy())
    assert [each.asked for each in found.examples] == probe.predict(asked).tolist()
    score = np.abs(probe.decision_function(asked)) / 2
    assert [each.score for each in found.examples] == pytest.approx(score, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("name", "shape"), [("", (1, 8, 8)), ("mobilenet_v3_small", (3, 32, 32))])
def test_the_last_map_of_a_network(name: str, shape: tuple[int, int, int]) -> None:
    image = torch.randint(0, 256, (6, *shape), dtype=torch.uint8)
    rows = Examples({"image": image, "label": torch.arange(6) % 3})
    data = Dataset("toy", "images", rows, rows, "label", ("a", "b", "c"), info={"max_value": 255})
    task = ImageClassification(data, network=name)
    model = build_model(task, 1).eval()
    made: list[Tensor] = []
    layer = feature_layer(model, image[:1].float(), task.network.map)
    layer.register_forward_hook(lambda _, __, output: made.append(output))
    (first, *_) = task.explain(model, rows, GRAD_CAM).examples
    assert made[0].shape[1:] == task.network.map
    assert first.values.shape == shape[1:]


def test_a_network_without_a_map_has_no_grad_cam() -> None:
    assert methods_of((64, 2, 2)) == METHODS
    assert methods_of((768, 1, 1)) == (INTEGRATED_GRADIENTS, SALIENCY)


def test_attention_is_followed_through_the_layers() -> None:
    """Half of a layer passes by: the layers mix by (1 0, 1/4 3/4), then by halves."""
    first = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])[None]  # two heads
    second = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[None, None]
    assert rollout([first, second]).tolist() == [[[0.625, 0.375], [0.625, 0.375]]]


CAUSES = ("bad", "good")


def reviews(num_rows: int) -> Dataset:
    """Texts of eight words, of which a single one tells the class."""
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru") for b in ("ben", "dor", "sil", "tam")]
    generator = np.random.default_rng(5)
    texts, labels = [], [number % 2 for number in range(num_rows)]
    for label in labels:
        text = generator.choice(words, 8).tolist()
        text[generator.integers(8)] = CAUSES[label]
        texts.append(" ".join(text))
    halves = [half_of(texts, labels), half_of(texts[:12], labels[:12])]
    return texts_of("toy", halves, CAUSES)


@pytest.mark.usefixtures("one_thread")
def test_a_classifier_of_texts_is_seen_to_go_by_the_word_that_matters() -> None:
    task = TextClassification(reviews(160))
    model = trained(task, 5, 1e-3)
    for method in GRADIENTS:
        found = task.explain(model, task.dataset.test, method)
        for each in found.examples:
            assert each.answer == each.truth
            assert each.parts[int(each.values.argmax())] == each.truth
            if method == INTEGRATED_GRADIENTS:  # near the baseline a LayerNorm is steep
                assert each.gap == pytest.approx(0, abs=0.05 * abs(each.score - each.start))
    for each in task.explain(model, task.dataset.test, ATTENTION).examples:
        assert 0 < each.values.sum() < 1  # the rest is that of the tokens around the text
        assert each.values.min() > 0


LONG = "Anna " + "lives " * 25 + "Paris " + "lives " * 30
"""Which is read in three pieces by the tiny BERT."""


def test_a_text_in_pieces_is_explained_as_one(bert_folder) -> None:
    half = half_of([LONG, "Paris"], [1, 1])
    task = TextClassification(texts_of("toy", [half, half], ("x", "y")), str(bert_folder), overlap=3)
    model = build_model(task, 1).eval()
    with torch.no_grad():
        logits = task._logits(model, task.dataset.test)
    for method in task.explained_by:
        long, short = task.explain(model, task.dataset.test, method, [0, 1]).examples
        assert long.values.shape == (57,)
        assert len(short.parts) == 1
        assert (long.score, short.score) == pytest.approx(
            (logits[0, 0].item(), logits[1, 1].item()), abs=1e-5
        )
        if method == INTEGRATED_GRADIENTS:
            assert [long.gap, short.gap] == pytest.approx([0, 0], abs=1e-4)


def test_tokens_are_counted_to_their_words(bert_folder) -> None:
    half = half_of(["Anna lives in Berlin", "Paris"], [0, 1])
    task = TextClassification(texts_of("toy", [half, half], ("x", "y")), str(bert_folder))
    sentences = task.words(task.dataset.test)
    batch, first = encode(task.backbone, sentences, task.long_sentences.pieces(sentences))
    assert words_of(task.backbone, batch["input_ids"], first).tolist() == [
        [-1, 0, 0, 1, 2, 3, 3, -1],
        [-1, 0, *[-1] * 6],
    ]


def names_after(num_rows: int) -> Dataset:
    """Sentences in which a name is of a person after "mr", and of a place after "in"."""
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru") for b in ("ben", "dor", "sil", "tam")]
    generator = np.random.default_rng(6)
    sentences = []
    for number in range(num_rows):
        before, tag = (("mr", "B-PER"), ("in", "B-LOC"))[number % 2]
        place = int(generator.integers(1, 6))
        text, tags = generator.choice(words, 7).tolist(), ["O"] * 7
        text[place - 1], tags[place] = before, tag
        sentences.append(Sentence(text, tags))
    return sentences_of("toy", sentences, sentences[:12])


@pytest.mark.usefixtures("one_thread")
def test_a_tagger_is_seen_to_go_by_the_word_before_a_name() -> None:
    task = EntityRecognition(names_after(160))
    model = trained(task, 16, 2e-3)
    for method in GRADIENTS:
        for each in task.explain(model, task.dataset.test, method).examples:
            assert each.said == each.truth
            cause = {"B-PER": "mr", "B-LOC": "in"}[each.truth]
            name = each.parts[each.parts.index(cause) + 1]
            assert each.answer == f"{name}: {each.truth}"
            assert each.parts[int(each.values.argmax())] == cause


def test_a_tagger_is_asked_about_words_that_it_has_read(bert_folder) -> None:
    """The second word of the last sentence is an entity, and BERT drops what it is written with."""
    from tiny_bert import SENTENCES

    task = EntityRecognition(sentences_of("toy", SENTENCES, SENTENCES), str(bert_folder))
    model = build_model(task, 1).eval()
    for method in task.explained_by:
        found = task.explain(model, task.dataset.test, method, [0, 0, 0]).examples
        assert [each.answer for each in found] == ["Anna: O", "Paris: O", "Paris: O"]
        assert [each.truth for each in found] == ["B-PER", "B-LOC", "B-LOC"]
        assert [len(each.values) for each in found] == [5, 1, 3]
        assert found[2].values[1] == 0


def windows(num_rows: int, lag: int) -> Dataset:
    """Noise in windows of eight, whose target is one of the values."""
    window = torch.randn(num_rows, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    ones = torch.ones(num_rows, dtype=torch.float64)
    columns = {
        "window": window,
        "target": window[:, lag],
        "scale": ones,
        "series": ones.long() - 1,
        "time": ones,
    }
    rows = Examples(columns)
    return Dataset(
        "toy",
        "series",
        rows,
        rows.take(torch.arange(min(30, num_rows))),
        info={"series": ("one",), "horizon": 2},
    )


@pytest.mark.usefixtures("one_thread")
def test_a_forecast_is_seen_to_go_by_the_step_that_matters() -> None:
    task = Forecasting(windows(512, lag=5), hidden_size=24)
    model = trained(task, 14, 1e-2)
    for method in GRADIENTS:
        found = task.explain(model, task.dataset.test, method)
        sizes = torch.stack([each.values.abs() for each in found.examples]).mean(0)
        assert found.examples[0].parts == ("t-9", "t-8", "t-7", "t-6", "t-5", "t-4", "t-3", "t-2")
        assert int(sizes.argmax()) == 5
        assert sizes[5] > 3 * sizes.sort().values[-2]
    with torch.no_grad():
        forecasts = task._forecasts(model, task.dataset.test)
    for each, forecast in zip(
        task.explain(model, task.dataset.test, GRADIENTS[0]).examples, forecasts, strict=True
    ):
        assert each.score == pytest.approx(float(forecast), abs=1e-5)
        assert each.gap == pytest.approx(0, abs=1e-3)


def test_persistence_goes_by_the_last_value_alone() -> None:
    """A network that forecasts the last distance from the mean forecasts the last value."""

    class Last(nn.Module):
        def forward(self, window: Tensor) -> Tensor:
            return window[:, -1]

    task = Forecasting(windows(4, lag=0))
    for each in task.explain(Last(), task.dataset.test, SALIENCY).examples:
        assert each.values.numpy() == pytest.approx([0] * 7 + [1], abs=1e-6)
    for row, each in enumerate(task.explain(Last(), task.dataset.test, INTEGRATED_GRADIENTS).examples):
        window = task.dataset.test["window"][row].tolist()
        mean = sum(window) / 8
        assert each.values.numpy() == pytest.approx([0] * 7 + [window[-1] - mean], abs=1e-6)
        assert each.start == pytest.approx(mean)
