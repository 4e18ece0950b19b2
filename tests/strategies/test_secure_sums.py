"""Sums modulo 2^128 with masks on them, and the protocol that takes the masks off (Bonawitz et al. 2017)."""

import itertools
from collections.abc import Collection, Iterable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from flwr.app import ConfigRecord

from strategies.secure import shares, wire
from strategies.secure.fixed_point import FRACTION, limbs_of, total_of
from strategies.secure.keys import MASKING, new_key, public_key, seal, shared_key, unseal
from strategies.secure.member import Member
from strategies.secure.modular import Limbs, add, subtract
from strategies.secure.session import Session, threshold_of
from strategies.wire.exact_sum import ExactSum

SESSION = b"one"
MODULUS = 2**128


def whole(limbs: Limbs) -> list[int]:
    """Return the numbers, from 0 to 2^128 - 1."""
    return [int(low) + (int(high) << 64) for low, high in limbs.T]


def limbs(numbers: Iterable[int]) -> Limbs:
    split = [(number % MODULUS % 2**64, number % MODULUS >> 64) for number in numbers]
    return np.array(split, np.uint64).reshape(-1, 2).T.copy()


def sum_of(*terms: tuple[list[float], float]) -> ExactSum:
    total = ExactSum()
    for values, weight in terms:
        total.add({"w": np.float32(values)}, weight)
    return total


# Sums as whole numbers


def test_a_sum_is_the_whole_number_nearest_to_it_times_two_to_the_eighty() -> None:
    held = limbs_of(sum_of(([0.0, 1.0, -1.0, 0.75, -(2.0**-57), 1e-25], 3.0)))
    expected = [0, 3 * 2**80, -3 * 2**80, 9 * 2**78, -3 * 2**23, round(Fraction(3e-25) * 2**80)]
    assert whole(held) == [each % MODULUS for each in expected]


def test_adding_and_taking_away_carry_over_both_halves() -> None:
    some = [0, 1, 2**64 - 1, 2**64, 2**127, MODULUS - 1, 12345 << 60]
    pairs = list(itertools.product(some, some))
    held = limbs(one for one, _ in pairs)
    add(held, limbs(other for _, other in pairs))
    assert whole(held) == [(one + other) % MODULUS for one, other in pairs]
    held = limbs(one for one, _ in pairs)
    subtract(held, limbs(other for _, other in pairs))
    assert whole(held) == [(one - other) % MODULUS for one, other in pairs]


def test_the_mean_of_whole_numbers_is_that_of_the_plain_sum_bit_for_bit() -> None:
    """Float32 of all sizes down to 2^-57, in three nodes' sums, some of which keep low parts and a rest."""
    numbers = np.random.default_rng(3)
    sizes = np.ldexp(1.0, numbers.integers(-33, 30, (12, 500)))
    terms = np.float32(numbers.normal(size=(12, 500)) * sizes)
    terms[:, 0] = [2.0**38, *[2.0**-57] * 10, -(2.0**38)]
    weights = [float(each) for each in numbers.integers(1, 200, 11)]
    weights.append(weights[0])  # so that what spans the most bits is all that is left of its sum
    plain, nodes = ExactSum(), [ExactSum() for _ in range(3)]
    for place, (row, weight) in enumerate(zip(terms, weights, strict=True)):
        plain.add({"w": row.reshape(20, 25)}, weight)
        nodes[place // 4].add({"w": row.reshape(20, 25)}, weight)
    held = limbs_of(nodes[0])
    for node in nodes[1:]:
        add(held, limbs_of(node))
    total = total_of(held, {"w": (20, 25)}, plain.weight)
    assert any(node.low for node in nodes)
    assert total.mean()["w"].tobytes() == plain.mean()["w"].tobytes()
    like = {"w": np.dtype(np.float32)}
    assert total.mean(like)["w"].tobytes() == plain.mean(like)["w"].tobytes()


def test_what_a_pair_cannot_hold_is_in_the_whole_number() -> None:
    total = sum_of(([2.0**40], 1.0), ([2.0**-20], 1.0), ([-(2.0**-75)], 1.0), ([2.0**-78], 1.0))
    assert total.rest.size
    exact = Fraction(2**40) + Fraction(1, 2**20) - Fraction(1, 2**75) + Fraction(1, 2**78)
    assert whole(limbs_of(total)) == [exact * 2**FRACTION]
    assert total_of(limbs_of(total), {"w": (1,)}, 1.0).mean()["w"] == float(exact)


def test_a_sum_that_could_run_over_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"is 1.2e\+15, and secure aggregation adds up what stays below 7.03"
    ):
        limbs_of(sum_of(([3e12], 400.0)))


# Keys and shares


