"""What can be checked under secure aggregation: who answers, the form of a masked vector, and the sum of all.

Whether one node's numbers are finite, or huge, or its own, no server can see. Nodes check their own clients.
"""

from flwr.app import RecordDict

from server.metric_checks import Expected
from server.reply_checks import Asked, check_answered, check_aux
from server.sum_checks import check_shapes
from strategies.secure import masked_reply
from strategies.secure.masked_reply import MASKED, Layout, Together
from strategies.secure.modular import Limbs
from strategies.secure.wire import SECURE
from strategies.wire.reply import ClientReply, NodeReply


def checked_masked(content: RecordDict, asked: Asked) -> tuple[NodeReply, tuple[Layout, Limbs] | None]:
    """Return what a node replies, and its masked vector; None where all of its clients have failed.

    Raises ValueError for anything else than was asked, and for what is not masked.
    """
    open_part = RecordDict({key: each for key, each in content.items() if key not in (SECURE, MASKED)})
    reply = NodeReply.unpack(open_part, len(asked.clients))
    check_answered(reply, asked)
    if reply.total is not None or reply.statistics is not None or any(map(_tells, reply.replies)):
        raise ValueError("it sends what is not masked, and was asked for a masked sum alone")
    if not reply.replies:
        return reply, None
    layout, vector = masked_reply.unpack(content)
    shapes, statistics = dict(layout.shapes), dict(layout.statistics)
    check_shapes(shapes, asked.forms)
    check_aux(shapes, asked.expected)
    if statistics != {name: form.shape for name, form in asked.statistics.items()}:
        raise ValueError(
            f"it masks statistics {sorted(statistics)}, and the model has {sorted(asked.statistics)}"
        )
    return reply, (layout, vector)


def check_together(together: Together, clients: int, weighted_by: str, expected: Expected) -> None:
    """Raise ValueError for a sum that this many clients cannot have told, by what each of them may."""
    if together.num_examples > clients * expected.max_examples:
        raise ValueError(
            f"{clients} clients say {together.num_examples} examples together, and max-examples is "
            f"{expected.max_examples:g} for each"
        )
    for name in {*expected.weights, *expected.losses, *expected.ranges} - {"", weighted_by}:
        if name not in together.metrics:
            raise ValueError(f"no client tells {name!r}, which the strategy computes with")
    for name, (least, most) in expected.ranges.items():
        mean = together.weight / clients if name == weighted_by else together.metrics[name]
        if not least - 1e-9 <= mean <= most + 1e-9:
            raise ValueError(f"{name} must be {least:g} to {most:g}, and is {mean:g} on average")


def _tells(each: ClientReply) -> bool:
    metrics, others = each.parts()
    return bool(metrics or others)
