"""The server's half of secure aggregation: it passes on what nodes tell, and opens the sum of their vectors.

It never holds the seed and the mask key of one node, as nodes tell shares of one of them alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from strategies.secure import shares
from strategies.secure.keys import MASKING, check_public, public_key, put_mask, seed_key, shared_key
from strategies.secure.member import OWN_KEY, OWN_SEED, Dealt, Told, commitment
from strategies.secure.modular import Limbs


def threshold_of(share: float, nodes: int) -> int:
    """Return how many of the nodes must stay: this share of them, and more than half in any case."""
    return max(nodes // 2 + 1, math.ceil(share * nodes - 1e-9))


@dataclass
class Session:
    """One sum."""

    name: bytes
    numbers: tuple[int, ...]
    """The nodes' partition-ids; their places count from 1."""
    threshold: int
    mask_keys: dict[int, bytes] = field(default_factory=dict)
    seal_keys: dict[int, bytes] = field(default_factory=dict)
    dealt: dict[int, Dealt] = field(default_factory=dict)
    """Place -> what it has dealt; who has dealt something may be in the sum."""
    told: dict[int, Told] = field(default_factory=dict)
    """Place -> the shares that it tells in the end."""
    disputed: dict[int, list[int]] = field(default_factory=dict)
    """Place -> those whose shares of that node's secrets are not the ones that it said it dealt."""

    def sealed_for(self, place: int) -> dict[int, bytes]:
        """Return place -> what that node has sealed for this one."""
        return {each: dealt.sealed[place] for each, dealt in self.dealt.items() if each != place}

    def take_keys(self, place: int, mask_key: bytes, seal_key: bytes) -> None:
        """Note a node's public keys; raise ValueError for such as all other nodes would refuse."""
        told = [*self.mask_keys.values(), *self.seal_keys.values(), mask_key, seal_key]
        if len(set(told)) < len(told):
            raise ValueError("its two public keys are the same, or one of them is another node's")
        for key in (mask_key, seal_key):
            check_public(key)
        self.mask_keys[place], self.seal_keys[place] = mask_key, seal_key

    def take_dealt(self, place: int, dealt: Dealt) -> None:
        """Note what a node has dealt; raise ValueError where it is not for all that have told their keys."""
        everybody = self.mask_keys.keys()
        if not (
            dealt.key_tags.keys() == dealt.seed_tags.keys() == everybody == dealt.sealed.keys() | {place}
        ):
            raise ValueError(f"it deals shares to {sorted(dealt.sealed)}, and there are {sorted(everybody)}")
        self.dealt[place] = dealt

    def take_told(self, place: int, told: Told, alive: Sequence[int]) -> None:
        """Check and note the shares that a node tells; raise ValueError, by name, where one is another."""
        if told.seeds.keys() != set(alive) or told.keys.keys() != self.dealt.keys() - set(alive):
            raise ValueError("it tells shares of other nodes than it was asked for")
        of_seeds = [(owner, OWN_SEED, share) for owner, share in told.seeds.items()]
        wrong: dict[int, str] = {}
        for owner, what, share in [*of_seeds, *((owner, OWN_KEY, each) for owner, each in told.keys.items())]:
            tags = self.dealt[owner].seed_tags if what == OWN_SEED else self.dealt[owner].key_tags
            if shares.tag(self.name, owner, place, what, share) != tags[place]:
                self.disputed.setdefault(owner, []).append(place)
                number = self.numbers[owner - 1]
                wrong[owner] = f"its share of the {what} of node {number} is not the one that it was dealt"
        if wrong:
            raise ValueError("; ".join(wrong.values()))
        self.told[place] = told

    def suspects(self) -> dict[int, str]:
        """Return place -> what is said of a node whose shares several others say are not those it dealt."""
        numbers = {place: [self.numbers[each - 1] for each in by] for place, by in self.disputed.items()}
        return {
            place: f"node {self.numbers[place - 1]} has dealt other shares than it said, by nodes {by}"
            for place, by in numbers.items()
            if len(by) > 1
        }

    def unmask(self, numbers: Limbs, alive: Iterable[int]) -> None:
        """Take the masks off the sum of the vectors of those alive; raise ValueError where that cannot be."""
        alive = sorted(alive)
        if len(alive) < self.threshold or len(self.told) < self.threshold:
            stayed = min(len(alive), len(self.told))
            raise ValueError(f"{stayed} nodes have stayed, and it takes {self.threshold} to open a sum")
        seeds = {place: self._seed(place) for place in alive}
        keys = {place: self._key(place) for place in self.dealt.keys() - set(alive)}
        for seed in seeds.values():
            put_mask(numbers, seed_key(seed, self.name), off=True)
        for gone, key in keys.items():
            for place in alive:  # each has put on what it shares with the one that has gone
                shared = shared_key(key, self.mask_keys[place], MASKING, self.name)
                put_mask(numbers, shared, off=gone > place)

    def _seed(self, owner: int) -> bytes:
        seed = self._opened({place: told.seeds[owner] for place, told in self.told.items()})
        if commitment(self.name, owner, seed) != self.dealt[owner].commitment:
            raise ValueError(self._wrong(owner, OWN_SEED))
        return seed

    def _key(self, owner: int) -> bytes:
        key = self._opened({place: told.keys[owner] for place, told in self.told.items()})
        if public_key(key) != self.mask_keys[owner]:
            raise ValueError(self._wrong(owner, OWN_KEY))
        return key

    def _opened(self, told: Mapping[int, bytes]) -> bytes:
        return shares.combine(told, self.threshold)

    def _wrong(self, owner: int, what: str) -> str:
        return f"node {self.numbers[owner - 1]} has dealt shares of another {what} than its own"
