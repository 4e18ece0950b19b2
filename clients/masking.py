"""The training of a node under secure aggregation: its clients' sum, masked, and nothing beside it."""

from collections.abc import Sequence
from pathlib import Path

from flwr.app import ConfigRecord, Context, RecordDict

from clients.node_config import NodeConfig
from clients.secure_stages import LAST_ROUND, ROUND, Opened, is_secure, remember, remembered
from models.core.errors import UserError
from strategies.secure import masked_reply, wire
from strategies.secure.fixed_point import LARGEST
from strategies.wire.reply import NodeReply
from strategies.wire.request import ClientRequest, RoundInfo

LONGEST_NAME = 200
MOST_NAMES = 1_000


def check_allowed(content: RecordDict, node: NodeConfig) -> None:
    """Raise UserError for work whose result the server would see, where the node's owner forbids it."""
    if node.secure_nodes and not is_secure(content):
        raise UserError(
            f"this node's owner lets it reply in sums of at least {node.secure_nodes} nodes alone "
            "(secure-nodes): set secure-aggregation = true"
        )


class Masking:
    """Masks what a node's clients have trained in one round."""

    def __init__(self, content: RecordDict, context: Context) -> None:
        """Take the others' shares; raise ValueError for what does not belong to the node's session."""
        record = wire.record_of(content)
        self.context, (self.member, kept) = context, remembered(context, record)
        if record.get(wire.STAGE) != wire.MASK:
            raise ValueError(f"a request for training must be of stage {wire.MASK}")
        self.server_round = wire.whole(kept, ROUND, 0, LAST_ROUND)
        self.names = _names(record)
        self.member.receive(wire.places(record, "sealed"))
        self.plain = RecordDict({key: each for key, each in content.items() if key != wire.SECURE})
        """The request without what says of the session."""

    def reply(
        self, reply: NodeReply, info: RoundInfo, folder: Path, requests: Sequence[ClientRequest]
    ) -> RecordDict:
        """Return the masked reply; of a node whose clients have all failed, who they are."""
        if info.server_round != self.server_round:
            raise ValueError(f"a session of round {self.server_round} masks no round {info.server_round}")
        if not reply.replies:
            return reply.pack()
        times = {each.client: each.times for each in requests}
        most = LARGEST / len(self.member.numbers)
        layout, vector = masked_reply.vector_of(reply, lambda client: times[client], self.names, most)
        clients = sorted(each.client for each in reply.replies)
        # Before there is a vector: another one may be refused here alone, as the others do not know of whom
        # this one is.
        own = self.member.numbers[self.member.place - 1]
        Opened(folder, own).note_masked(self.server_round, clients)
        self.member.mask(vector)
        remember(self.context, self.member, self.server_round, str(folder), clients)
        return masked_reply.pack(reply, layout, vector)


def _names(record: ConfigRecord) -> list[str]:
    names = record.get("metrics")
    if not (
        isinstance(names, list)
        and len(names) <= MOST_NAMES
        and all(isinstance(name, str) and len(name) <= LONGEST_NAME for name in names)
    ):
        raise ValueError(f"metrics must be at most {MOST_NAMES} names, got {names!r:.80}")
    return list(dict.fromkeys(map(str, names)))
