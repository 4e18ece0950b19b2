"""The client reply: what one client answers, or why it failed, and how the replies of a node travel."""

import json
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from strategies.wire.arrays import hold, to_record, views
from strategies.wire.exact_sum import ExactSum
from strategies.wire.records import (
    LONGEST_TEXT,
    PLAN,
    Groups,
    groups_of,
    list_in,
    listed,
    num_value_bytes,
    pack,
    plan_of,
    records_of,
    unpack_groups,
)
from strategies.wire.reply_metrics import NUM_EXAMPLES, metrics_of, weight_among, weight_of
from strategies.wire.saved_state import SavedState, pack_states

ARRAYS, METRICS = "arrays", "metrics"
"""Keys of a client's weights and metrics."""
SUMS = "sums"
"""Key of what a client found on its own examples, metric -> [total, weight]."""
SUM, STATISTICS_SUM = "sum", "statistics-sum"
"""Prefixes of the records of a node's sums, of updates and of statistics."""
HIGH, LOW, STARTS, REST = "-high", "-low", "-starts", "-rest"
WEIGHTS, SHAPES = "-weights", "-shapes"
"""What follows the prefix: see `ExactSum`."""
UPDATES_IN_A_SUM = 2
"""Updates in float32 that are as large as one sum, which is mostly a float64 an element."""
LONGEST_ERROR = 1_000
"""Characters of the line that says why a client failed."""
LONGEST_TRACEBACK = 20_000
"""Characters of a traceback that travel; of a longer one, as its message may be, both ends."""
LARGEST_COUNT = 2.0**63
"""No node has worked for so many seconds, or sent so many bytes: files hold no larger whole numbers."""
FAILURES, SECONDS, CLIENT_BYTES, STATES = "failures", "seconds", "client-bytes", "states"
"""Keys in the plan, beside METRICS."""


class ClientReply:
    """What one client answers: its metrics, and its weights unless they are in the node's sum.

    A client of a sum tells its metrics alone, and Flower's records of them are made where somebody looks.
    """

    def __init__(self, client: int, content: RecordDict) -> None:
        """Take the client's records: its metrics, and its weights or what encodes them."""
        self.client = client
        self._content: RecordDict | None = content
        self._metrics: Mapping[str, Any] | None = None
        self._others: Mapping[str, Any] = {}

    @staticmethod
    def made(client: int, metrics: Mapping[str, Any] | None, others: Mapping[str, Any]) -> "ClientReply":
        """Return a reply of these metrics, where it has any, and other records."""
        reply = ClientReply(client, RecordDict())
        reply._content, reply._metrics, reply._others = None, metrics, others
        return reply

    @property
    def content(self) -> RecordDict:
        """The records."""
        if self._content is None:
            told = {} if self._metrics is None else {METRICS: MetricRecord({**self._metrics})}
            self._content = RecordDict({**told, **self._others})
        return self._content

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics."""
        if self._content is None and self._metrics is not None:
            return self._metrics
        return metrics_of(self.content)

    @property
    def sends_arrays(self) -> bool:
        """Whether there are arrays among the records."""
        others = self._others if self._content is None else self._content
        return any(isinstance(record, ArrayRecord) for record in others.values())

    def weight(self, weighted_by: str) -> float:
        """Return the metric `weighted_by`."""
        return weight_among(self.metrics, weighted_by)

    def parts(self) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
        """Return its metrics, and its other records: a record a client would be most of a message."""
        if self._content is None:
            return self._metrics, self._others
        others = {**self._content}
        metrics = others.pop(METRICS, None)
        return None if metrics is None else {**metrics}, others

    def __reduce__(self) -> tuple[Any, ...]:
        return ClientReply.made, (self.client, *self.parts())

    def __repr__(self) -> str:
        return f"ClientReply({self.client}, {self.content!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClientReply):
            return NotImplemented
        return self.client == other.client and self.content == other.content

    __hash__ = None  # type: ignore[assignment]  # as of what it holds


@dataclass(frozen=True)
class ClientFailure:
    """Why one client has no answer."""

    client: int
    error: str
    """One line."""
    traceback: str = ""
    """The whole traceback; "" where no exception of the client's is known."""
    node: int | None = None
    """The node that it lives on; None where it is not known."""

    def __post_init__(self) -> None:
        """Bound the line, and spell out what files cannot hold or terminals act on: nodes say anything."""
        line = " ".join(self.error.split())[: LONGEST_ERROR + 1]
        plain = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
        plain = plain if len(plain) <= LONGEST_ERROR else f"{plain[: LONGEST_ERROR - 4]} ..."
        object.__setattr__(self, "error", plain)
        if len(self.traceback) > LONGEST_TRACEBACK:
            half = LONGEST_TRACEBACK // 2 - 50
            left_out = f"\n... {len(self.traceback) - 2 * half} characters are left out ...\n"
            both_ends = self.traceback[:half] + left_out + self.traceback[-half:]
            object.__setattr__(self, "traceback", both_ends)

    @staticmethod
    def of(client: int, error: Exception) -> "ClientFailure":
        """Return the failure that an exception means."""
        try:
            said = str(error)
        except Exception:  # of the exception's own code
            said = "<its text cannot be had: __str__ raised>"
        whole = "".join(traceback.format_exception(error))
        return ClientFailure(client, f"{type(error).__name__}: {said}", whole)


