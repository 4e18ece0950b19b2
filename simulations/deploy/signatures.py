"""Whether a request is of a registered node, by its headers alone.

Flower looks at them too, and reads the whole body before.
"""

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterable
from datetime import datetime

from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

Headers = Iterable[tuple[bytes, bytes]]
"""Names, in lower case, and values."""


def signed_by(headers: Headers) -> bytes | None:
    """Return the public key by which a request is signed, as Flower checks it; None where it is not."""
    said = {name.decode("latin-1"): value for name, value in headers}
    try:
        public_key = b64decode(said[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
        signature = b64decode(said[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
        time = said[TIMESTAMP_HEADER]
        age = (now() - datetime.fromisoformat(time.decode("ascii"))).total_seconds()
        if not -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE:
            return None
        return public_key if verify_signature(bytes_to_public_key(public_key), time, signature) else None
    except (KeyError, ValueError, TypeError, AttributeError, binascii.Error):
        return None


def registered_in(app: object) -> Callable[[bytes], bool]:
    """Return what says whether a key is one of a node that is registered at a SuperLink."""

    def registered(public_key: bytes) -> bool:
        factory = getattr(getattr(app, "state", None), "linkstate_factory", None)
        return factory is not None and factory.state().get_node_id_by_public_key(public_key) is not None

    return registered
