"""The client request: what the server asks of one client, and how the requests of a node travel.

A node reads a message as a whole before it does anything of it: what is not as it must be is a ValueError
that says what. Whether the arrays fit the node's model is for the node to see.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_origin

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from strategies.rule import Arrays, aux_arrays, split_aux
from strategies.wire.decoded import decoded
from strategies.wire.plan import Kind, Layout, read_groups, read_states, record_at
from strategies.wire.records import PLAN, pack
from strategies.wire.saved_state import SavedState, pack_states
from strategies.wire.vocabulary import VOCABULARY, Vocabulary

ROUND = "round"
"""Key of the record that holds the RoundInfo."""
FIXED = "fixed"
"""Key of the record of weights that nobody trains and clients cannot build; strategies never see it."""
STATISTICS = "statistics"
"""Key of the record of what no optimizer trains, and what is averaged beside the strategy."""
STATES = "states"
"""Key of the record that says which states the server counts on."""
LAST_ROUND = 10**9
"""No run has more rounds."""
LONGEST_TEXT = 4096
"""Characters of a text that the server says to all clients, as a path or the name of a rule."""
MOST_RULES = 100


@dataclass(frozen=True)
class RoundInfo:
    """What polyfed itself says to all clients of a round, whatever the strategy says beside it."""

    server_round: int
    """Number of the round, from 1 on."""
    restorable_round: int
    """Round of the oldest checkpoint that a resume may go back to; clients keep the states since then."""
    state_path: str
    """Where clients keep their state: absolute, or a name below the node's own folder."""
    weighted_by: str = ""
    """Metric by which a node weights and adds up its clients' updates; "" is that it replies each of them."""
    rules: tuple[str, ...] = ()
    """Local rules of the shared model, in order, as "module:Class"."""
    personal_rules: tuple[str, ...] = ()
    """Local rules of the clients' personal models; () is that they keep none."""
    received_losses: bool = False
    """Whether clients tell their losses at these weights, too."""
    seconds_left: float = math.inf
    """Seconds that a node has for its clients once it gets the message; it then answers for those that are
    done. No time of day, as the clocks of machines differ."""
    client_seconds: float = math.inf
    """Seconds that one client has of these; who takes longer is tried once more, and has then failed."""
    repeated: tuple[int, ...] = ()
    """Clients that count several times, as often as they stand here and once more."""

    def to_config(self) -> ConfigRecord:
        """Return the record that travels."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return ConfigRecord(
            {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        )

    @staticmethod
    def from_config(record: ConfigRecord) -> "RoundInfo":
        """Return what `to_config` wrote; raise ValueError for anything else."""
        kinds: dict[str, Any] = {
            field.name: get_origin(field.type) or field.type for field in fields(RoundInfo)
        }
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
        if {name: type(value) for name, value in values.items()} != kinds:
            wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
            raise ValueError(
                f"a request's round must hold {wanted}, got {str(dict(record))[:1000]}: "
                "do server and nodes have the same polyfed?"
            )
        info = RoundInfo(**values)  # type: ignore[arg-type]
        info.check()
        return info

    def check(self) -> None:
        """Raise ValueError for the first value that no server of polyfed sends."""
        texts = (self.state_path, self.weighted_by, *self.rules, *self.personal_rules)
        rounds = (self.server_round, self.restorable_round)
        fits = {
            "rounds of 0 to 1e9": all(0 <= number <= LAST_ROUND for number in rounds),
            "rules that are text": all(type(text) is str for text in texts),
            f"at most {MOST_RULES} rules": len(self.rules) + len(self.personal_rules) <= MOST_RULES,
            "seconds that are numbers": not math.isnan(self.seconds_left + self.client_seconds),
            "repeated clients that are numbers": all(type(each) is int for each in self.repeated),
        }
        if wrong := [what for what, holds in fits.items() if not holds]:
            raise ValueError(f"a request's round must hold {wrong[0]}, got {str(self)[:500]}")
        if any(len(text) > LONGEST_TEXT for text in texts):
            raise ValueError(f"a request's round must hold texts of at most {LONGEST_TEXT} characters")


@dataclass(frozen=True)
class ClientRequest:
    """What the server asks of one client."""

    client: int
    info: RoundInfo
    weights: Mapping[str, Tensor]
    """The parameters to start from."""
    aux: Mapping[str, Mapping[str, Tensor]]
    """What the strategy sends beside the weights: kind -> weight's name -> tensor."""
    fixed: Mapping[str, Tensor]
    """Weights that nobody trains and the client cannot build."""
    config: Mapping[str, object]
    """What the strategy says beside them."""
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    """What no optimizer trains, such as BatchNorm's running means, to start from."""

    @property
    def times(self) -> int:
        """How often the client counts."""
        return 1 + self.info.repeated.count(self.client)

    @property
    def given(self) -> dict[str, Tensor]:
        """All that the server gives of the model's state."""
        return {**self.weights, **self.statistics, **self.fixed}

    @property
    def received(self) -> Arrays:
        """The arrays that the strategy sent, by the names under which they travelled; they are read-only."""
        arrays = {name: tensor.numpy() for name, tensor in self.weights.items()}
        for kind, tensors in self.aux.items():
            arrays |= aux_arrays(kind, {name: tensor.numpy() for name, tensor in tensors.items()})
        for array in arrays.values():  # shared with other clients, and within one process with the server
            array.flags.writeable = False
        return arrays