@dataclass
class NodeReply:
    """Collects what the clients of a node answer to one message, and carries it to the server."""

    replies: list[ClientReply] = field(default_factory=list)
    failures: list[ClientFailure] = field(default_factory=list)
    states: dict[int, SavedState] = field(default_factory=dict)
    """What clients that replied have saved, for those that remember anything."""
    total: ExactSum | None = None
    """The clients' arrays, weighted and added up; the replies then hold none."""
    weighted_by: str = ""
    """The metric that weights them in the sum."""
    statistics: ExactSum | None = None
    """The clients' statistics, weighted by their examples and added up; None where the model has none."""
    seconds: float = 0.0
    """Time that the node computed."""
    client_bytes: int = 0
    """Size of what the clients sent, each for itself, before the node added anything up."""
    worker: int = 0
    """Which of the workers that together are one node has made it."""
    debug: bool = False
    """Whether a client's failure is raised, for a debugger, instead of collected."""

    @staticmethod
    def collecting(
        weighted_by: str,
        num_clients: int,
        updates_in_a_sum: float = UPDATES_IN_A_SUM,
        *,
        debug: bool = False,
    ) -> "NodeReply":
        """Return a collector for that many clients; `weighted_by` "" is that every reply travels by itself.

        A few clients' arrays are better sent as they are, as a sum is as large as `updates_in_a_sum` of them.
        """
        adds_up = weighted_by and num_clients > updates_in_a_sum
        return NodeReply(total=ExactSum() if adds_up else None, weighted_by=weighted_by, debug=debug)

    def add(
        self,
        client: int,
        content: RecordDict,
        arrays: Mapping[str, NDArray[np.generic]] | None = None,
        statistics: Mapping[str, NDArray[np.generic]] | None = None,
        times: int = 1,
        saved: SavedState | None = None,
        num_bytes: int | None = None,
    ) -> None:
        """Add a client's reply, which counts some times in sums.

        Its arrays are added up or copied at once, so they may be views. They count as `num_bytes` of what the
        client sends, where they would be encoded on their way.
        """
        if num_bytes is None:
            num_bytes = sum(array.nbytes for array in (arrays or {}).values())
        self.client_bytes += num_bytes + sum(array.nbytes for array in (statistics or {}).values())
        self.client_bytes += sum(num_value_bytes(record) for record in records_of(content, ArrayRecord))
        if arrays is not None and self.total is not None:
            for _ in range(times):  # not once with a larger weight, which would be rounded
                self.total.add(arrays, weight_of(content, self.weighted_by))
        elif arrays is not None:
            content[ARRAYS] = to_record(arrays)
        if statistics:
            self.statistics = self.statistics or ExactSum()
            for _ in range(times):
                self.statistics.add(statistics, weight_of(content, NUM_EXAMPLES))
        self.replies.append(ClientReply(client, content))
        if saved is not None:
            self.states[client] = saved

    def add_together(
        self,
        clients: Sequence[int],
        contents: Sequence[RecordDict],
        arrays: Mapping[str, NDArray[np.generic]],
    ) -> None:
        """Add the replies of clients that count once to the sum; the arrays have a row for each (R, ...)."""
        assert self.total is not None
        self.total.add_all(arrays, [weight_of(content, self.weighted_by) for content in contents])
        self.client_bytes += sum(array.nbytes for array in arrays.values())
        self.replies += map(ClientReply, clients, contents)

    def fail(self, client: int, error: Exception) -> None:
        """Add a client's failure."""
        if self.debug:
            raise error
        self.failures.append(ClientFailure.of(client, error))

    def pack(self) -> RecordDict:
        """Return the message to the server."""
        parts = [(reply.client, *reply.parts()) for reply in self.replies]
        content = pack([(client, RecordDict({**others})) for client, _, others in parts])
        plan = content.config_records[PLAN]
        plan[METRICS] = json.dumps([[client, metrics] for client, metrics, _ in parts])
        plan[FAILURES] = json.dumps([[each.client, each.error, each.traceback] for each in self.failures])
        plan[SECONDS], plan[CLIENT_BYTES] = self.seconds, self.client_bytes
        plan[STATES] = pack_states(self.states)
        if self.total is not None and self.replies:
            _pack_sum(content, SUM, self.total)
        if self.statistics is not None:
            _pack_sum(content, STATISTICS_SUM, self.statistics)
        return content

    @staticmethod
    def unpack(content: RecordDict, num_clients: int | None = None) -> "NodeReply":
        """Return what `pack` packed; raise ValueError for anything else.

        Of how many clients it may be bounds how much there is to read. What a single client says of itself
        is not looked at here.
        """
        plan = plan_of(content)
        said = sum(len(text) for text in plan.values() if isinstance(text, str))
        if num_clients is not None and said > LONGEST_TEXT * (num_clients + 1):
            raise ValueError(f"its plan has {said} characters, and {num_clients} clients have less to say")
        told, groups = _told(plan), groups_of(content)
        _check_records(content, plan, groups)
        replies = [_replied(client, told, records) for client, records in unpack_groups(content, groups)]
        return NodeReply(
            replies,
            [_failure(each) for each in list_in(plan, FAILURES)],
            dict(_state(each) for each in list_in(plan, STATES)),
            _unpack_sum(content, SUM),
            statistics=_unpack_sum(content, STATISTICS_SUM),
            seconds=float(_count(plan, SECONDS)),
            client_bytes=int(_count(plan, CLIENT_BYTES)),
        )

    @staticmethod
    def merged(parts: "Sequence[NodeReply]") -> "NodeReply":
        """Return the replies of workers that together are one node, and worked side by side."""
        whole = NodeReply()
        for part in parts:
            whole.replies += part.replies
            whole.failures += part.failures
            whole.states |= part.states
            whole.total = _added(whole.total, part.total)
            whole.statistics = _added(whole.statistics, part.statistics)
            whole.client_bytes += part.client_bytes
        return whole

    @staticmethod
    def of_failed_node(clients: Sequence[int], error: str, traceback: str = "") -> "NodeReply":
        """Return what befell each client of a node that has no answer."""
        return NodeReply(failures=[ClientFailure(client, error, traceback) for client in clients])

    def on_node(self, node: int) -> "NodeReply":
        """Return the same, with the failures on this node."""
        return replace(self, failures=[replace(each, node=node) for each in self.failures])


