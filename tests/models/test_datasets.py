"""Datasets: what the packages carry, and raw files in the formats of their authors."""

import functools
import gzip
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_files import CIFAR_CLASSES, md5, values, write_cifar10
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

from models.core.config import TaskConfig
from models.core.errors import UserError
from models.data import cache
from models.data.dataset import Examples
from models.data.datasets import DATASETS, load_dataset

MNIST_FILES = {
    "train-images-idx3-ubyte": (5, 28, 28),
    "train-labels-idx1-ubyte": (5,),
    "t10k-images-idx3-ubyte": (2, 28, 28),
    "t10k-labels-idx1-ubyte": (2,),
}


def idx(shape: tuple[int, ...]) -> bytes:
    """The IDX format: two zeros, 8 for bytes, the number of axes, their lengths, the values."""
    return (
        bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + values(shape).tobytes()
    )


def write_mnist(folder: Path, name: str = "MNIST", packed: tuple[str, ...] = ()) -> Path:
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    for file, shape in MNIST_FILES.items():
        if file in packed:
            (raw / f"{file}.gz").write_bytes(gzip.compress(idx(shape), mtime=0))
        else:
            (raw / file).write_bytes(idx(shape))
    return raw


@pytest.fixture(autouse=True)
def parsed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about loaders, some of them made to fail: nothing comes from the cache."""
    monkeypatch.setenv(cache.VARIABLE, "off")


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_cifar10(tmp_path, monkeypatch)


def load(name: str, folder: Path, download: bool = False):
    return load_dataset(
        TaskConfig(dataset=name, data_dir=str(folder), download=download, validation_fraction=0.0)
    )


@pytest.mark.parametrize(
    ("name", "train", "test", "shape", "most"),
    [("digits", 1437, 360, (1, 8, 8), 16), ("mnist-5k", 4000, 1000, (1, 28, 28), 255)],
)
def test_packaged_images(name, train, test, shape, most):
    dataset = load_dataset(TaskConfig(dataset=name, validation_fraction=0.0))
    assert (dataset.name, dataset.kind, dataset.label) == (name, "images", "label")
    assert dataset.info == {"max_value": most}
    assert dataset.classes == tuple("0123456789")
    for examples, rows in ((dataset.train, train), (dataset.test, test)):
        assert examples["image"].shape == (rows, *shape)
        assert examples["image"].dtype == torch.uint8
        assert examples["image"].max() == most
        assert examples["label"].shape == (rows,)
        assert examples["label"].dtype == torch.int64


@pytest.mark.slow
def test_split_is_stratified_disjoint_and_the_same_for_every_seed():
    first, second = (
        load_dataset(TaskConfig(dataset="mnist-5k", seed=seed, validation_fraction=0.0)) for seed in (1, 2)
    )
    assert torch.bincount(first.train["label"]).tolist() == [400] * 10
    assert torch.bincount(first.test["label"]).tolist() == [100] * 10
    assert torch.equal(first.test["image"], second.test["image"])
    pictures = torch.cat([first.train["image"], first.test["image"]]).flatten(1)
    assert len(torch.unique(pictures, dim=0)) == 5000  # no held-out row is also trained on


@pytest.mark.parametrize("packed", [(), tuple(MNIST_FILES), ("t10k-images-idx3-ubyte",)])
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_raw_mnist_files_packed_or_not(tmp_path, name, folder, packed):
    raw = write_mnist(tmp_path, folder, packed)
    before = sorted(raw.iterdir())
    dataset = load(name, tmp_path)
    assert torch.equal(dataset.train["image"], torch.from_numpy(values((5, 1, 28, 28))))
    assert torch.equal(dataset.test["image"], torch.from_numpy(values((2, 1, 28, 28))))
    assert dataset.train["label"].tolist() == [0, 1, 2, 3, 4]
    assert dataset.test["label"].tolist() == [0, 1]
    assert dataset.classes[:2] == (("0", "1") if name == "mnist" else ("T-shirt/top", "Trouser"))
    assert sorted(raw.iterdir()) == before  # the user's folder stays as it was


@pytest.mark.parametrize("packed", [False, True])
def test_raw_cifar10_files_packed_or_not(cifar, packed):
    if packed:
        with tarfile.open(cifar.parent / CIFAR10.filename, "w:gz") as archive:
            archive.add(cifar, cifar.name)
        (cifar / "test_batch").unlink()
    dataset = load("cifar10", cifar.parent)
    assert dataset.train["image"].shape == (10, 3, 32, 32)
    assert torch.equal(dataset.test["image"], torch.from_numpy(values((2, 3, 32, 32))))
    assert dataset.train["label"].tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert dataset.test["label"].dtype == torch.int64
    assert dataset.classes == tuple(CIFAR_CLASSES)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Serve our files as MNIST's mirror; yields the paths that were asked for."""
    raw = write_mnist(tmp_path / "mirror", packed=tuple(MNIST_FILES))
    fetched = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, form, *args):
            if self.headers["Method"] != "HEAD":  # torchvision's look for redirects, in truth a GET
                fetched.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(raw)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    sums = [(f"{file}.gz", md5(raw / f"{file}.gz")) for file in MNIST_FILES]
    monkeypatch.setattr(MNIST, "resources", sums)
    yield fetched
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_fetches_once_for_workers_that_start_together(tmp_path, mirror):
    folder = tmp_path / "new" / "data"
    with ThreadPoolExecutor(4) as workers:
        datasets = list(workers.map(lambda _: load("mnist", folder, download=True), range(4)))
    assert [dataset.train["label"].tolist() for dataset in datasets] == [[0, 1, 2, 3, 4]] * 4
    assert sorted(mirror) == sorted(f"/{file}.gz" for file in MNIST_FILES)
    assert len(load("mnist", folder).test) == 2


