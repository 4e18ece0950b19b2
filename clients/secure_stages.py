"""A node's part in secure aggregation: what it answers where it does not train, and what it remembers.

It imports no torch, so that a process of its own answers soon; see clients/masking.py for the training.

The keys and shares of a session lie in Flower's context, in the memory of the SuperNode, and die with it.
What must outlive it is which sums were opened: one of other nodes or clients in the same round would tell
their difference. That lies beside the clients' state on the node's disk.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from flwr.app import ConfigRecord, Context, RecordDict

from clients.node_config import NodeConfig
from models.core.errors import UserError
from models.core.tracebacks import line_of
from strategies.secure import wire
from strategies.secure.member import Member
from strategies.wire.plan import record_at

MEMORY = "secure-session"
"""Key in the context's state."""
ROUND, FOLDER, CLIENTS = "round", "folder", "clients"
"""What is kept beside the session: which round it is of, where client state lies, who is in the sum."""
LAST_ROUND = 10**9
"""No run has more rounds."""


def is_secure(content: RecordDict) -> bool:
    """Return whether a message belongs to a session."""
    return wire.SECURE in content


def answer_stage(content: RecordDict, context: Context) -> RecordDict:
    """Return what a node tells at a stage other than training."""
    try:
        record = wire.record_of(content)
        stage = record.get(wire.STAGE)
        if stage == wire.BEGIN:
            return _begin(record, context)
        if stage == wire.DEAL:
            return _deal(record, context)
        if stage == wire.OPEN:
            return _open(record, context)
        raise ValueError(f"a stage must be {wire.BEGIN}, {wire.DEAL} or {wire.OPEN}, got {stage!r:.40}")
    except Exception as error:  # a server may send anything
        return wire.told(error=str(error) if type(error) in (ValueError, UserError) else line_of(error))


def _begin(record: ConfigRecord, context: Context) -> RecordDict:
    node = NodeConfig.from_flower(context.node_config)
    number, _ = node.place
    numbers = wire.numbers(record, "numbers")
    threshold = wire.whole(record, "threshold", 1)
    server_round = wire.whole(record, ROUND, 0, LAST_ROUND)
    member = Member.begin(wire.text(record, wire.SESSION), numbers, number, threshold, node.secure_nodes or 2)
    remember(context, member, server_round)
    mask_key, seal_key = member.public_keys()
    return wire.told(mask_key=mask_key, seal_key=seal_key)


def _deal(record: ConfigRecord, context: Context) -> RecordDict:
    member, kept = remembered(context, record)
    dealt = member.deal(wire.places(record, "mask_keys"), wire.places(record, "seal_keys"))
    remember(context, member, wire.whole(kept, ROUND, 0, LAST_ROUND))
    return wire.told(**wire.flat(dealt))


def _open(record: ConfigRecord, context: Context) -> RecordDict:
    member, kept = remembered(context, record)
    alive, dead = wire.numbers(record, "alive"), wire.numbers(record, "dead")
    told = member.tell(alive, dead)
    clients = wire.numbers(kept, CLIENTS)
    opened = Opened(Path(str(kept[FOLDER])), member.numbers[member.place - 1])
    opened.note(
        wire.whole(kept, ROUND, 0, LAST_ROUND), [member.numbers[place - 1] for place in alive], clients
    )
    del context.state[MEMORY]  # nobody gets other shares of this session
    return wire.told(**wire.flat(told))


class Opened:
    """Remembers, on disk, of whom the sums were that a node has helped to open in a run."""

    def __init__(self, folder: Path, number: int) -> None:
        self.path = folder / f"opened-sums-{number}.json"

    def note(self, server_round: int, nodes: Sequence[int], clients: Sequence[int]) -> None:
        """Note a sum of these nodes, and of these clients here; raise ValueError where another was opened.

        A run that is resumed does rounds again. Training repeats itself: the same sum tells nothing new.
        """
        sums: dict[str, str] = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        of = hashlib.sha256(json.dumps([sorted(nodes), sorted(clients)]).encode()).hexdigest()
        if sums.setdefault(str(server_round), of) != of:
            raise ValueError(
                f"a sum of round {server_round} was opened before, of other nodes or clients: a second one "
                "would tell their difference"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(sums), encoding="utf-8")
        partial.replace(self.path)


def remember(
    context: Context, member: Member, server_round: int, folder: str = "", clients: Sequence[int] = ()
) -> None:
    """Keep a session for the next message."""
    memory = wire.to_memory(member)
    memory[ROUND], memory[FOLDER], memory[CLIENTS] = server_round, folder, list(clients)
    context.state[MEMORY] = memory


def remembered(context: Context, record: ConfigRecord) -> tuple[Member, ConfigRecord]:
    """Return the node's session, and what is kept beside it; raise ValueError where there is no such one."""
    session = wire.text(record, wire.SESSION)
    if MEMORY not in context.state:
        raise ValueError("it has no session: it was started anew since, or has ended this one")
    memory = record_at(context.state, MEMORY, ConfigRecord)
    member = wire.from_memory(memory)
    if member.session != session:
        raise ValueError("it is in another session: it has begun one since")
    return member, memory