def test_two_nodes_have_one_key_for_each_purpose_and_session() -> None:
    ann, bob = new_key(), new_key()
    keys = {
        shared_key(own, public_key(other), purpose, session)
        for own, other in ((ann, bob), (bob, ann))
        for purpose in (MASKING, b"another")
        for session in (SESSION, b"two")
    }
    assert len(keys) == 4


def test_what_is_sealed_opens_for_its_receiver_alone_and_unchanged() -> None:
    key = bytes(range(32))
    sealed = seal(key, b"secret", b"1 2")
    assert unseal(key, sealed, b"1 2") == b"secret"
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for opening in (
        (key, sealed, b"2 1"),
        (key, changed, b"1 2"),
        (bytes(32), sealed, b"1 2"),
        (key, b"", b""),
    ):
        with pytest.raises(ValueError, match="does not open"):
            unseal(*opening)


def test_any_threshold_of_shares_gives_the_secret_and_fewer_do_not() -> None:
    secret = bytes(range(32))
    dealt = shares.deal(secret, 3, 5)
    for places in itertools.combinations(dealt, 3):
        assert shares.combine({place: dealt[place] for place in places}, 3) == secret
    with pytest.raises(ValueError, match="it takes 3 shares to open a secret, and there are 2"):
        shares.combine({1: dealt[1], 2: dealt[2]}, 3)
    assert shares.combine({1: dealt[1], 2: dealt[2]}, 2) != secret


@pytest.mark.parametrize(
    ("share", "nodes", "threshold"),
    [(0.6, 2, 2), (0.6, 3, 2), (0.6, 5, 3), (0.6, 10, 6), (0.51, 100, 51), (1.0, 4, 4)],
)
def test_more_than_half_of_the_nodes_must_stay(share: float, nodes: int, threshold: int) -> None:
    assert threshold_of(share, nodes) == threshold > nodes / 2


# The protocol


class Run:
    """A session of several nodes, of which some go."""

    def __init__(self, nodes: int = 5, threshold: int = 3, numbers: int = 4) -> None:
        self.numbers = tuple(range(10, 10 + nodes))
        self.members = {
            place: Member.begin(SESSION, self.numbers, number, threshold)
            for place, number in enumerate(self.numbers, start=1)
        }
        self.session = Session(SESSION, self.numbers, threshold)
        draw = np.random.default_rng(0)
        self.plain = {
            place: [int(each) << 40 for each in draw.integers(-(2**62), 2**62, numbers)]
            for place in self.members
        }
        self.masked: dict[int, Limbs] = {}

    def deal(self, gone: Collection[int] = ()) -> None:
        for place, member in self.members.items():
            self.session.mask_keys[place], self.session.seal_keys[place] = member.public_keys()
        for place, member in self.members.items():
            if place not in gone:
                dealt = member.deal(self.session.mask_keys, self.session.seal_keys)
                self.session.take_dealt(place, dealt)

    def mask(self, gone: Collection[int] = ()) -> None:
        for place in self.session.dealt.keys() - set(gone):
            self.members[place].receive(self.session.sealed_for(place))
            self.masked[place] = limbs(self.plain[place])
            self.members[place].mask(self.masked[place])

    def opened(self, gone: Collection[int] = ()) -> list[int]:
        alive, dead = sorted(self.masked), sorted(self.session.dealt.keys() - self.masked.keys())
        for place in self.masked.keys() - set(gone):
            self.session.take_told(place, self.members[place].tell(alive, dead), alive)
        total = limbs([0] * len(self.plain[1]))
        for vector in self.masked.values():
            add(total, vector)
        self.session.unmask(total, alive)
        return whole(total)

    def expected(self) -> list[int]:
        rows = [self.plain[place] for place in self.masked]
        return [sum(column) % MODULUS for column in zip(*rows, strict=True)]


GOING = [set(each) for size in range(3) for each in itertools.combinations(range(1, 6), size)]


@pytest.mark.parametrize("gone", GOING, ids=str)
def test_whoever_goes_before_it_masks_leaves_the_sum_of_the_others(gone: set[int]) -> None:
    run = Run()
    run.deal()
    run.mask(gone)
    assert run.opened() == run.expected()
    assert len(run.masked) == 5 - len(gone)


def test_nodes_may_go_at_every_stage() -> None:
    run = Run(nodes=7, threshold=4)
    run.deal(gone={7})
    run.mask(gone={2})
    assert run.opened(gone={5}) == run.expected()
    assert sorted(run.masked) == [1, 3, 4, 5, 6]