def test_download_is_not_tried_for_files_that_are_there(tmp_path, monkeypatch):
    write_mnist(tmp_path, packed=tuple(MNIST_FILES))
    monkeypatch.setattr(MNIST, "mirrors", [(tmp_path / "nowhere").as_uri() + "/"])
    assert len(load("mnist", tmp_path, download=True).train) == 5


def test_failed_download_says_why_and_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(FashionMNIST, "mirrors", [(tmp_path / "nowhere").as_uri() + "/"])
    with pytest.raises(UserError, match="'fashion-mnist' cannot be fetched") as error:
        load("fashion-mnist", tmp_path, download=True)
    assert f"{tmp_path}/FashionMNIST/raw/train-images-idx3-ubyte," in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_is_named_and_only_that(tmp_path):
    raw = write_mnist(tmp_path)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError) as error:
        load("mnist", tmp_path)
    assert str(error.value) == (
        f"dataset 'mnist' is not complete: looked for {raw}/t10k-labels-idx1-ubyte, "
        f"{raw}/t10k-labels-idx1-ubyte.gz; put them there, or set download=true"
    )


def test_missing_cifar10_names_its_files_and_archive(tmp_path):
    with pytest.raises(UserError, match="download=true") as error:
        load("cifar10", tmp_path)
    for file in (
        "cifar-10-batches-py/test_batch",
        "cifar-10-batches-py/batches.meta",
        "cifar-10-python.tar.gz",
    ):
        assert f"{tmp_path}/{file}" in str(error.value)


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"])
def test_file_cut_short_is_damaged(tmp_path, file):
    raw = write_mnist(tmp_path, packed=("train-labels-idx1-ubyte",))
    (raw / file).write_bytes((raw / file).read_bytes()[:-9])
    with pytest.raises(UserError, match=r"'mnist' in .* is damaged \(.*\): delete its files"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("fault", [MemoryError("too large"), RuntimeError("DefaultCPUAllocator: not enough")])
def test_a_lack_of_memory_is_no_damage(tmp_path, monkeypatch, fault):
    write_mnist(tmp_path)

    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(MNIST, "_load_data", fail)
    with pytest.raises(type(fault), match=str(fault)):
        load("mnist", tmp_path, download=True)


def test_files_that_may_not_be_read_are_not_to_be_deleted(tmp_path, monkeypatch):
    write_mnist(tmp_path)

    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(MNIST, "_load_data", fail)
    with pytest.raises(UserError, match=r"'mnist' in .* cannot be read \(PermissionError: .*\)$"):
        load("mnist", tmp_path, download=True)


@pytest.mark.parametrize("header", [b"\0\0\x0a\x01", b"\0\0\x0d\x03", b"\0\0\0\0", b"\0"])
def test_file_that_is_no_picture_file_is_damaged(tmp_path, header):
    raw = write_mnist(tmp_path)
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(header + images.read_bytes()[len(header) :])
    if len(header) < 4:
        images.write_bytes(header)
    with pytest.raises(UserError, match=r"'mnist' in .* is damaged"):
        load("mnist", tmp_path)


def test_cifar10_that_is_not_the_original_is_damaged(cifar):
    (cifar / "test_batch").write_bytes(b"other")  # never unpickled: the MD5 sum is checked first
    with pytest.raises(UserError, match=r"'cifar10' in .* is damaged"):
        load("cifar10", cifar.parent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "mnist"}, "dataset 'mnist' is read from a folder: set data-dir"),
        (
            {"dataset": "mnist", "data_dir": "/no/such"},
            "data-dir must be a folder that exists, got '/no/such'",
        ),
        ({"dataset": "digits", "data_dir": "data"}, "data-dir must be an absolute folder, got 'data'"),
        ({"dataset": "mnist5k"}, "unknown dataset 'mnist5k': did you mean mnist-5k"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        load_dataset(TaskConfig(**options))


def test_names_are_lower_case_kebab():
    assert all(name == name.lower() and "_" not in name for name in DATASETS)


def test_rows_are_shuffled_whole_and_each_comes_once() -> None:
    rows = Examples({"x": torch.arange(10), "twice": 2 * torch.arange(10)})

    def drawn(seed: int) -> list[int]:
        parts = list(rows.shuffled(torch.Generator().manual_seed(seed), batch_size=4))
        assert [len(part) for part in parts] == [4, 4, 2]
        assert all(torch.equal(part["twice"], 2 * part["x"]) for part in parts)
        return [row for part in parts for row in part["x"].tolist()]

    assert sorted(drawn(1)) == list(range(10))
    assert drawn(1) == drawn(1) != drawn(2)


def test_examples_of_examples_are_copied_from_the_first_when_they_are_asked_for() -> None:
    whole = Examples({"x": torch.arange(10), "twice": 2 * torch.arange(10)})
    some = whole.at(np.array([9, 3, 3, 5]))
    batch = some.at(torch.tensor([3, 0]))
    assert (len(some), len(batch)) == (4, 2)
    whole["x"][5] = -1  # nothing has been copied yet
    assert batch["x"].tolist() == [-1, 9]
    whole["x"][5] = 7
    assert batch["x"].tolist() == [-1, 9]
    assert dict(batch.columns)["twice"].tolist() == [10, 18]
    assert some.take(torch.tensor([1])).columns["x"].tolist() == [3]
    assert len(whole.at(np.arange(0))) == 0


def test_taken_examples_are_copies_at_once() -> None:
    whole = Examples({"x": torch.arange(10)})
    taken = whole.take(torch.tensor([2, 1]))
    whole["x"][2] = -1
    assert taken["x"].tolist() == [2, 1]
