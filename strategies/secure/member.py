"""The node's half of secure aggregation (Bonawitz et al. 2017, doi:10.1145/3133956.3133982, figure 4).

A session is one sum. A node goes through its stages in order, each once:

    begun    it has made two pairs of keys, and told the public halves
    dealt    it has dealt shares of its mask key and of its seed, sealed for each other node
    masked   it has masked what its clients have trained, once
    opened   it has told one share of each node's: of the seed where that node's vector is in the sum, else of
             its mask key; never both. Nothing of the session is left then

Errors are ValueErrors of one line, and leave a node where it was.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from strategies.secure import shares
from strategies.secure.keys import (
    KEY,
    MASKING,
    SEALING,
    new_key,
    public_key,
    put_mask,
    seal,
    seed_key,
    shared_key,
    unseal,
)
from strategies.secure.modular import Limbs

Stage = Literal["begun", "dealt", "masked", "opened"]
OWN_KEY, OWN_SEED = "key", "seed"
"""What shares are of."""
LONGEST_ID = 64
"""Bytes of a session's name."""


@dataclass(frozen=True)
class Dealt:
    """What a node tells the server of the shares that it deals."""

    sealed: Mapping[int, bytes]
    """Place of another node -> what that node alone can open."""
    key_tags: Mapping[int, bytes]
    seed_tags: Mapping[int, bytes]
    """Place -> the tag of its share, its own included."""
    commitment: bytes
    """By which the seed is known."""


@dataclass(frozen=True)
class Told:
    """The shares that a node tells at the end."""

    seeds: Mapping[int, bytes]
    """Place of a node that is in the sum -> the share of its seed."""
    keys: Mapping[int, bytes]
    """Place of one that dropped out -> the share of its mask key."""