def pack_requests(
    contents: Sequence[tuple[int, RecordDict]],
    info: RoundInfo,
    fixed: ArrayRecord | None = None,
    statistics: ArrayRecord | None = None,
    states: Mapping[int, SavedState] | None = None,
    vocabulary: Vocabulary | None = None,
) -> RecordDict:
    """Return the message to a node, of what the strategy addresses to its clients.

    `states` are what these clients have to go on from; those that are not in it have nothing.
    """
    content = pack(contents)
    content[ROUND] = info.to_config()
    for key, record in ((FIXED, fixed), (STATISTICS, statistics)):
        if record is not None:
            content[key] = record
    if states is not None:
        content[STATES] = ConfigRecord({STATES: pack_states(states)})
    if vocabulary is not None:
        content.update(vocabulary.pack())
    return content


def states_of(content: RecordDict) -> dict[int, SavedState] | None:
    """Return client -> the state that the server counts on; None where it does not say."""
    return read_states(record_at(content, STATES, ConfigRecord), STATES) if STATES in content else None


def info_of(content: RecordDict) -> RoundInfo:
    """Return what a message says to all of its clients."""
    return RoundInfo.from_config(record_at(content, ROUND, ConfigRecord))


def unpack_requests(content: RecordDict) -> tuple[RoundInfo, list[ClientRequest]]:
    """Return the round and the requests of `pack_requests`, by client number.

    Weights and words that clients share are decoded once, and are the same objects in their requests.
    Raises ValueError for a message that is not as `pack_requests` makes it.
    """
    info, layouts = info_of(content), read_groups(record_at(content, PLAN, ConfigRecord))
    named = {key for layout in layouts for key in layout.records.values()}
    if unknown := sorted(content.keys() - named - {PLAN, ROUND, FIXED, STATISTICS, STATES, VOCABULARY}):
        raise ValueError(f"a message holds the record {unknown[0][:100]!r}, of which its plan says nothing")
    fixed, statistics = (
        decoded(record_at(content, key, ArrayRecord)) if key in content else {} for key in (FIXED, STATISTICS)
    )
    read: dict[str, tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]] = {}
    requests = []
    for layout in layouts:
        arrays, words = (
            _of_one_kind(content, layout, ArrayRecord),
            _of_one_kind(content, layout, ConfigRecord),
        )
        if arrays not in read:
            read[arrays] = split_aux(decoded(record_at(content, arrays, ArrayRecord)))
        given = *read[arrays], fixed, record_at(content, words, ConfigRecord), statistics
        requests += [ClientRequest(client, info, *given) for client in layout.clients]
    return info, sorted(requests, key=lambda request: request.client)


def _of_one_kind(content: RecordDict, layout: Layout, kind: Kind) -> str:
    """Return the key of a client's one record of this kind."""
    keys = [key for key in layout.records.values() if isinstance(content.get(key), kind)]
    if len(keys) != 1 or len(layout.records) != 2:
        found = {name: type(content.get(key)).__name__ for name, key in layout.records.items()}
        raise ValueError(
            f"a client is asked by one ArrayRecord and one ConfigRecord, and client {layout.clients[:1]} by "
            f"{str(found)[:200]}"
        )
    return keys[0]