def test_below_the_threshold_nothing_is_opened() -> None:
    run = Run()
    run.deal()
    run.mask(gone={1, 2, 3})
    for place in (4, 5):
        with pytest.raises(ValueError, match="a sum of 2 nodes, and 3 must be in it"):
            run.members[place].tell([4, 5], [1, 2, 3])
    late = Run()
    late.deal()
    late.mask()
    with pytest.raises(ValueError, match="2 nodes have stayed, and it takes 3 to open a sum"):
        late.opened(gone={1, 2, 3})
    few = Run()
    few.deal(gone={1, 2, 3})
    with pytest.raises(ValueError, match="2 nodes have dealt shares, and it takes 3 to open a sum"):
        few.members[4].receive(few.session.sealed_for(4))


def test_a_masked_vector_looks_like_noise_whatever_it_is_of() -> None:
    """By the chi-squared test of its 256 kinds of bytes, and bit by bit against another session's."""
    found = []
    for _ in range(2):
        run = Run(numbers=20_000)
        run.plain[1] = [0] * 20_000
        run.deal()
        run.mask()
        found.append(run.masked[1])
    for vector in (*found, found[0] ^ found[1]):
        counts = np.bincount(np.ascontiguousarray(vector).view(np.uint8).ravel(), minlength=256)
        expected = counts.sum() / 256
        square = float(((counts - expected) ** 2 / expected).sum())
        assert abs(square - 255) < 6 * (2 * 255) ** 0.5
    different = np.unpackbits(np.ascontiguousarray(found[0] ^ found[1]).view(np.uint8)).mean()
    assert abs(different - 0.5) < 6 * 0.5 / (20_000 * 128) ** 0.5
    assert (found[0] != found[1]).all()


def test_the_sum_of_all_but_one_node_still_hides_them() -> None:
    """Without the seeds even the sum of all masked vectors is noise."""
    run = Run()
    run.deal()
    run.mask()
    total = limbs([0] * 4)
    for vector in run.masked.values():
        add(total, vector)
    assert not set(whole(total)) & set(run.expected())


def test_a_server_that_asks_for_both_shares_of_a_node_gets_neither() -> None:
    run = Run()
    run.deal()
    run.mask()
    for alive, dead in (
        ([1, 2, 3, 4, 5], [5]),
        ([1, 2, 3, 4], []),
        ([1, 2, 3, 4, 5, 5], []),
        ([1, 2, 3, 4], [6]),
    ):
        with pytest.raises(ValueError, match="of each node one must be asked, and never both"):
            run.members[1].tell(alive, dead)
    with pytest.raises(ValueError, match="without its own vector"):
        run.members[1].tell([2, 3, 4], [1, 5])
    run.members[1].tell([1, 2, 3, 4], [5])
    for alive, dead in (([1, 2, 3, 4, 5], []), ([1, 2, 3, 4], [5])):
        with pytest.raises(ValueError, match="goes on from where it is 'masked', and here it is 'opened'"):
            run.members[1].tell(alive, dead)


def test_two_halves_of_the_nodes_cannot_be_asked_for_different_shares() -> None:
    """With a threshold above a half, disjoint nodes never hold enough of a node's seed and of its key."""
    with pytest.raises(
        ValueError, match=r"more than half of 4 nodes, and at most all, must be needed .* got 2"
    ):
        Member.begin(SESSION, (0, 1, 2, 3), 0, 2)
    with pytest.raises(ValueError, match="got 5"):
        Member.begin(SESSION, (0, 1, 2, 3), 0, 5)
    with pytest.raises(ValueError, match="at least 2 nodes, got 1"):
        Member.begin(SESSION, (0,), 0, 1)


def test_a_node_takes_part_in_no_smaller_sum_than_its_owner_allows() -> None:
    with pytest.raises(ValueError, match=r"at least 4 nodes \(secure-nodes\), and this one may be of 3"):
        Member.begin(SESSION, (0, 1, 2, 3), 0, 3, least=4)


def test_a_vector_is_masked_once() -> None:
    run = Run()
    run.deal()
    run.mask()
    with pytest.raises(ValueError, match="goes on from where it is 'dealt', and here it is 'masked'"):
        run.members[1].mask(limbs([1, 2, 3, 4]))
    assert (run.members[1].seed, run.members[1].mask_secret) == (b"", b"")


def test_shares_that_were_changed_on_their_way_fail_by_name() -> None:
    run = Run()
    run.deal()
    sealed = run.session.sealed_for(1)
    sealed[3] = sealed[3][:-1] + bytes([sealed[3][-1] ^ 1])
    with pytest.raises(
        ValueError, match="the shares of node 12: it does not open: it was changed on its way"
    ):
        run.members[1].receive(sealed)
    with pytest.raises(ValueError, match="the shares of node 12: it does not open"):
        run.members[1].receive({**run.session.sealed_for(1), 3: run.session.sealed_for(2)[3]})