def _added(one: ExactSum | None, other: ExactSum | None) -> ExactSum | None:
    if one is None or other is None:
        return one or other
    one.merge(other)
    return one


def _told(plan: ConfigRecord) -> dict[Any, Any]:
    """Return client -> the metrics that it tells, whatever they are; None of one that tells none."""
    told: dict[Any, Any] = {}
    for each in list_in(plan, METRICS):
        match each:
            case [client, dict() | None as metrics] if type(client) is int and client not in told:
                told[client] = metrics
            case _:
                raise ValueError(f"it must tell each client's metrics once, got {each!r:.80}")
    return told


def _replied(client: int, told: Mapping[Any, Any], records: RecordDict) -> ClientReply:
    if client not in told:
        raise ValueError(f"it has records of client {client}, and no metrics")
    return ClientReply.made(client, told[client], dict(records))


def _failure(said: object) -> ClientFailure:
    match said:
        case [client, str(error), str(whole)]:
            return ClientFailure(client, error, whole)  # type: ignore[arg-type]  # which is compared with who was asked
    raise ValueError(f"a failure must be told as client, line and traceback, got {said!r:.80}")


def _state(said: object) -> tuple[int, SavedState]:
    match said:
        case [client, server_round, str(sha256)] if type(client) is int:
            return client, SavedState(server_round, sha256)  # type: ignore[arg-type]
    raise ValueError(f"a client's state must be told as client, round and hash, got {said!r:.80}")


