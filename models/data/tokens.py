"""Tokens that were learned from text, by byte-pair encoding, in a form that travels between machines."""

from collections.abc import Sequence
from dataclasses import dataclass

TOKENS = "tokens"
"""Key in `Dataset.info` of the tokens that a task is to use instead of learning its own."""
PADDING, UNKNOWN, BEGIN, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first tokens, which are no text."""
LONGEST = 200
"""Characters of a token: longer ones do not travel, so they are not learned."""


@dataclass(frozen=True)
class LearnedTokens:
    """What words are cut into."""

    names: tuple[str, ...]
    """All tokens, in the order of their numbers."""
    merges: tuple[str, ...]
    """The two parts of the first token that is put together, those of the second, and so on."""

    @property
    def pairs(self) -> Sequence[tuple[str, str]]:
        """The merges, in pairs."""
        return list(zip(self.merges[::2], self.merges[1::2], strict=True))

    def check(self) -> None:
        """Raise ValueError for what no machine has learned: others say anything."""
        known = {*self.names}
        if self.names[: len(SPECIAL)] != SPECIAL or len(known) < len(self.names):
            raise ValueError(f"tokens must begin with {', '.join(SPECIAL)} and be there once each")
        if len(self.merges) % 2:
            raise ValueError("tokens must be put together of two parts each")
        for one, other in self.pairs:
            if not (one in known and other in known and one + other in known):
                raise ValueError(
                    f"tokens must be put together of tokens that there are, got {ascii(one)[:80]} and "
                    f"{ascii(other)[:80]}"
                )
