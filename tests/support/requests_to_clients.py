"""A client request, as it comes out of a message."""

from collections.abc import Mapping

from torch import Tensor

from strategies.wire.request import ClientRequest, RoundInfo


def request_of(weights: Mapping[str, Tensor], client: int = 0, server_round: int = 1) -> ClientRequest:
    """Return what the server asks of a client that it sends these weights."""
    info = RoundInfo(server_round, restorable_round=0, state_path="state")
    return ClientRequest(client, info, weights, aux={}, fixed={}, config={})