@dataclass
class Member:
    """One node in one session."""

    session: bytes
    """The session's name, which the server draws."""
    numbers: tuple[int, ...]
    """Which nodes take part, by their partition-ids; a node's place is where it stands, from 1 on."""
    place: int
    threshold: int
    """How many nodes must stay for the sum to be opened."""
    stage: Stage = "begun"
    mask_secret: bytes = b""
    seal_secret: bytes = b""
    seed: bytes = b""
    mask_keys: dict[int, bytes] = field(default_factory=dict)
    seal_keys: dict[int, bytes] = field(default_factory=dict)
    """Place -> public key, of all that have told theirs."""
    key_shares: dict[int, bytes] = field(default_factory=dict)
    seed_shares: dict[int, bytes] = field(default_factory=dict)
    """Place -> the share that this node holds; those of all whose vectors may be in the sum."""

    @staticmethod
    def begin(session: bytes, numbers: Sequence[int], own: int, threshold: int, least: int = 2) -> "Member":
        """Return node `own`, with fresh keys, which takes part in no sum of fewer than `least` nodes."""
        nodes = len(numbers)
        if not 0 < len(session) <= LONGEST_ID:
            raise ValueError(f"a session must have a name of 1 to {LONGEST_ID} bytes, got {len(session)}")
        if list(numbers) != sorted(set(numbers)) or own not in numbers:
            raise ValueError(f"a session's nodes must be in order, each once, with {own}: got {[*numbers]}")
        if nodes < 2:
            raise ValueError(f"a sum must be of at least 2 nodes, got {nodes}")
        if not nodes < 2 * threshold <= 2 * nodes:
            raise ValueError(
                f"more than half of {nodes} nodes, and at most all, must be needed to open a sum, got "
                f"{threshold}: else a server could ask two halves for different shares"
            )
        if threshold < least:
            raise ValueError(
                f"its owner lets it take part in sums of at least {least} nodes (secure-nodes), and this one "
                f"may be of {threshold}"
            )
        member = Member(session, tuple(numbers), list(numbers).index(own) + 1, threshold)
        member.mask_secret, member.seal_secret = new_key(), new_key()
        return member

    def public_keys(self) -> tuple[bytes, bytes]:
        """Return the public halves of the mask key and of the sealing key."""
        return public_key(self.mask_secret), public_key(self.seal_secret)

    def deal(self, mask_keys: Mapping[int, bytes], seal_keys: Mapping[int, bytes]) -> Dealt:
        """Return shares for all nodes that have told their keys."""
        self._expect("begun")
        self._check_keys(mask_keys, seal_keys)
        seed, nodes = secrets.token_bytes(KEY), len(self.numbers)
        of_key = shares.deal(self.mask_secret, self.threshold, nodes)
        of_seed = shares.deal(seed, self.threshold, nodes)
        # Sealed before anything is noted: a key that is none leaves the node where it was.
        keys = {
            place: shared_key(self.seal_secret, key, SEALING, self.session)
            for place, key in seal_keys.items()
            if place != self.place
        }
        sealed = {
            place: seal(key, of_key[place] + of_seed[place], self._way(self.place, place))
            for place, key in keys.items()
        }
        self.seed, self.mask_keys, self.seal_keys = seed, dict(mask_keys), dict(seal_keys)
        self.key_shares, self.seed_shares = (
            {self.place: of_key[self.place]},
            {self.place: of_seed[self.place]},
        )
        self.stage = "dealt"
        return Dealt(
            sealed,
            {place: self.tag(self.place, place, OWN_KEY, of_key[place]) for place in mask_keys},
            {place: self.tag(self.place, place, OWN_SEED, of_seed[place]) for place in mask_keys},
            commitment(self.session, self.place, seed),
        )

    def receive(self, sealed: Mapping[int, bytes]) -> None:
        """Take the shares of all others that have dealt some: these are the nodes of the sum."""
        self._expect("dealt")
        if unknown := sorted(sealed.keys() - (self.mask_keys.keys() - {self.place})):
            raise ValueError(f"there are shares of place {unknown[0]}, which has told no keys")
        if len(sealed) + 1 < self.threshold:
            raise ValueError(
                f"{len(sealed) + 1} nodes have dealt shares, and it takes {self.threshold} to open a sum"
            )
        opened = {place: self._unsealed(place, text) for place, text in sealed.items()}
        for place, both in opened.items():
            self.key_shares[place], self.seed_shares[place] = both[: shares.SHARE], both[shares.SHARE :]

    def mask(self, numbers: Limbs) -> None:
        """Put the masks on what this node has added up, once: two vectors would tell their difference."""
        self._expect("dealt")
        if len(self.key_shares) < self.threshold:
            raise ValueError("it has not been given the others' shares")
        # The stage first: whatever happens from here on, no second vector gets these masks.
        self.stage = "masked"
        put_mask(numbers, seed_key(self.seed, self.session))
        for place in self.key_shares:
            if place != self.place:
                key = shared_key(self.mask_secret, self.mask_keys[place], MASKING, self.session)
                put_mask(numbers, key, off=place < self.place)
        self.mask_secret = self.seal_secret = self.seed = b""  # nobody needs them here any more

    def tell(self, alive: Sequence[int], dead: Sequence[int]) -> Told:
        """Return the shares that take the masks off the sum of those alive."""
        self._expect("masked")
        if sorted([*alive, *dead]) != sorted(self.key_shares):
            raise ValueError(
                f"it is asked for the seeds of {[*alive]} and the keys of {[*dead]}, and holds shares of "
                f"{sorted(self.key_shares)}: of each node one must be asked, and never both"
            )
        if self.place not in alive:
            raise ValueError("it is asked to open a sum without its own vector, which it has sent")
        if len(alive) < self.threshold:
            raise ValueError(
                f"it is asked to open a sum of {len(alive)} nodes, and {self.threshold} must be in it"
            )
        self.stage = "opened"
        return Told(
            {place: self.seed_shares[place] for place in alive},
            {place: self.key_shares[place] for place in dead},
        )

    def tag(self, owner: int, holder: int, what: str, share: bytes) -> bytes:
        """Return the tag of a share."""
        return shares.tag(self.session, owner, holder, what, share)

    def _check_keys(self, mask_keys: Mapping[int, bytes], seal_keys: Mapping[int, bytes]) -> None:
        if mask_keys.keys() != seal_keys.keys() or not mask_keys.keys() <= set(
            range(1, len(self.numbers) + 1)
        ):
            raise ValueError(f"keys must be told of the session's places, got {sorted(mask_keys)}")
        if len(mask_keys) < self.threshold:
            raise ValueError(
                f"{len(mask_keys)} nodes have told their keys, and it takes {self.threshold} to open a sum"
            )
        if (mask_keys.get(self.place), seal_keys.get(self.place)) != self.public_keys():
            raise ValueError("the server tells others another key than this node's own")
        all_keys = [*mask_keys.values(), *seal_keys.values()]
        if len(set(all_keys)) < len(all_keys):
            raise ValueError("two of the keys that the server tells are the same")

    def _unsealed(self, place: int, text: bytes) -> bytes:
        key = shared_key(self.seal_secret, self.seal_keys[place], SEALING, self.session)
        try:
            both = unseal(key, text, self._way(place, self.place))
        except ValueError as error:
            raise ValueError(f"the shares of node {self.numbers[place - 1]}: {error}") from error
        if len(both) != 2 * shares.SHARE:
            raise ValueError(f"the shares of node {self.numbers[place - 1]} have {len(both)} bytes")
        return both

    def _way(self, one: int, other: int) -> bytes:
        return b"%b %d %d" % (self.session, one, other)

    def _expect(self, stage: Stage) -> None:
        if self.stage != stage:
            raise ValueError(f"a session goes on from where it is {stage!r}, and here it is {self.stage!r}")


def commitment(session: bytes, place: int, seed: bytes) -> bytes:
    """Return the hash by which a node's seed is known."""
    return shares.tag(session, place, place, "commitment", seed)