def test_a_share_that_is_not_the_one_dealt_fails_by_name_and_the_others_open() -> None:
    run = Run()
    run.deal()
    run.mask(gone={5})
    told = run.members[1].tell([1, 2, 3, 4], [5])
    for what, wrong in (
        ("seed of node 12", replace(told, seeds={**told.seeds, 3: bytes(32)})),
        ("key of node 14", replace(told, keys={5: bytes(32)})),
    ):
        with pytest.raises(ValueError, match=f"its share of the {what} is not the one that it was dealt"):
            run.session.take_told(1, wrong, [1, 2, 3, 4])
    with pytest.raises(ValueError, match="shares of other nodes than it was asked for"):
        run.session.take_told(1, replace(told, keys={}), [1, 2, 3, 4])
    assert run.session.told == {}
    run.members[1].stage = "masked"
    assert run.opened(gone={1}) == run.expected()


def test_a_node_that_deals_shares_of_another_secret_is_named() -> None:
    run = Run()
    run.deal()
    run.session.dealt[2] = replace(run.session.dealt[2], commitment=bytes(32))
    run.mask()
    with pytest.raises(ValueError, match="node 11 has dealt shares of another seed than its own"):
        run.opened()
    gone = Run()
    gone.deal()
    gone.mask(gone={2})
    gone.session.mask_keys[2] = public_key(new_key())
    with pytest.raises(ValueError, match="node 11 has dealt shares of another key than its own"):
        gone.opened()


def test_keys_that_all_nodes_would_refuse_are_refused_of_the_one_that_tells_them() -> None:
    run = Run()
    mask_key, seal_key = run.members[1].public_keys()
    run.session.take_keys(1, mask_key, seal_key)
    fresh = public_key(new_key())
    for keys, why in (
        ((fresh, fresh), "its two public keys are the same, or one of them is another node's"),
        ((fresh, mask_key), "its two public keys are the same, or one of them is another node's"),
        ((bytes(32), fresh), "one of its public keys is none"),
        ((fresh, bytes([1, *bytes(31)])), "one of its public keys is none"),
    ):
        with pytest.raises(ValueError, match=why):
            run.session.take_keys(2, *keys)
    assert run.session.mask_keys == {1: mask_key}


def test_who_deals_several_others_wrong_shares_is_named() -> None:
    run = Run()
    run.deal()
    wrong = dict.fromkeys(run.session.mask_keys, bytes(32))
    run.session.dealt[4] = replace(run.session.dealt[4], seed_tags=wrong)
    run.mask()
    alive = sorted(run.masked)
    for place in (1, 2):
        assert run.session.suspects() == {}
        with pytest.raises(ValueError, match="its share of the seed of node 13 is not the one that it was"):
            run.session.take_told(place, run.members[place].tell(alive, []), alive)
    said = "node 13 has dealt other shares than it said, by nodes [10, 11]"
    assert run.session.suspects() == {4: said}


def test_a_node_sees_where_the_server_tells_other_keys() -> None:
    run = Run()
    run.deal()
    fresh = Run()
    own = fresh.members[1].public_keys()
    mask_keys, seal_keys = (
        {**keys, 1: own[place]} for place, keys in enumerate((run.session.mask_keys, run.session.seal_keys))
    )
    for given, why in (
        ((run.session.mask_keys, run.session.seal_keys), "another key than this node's own"),
        (({**mask_keys, 2: mask_keys[3]}, seal_keys), "two of the keys that the server tells are the same"),
        (({1: own[0]}, {1: own[1]}), "1 nodes have told their keys, and it takes 3"),
        (({**mask_keys, 9: b""}, seal_keys), "must be told of the session's places"),
    ):
        with pytest.raises(ValueError, match=why):
            fresh.members[1].deal(*given)
    assert fresh.members[1].stage == "begun"


def test_a_member_is_remembered_as_it_was() -> None:
    run = Run()
    for stage in (lambda: None, run.deal, run.mask):
        stage()
        for member in run.members.values():
            assert wire.from_memory(wire.to_memory(member)) == member


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"seeds-places": [1, 1], "seeds": [bytes(32)] * 2}, "each once"),
        ({"seeds-places": [1], "seeds": []}, "its seeds must be bytes for each of 1 places"),
        ({"seeds-places": [1], "seeds": [bytes(31)]}, "its seeds must be bytes for each of 1 places"),
        ({"seeds-places": [-1], "seeds": [bytes(32)]}, "must be a list of whole numbers"),
        ({"seeds": [bytes(32)]}, "its seeds-places must be a list of whole numbers, got None"),
    ],
)
def test_what_is_told_is_read_by_type(record: dict[str, list[int] | list[bytes]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        wire.told_of(ConfigRecord(record))  # type: ignore[arg-type]
