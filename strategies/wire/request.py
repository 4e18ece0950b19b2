"""The client request: what the server asks of one client, and how the requests of a node travel."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_origin

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from strategies.rule import Arrays, aux_arrays, split_aux
from strategies.wire.arrays import tensor_view, views
from strategies.wire.records import pack, records_of, unpack
from strategies.wire.saved_state import SavedState, pack_states, unpack_states

ROUND = "round"
"""Key of the record that holds the RoundInfo."""
FIXED = "fixed"
"""Key of the record of weights that nobody trains and clients cannot build; strategies never see it."""
STATISTICS = "statistics"
"""Key of the record of what no optimizer trains, and what is averaged beside the strategy."""


STATES = "states"
"""Key of the record that says which states the server counts on."""


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
                f"a request's round must hold {wanted}, got {dict(record)}: "
                "do server and nodes have the same polyfed?"
            )
        return RoundInfo(**values)  # type: ignore[arg-type]


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
    return content


def states_of(content: RecordDict) -> dict[int, SavedState] | None:
    """Return client -> the state that the server counts on; None where it does not say."""
    return unpack_states(str(content.config_records[STATES][STATES])) if STATES in content else None


def info_of(content: RecordDict) -> RoundInfo:
    """Return what a message says to all of its clients."""
    return RoundInfo.from_config(content.config_records[ROUND])


def unpack_requests(content: RecordDict) -> tuple[RoundInfo, list[ClientRequest]]:
    """Return the round and the requests of `pack_requests`, by client number.

    Weights and words that clients share are decoded once, and are the same objects in their requests.
    """
    info = info_of(content)
    fixed, statistics = (
        _decode(content.array_records[key]) if key in content else {} for key in (FIXED, STATISTICS)
    )
    decoded: dict[int, tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]] = {}
    requests = []
    for client, records in unpack(content):
        (record,) = records_of(records, ArrayRecord)
        (config,) = records_of(records, ConfigRecord)
        if id(record) not in decoded:
            decoded[id(record)] = split_aux(_decode(record))
        weights, aux = decoded[id(record)]
        requests.append(ClientRequest(client, info, weights, aux, fixed, config, statistics))
    return info, requests


def _decode(record: ArrayRecord) -> dict[str, Tensor]:
    return {name: tensor_view(array) for name, array in views(record).items()}
