"""A node's part in secure aggregation: what it answers where it does not train, and what it remembers.

It imports no torch, so that a process of its own answers soon; see clients/masking.py for the training.

The keys and shares of a session lie in Flower's context, in the memory of the SuperNode, and die with it.
What must outlive it is of whom the sums were that this node has masked and opened: one of other nodes or
clients in the same round would tell their difference. That lies beside the clients' state on the node's disk.
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
MOST_CLIENTS = 2**53
"""No node has more."""


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
    clients = wire.numbers(kept, CLIENTS, MOST_CLIENTS)
    opened = Opened(Path(str(kept[FOLDER])), member.numbers[member.place - 1])
    opened.note(
        wire.whole(kept, ROUND, 0, LAST_ROUND), [member.numbers[place - 1] for place in alive], clients
    )
    del context.state[MEMORY]  # nobody gets other shares of this session
    return wire.told(**wire.flat(told))


class Opened:
    """Remembers, on disk, of whom the sums were that a node has masked, and helped to open, in a run.

    A run that is resumed does rounds again. Training repeats itself: the same sum tells nothing new.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.path = folder / f"opened-sums-{number}.json"

    def note_masked(self, server_round: int, clients: Sequence[int]) -> None:
        """Note of which clients here a vector is about to leave; raise ValueError where others' has left.

        Once it is on its way the others may open its sum, whether or not this node is asked to.
        """
        self._note(
            f"{server_round} masked",
            [sorted(clients)],
            f"a vector of round {server_round} was masked before, of other clients of this node: a second "
            "one could tell their difference",
        )

    def note(self, server_round: int, nodes: Sequence[int], clients: Sequence[int]) -> None:
        """Note a sum of these nodes, and of these clients here; raise ValueError where another was opened."""
        self._note(
            str(server_round),
            [sorted(nodes), sorted(clients)],
            f"a sum of round {server_round} was opened before, of other nodes or clients: a second one "
            "would tell their difference",
        )

    def _note(self, key: str, of: list[list[int]], refusal: str) -> None:
        notes = self._read()
        digest = hashlib.sha256(json.dumps(of).encode()).hexdigest()
        if notes.setdefault(key, digest) != digest:
            raise ValueError(refusal)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(notes), encoding="utf-8")
        partial.replace(self.path)

    def _read(self) -> dict[str, str]:
        if not self.path.exists():
            return {}
        try:
            notes = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError:
            notes = None
        if not (isinstance(notes, dict) and all(isinstance(each, str) for each in notes.values())):
            raise ValueError(
                f"{self.path} must hold a JSON object of texts, and is broken, so it is not known which sums "
                "were opened: put it back, or start another run"
            )
        return notes


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