def _check_records(content: RecordDict, plan: ConfigRecord, groups: Groups) -> None:
    """Raise ValueError for records that nothing in the plan speaks of."""
    named = {PLAN, *(key for _, names in groups for key in names.values())}
    named |= {prefix for prefix in (SUM, STATISTICS_SUM) if prefix + WEIGHTS in plan}
    if surplus := content.keys() - named:
        raise ValueError(f"it sends records that its plan says nothing of: {listed(sorted(surplus))}")


def _count(plan: ConfigRecord, key: str) -> float:
    """Return a number of the plan; raise ValueError for one that counts nothing."""
    value = plan.get(key)
    if type(value) not in (int, float) or not 0 <= value < LARGEST_COUNT:  # type: ignore[operator]
        raise ValueError(f"its {key} must be a number >= 0, got {value!r:.40}")
    return value  # type: ignore[return-value]


def _pack_sum(content: RecordDict, prefix: str, total: ExactSum) -> None:
    """Put a sum into a message, under keys with this prefix."""
    plan, (starts, low) = content.config_records[PLAN], total.low_parts()
    plan[prefix + WEIGHTS] = total.weights
    plan[prefix + SHAPES] = json.dumps([[name, shape] for name, shape in total.shapes.items()])
    content[prefix] = hold({HIGH: total.high, LOW: low, STARTS: starts, REST: total.rest})


def _unpack_sum(content: RecordDict, prefix: str) -> ExactSum | None:
    """Return the sum under these keys, None where there is none; raise ValueError for one that is no sum."""
    plan = plan_of(content)
    if prefix + WEIGHTS not in plan:
        return None
    weights, record = plan[prefix + WEIGHTS], content.get(prefix)
    if not (isinstance(weights, list) and all(type(weight) in (int, float) for weight in weights)):
        raise ValueError(f"its sum must be weighted by numbers, got {weights!r:.80}")
    if not (isinstance(record, ArrayRecord) and record.keys() == {HIGH, LOW, STARTS, REST}):
        raise ValueError(f"its sum must be of the arrays {HIGH}, {LOW}, {STARTS} and {REST}")
    parts, total = views(record), ExactSum()
    total.weights = [float(weight) for weight in weights]
    total.shapes = _shapes(list_in(plan, prefix + SHAPES))
    total.high, total.rest, low, starts = (parts[key] for key in (HIGH, REST, LOW, STARTS))
    _check_sum(total, low, starts)
    total.set_low_parts(starts, low)
    return total


def _shapes(said: list[Any]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for each in said:
        match each:
            case [str(name), list(axes)] if all(type(axis) is int and axis >= 0 for axis in axes):
                shapes[name] = tuple(axes)
            case _:
                raise ValueError(f"an array of its sum must have a name and a shape, got {each!r:.80}")
    return shapes


def _check_sum(total: ExactSum, low: NDArray[Any], starts: NDArray[Any]) -> None:
    """Raise ValueError for what is no sum."""
    size, rest = sum(map(math.prod, total.shapes.values())), total.rest
    parts = (total.high, low, rest)
    found = [(part.shape, str(part.dtype)) for part in (*parts, starts)]
    shapes = [(size,), low.shape[:1], (2, rest.size // 2), starts.shape[:1]]
    if found != list(zip(shapes, (*["float64"] * 3, "int64"), strict=True)):
        raise ValueError(f"its sum has parts of these shapes and types: {found}")
    # One pass for a sum; what is finite may still add up to something that is not.
    with np.errstate(over="ignore", invalid="ignore"):
        if not all(np.isfinite(part.sum()) or np.isfinite(part).all() for part in parts):
            raise ValueError("its sum is not finite")
    places = rest[0]
    if ((places < 0) | (places >= size) | (places != np.floor(places))).any():
        raise ValueError("its sum has places outside of it")
