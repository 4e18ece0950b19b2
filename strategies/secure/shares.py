"""Shares of a secret (Shamir 1979), of which a threshold gives it back and fewer tell nothing.

The polynomials are pycryptodome's, over GF(2^128), so a secret of 32 bytes is shared as two halves. Who deals
shares tells the server a tag of each: a hash, which tells nothing of a share that nobody can guess, and by
which a share that was changed is known.
"""

from collections.abc import Mapping
from hashlib import sha256

from Crypto.Protocol.SecretSharing import Shamir

HALF = 16
SHARE = 2 * HALF
"""Bytes of a share, as of a secret."""


def deal(secret: bytes, threshold: int, nodes: int) -> dict[int, bytes]:
    """Return place -> share, for the places from 1 to `nodes`."""
    halves = [Shamir.split(threshold, nodes, secret[at : at + HALF], ssss=False) for at in (0, HALF)]
    return {place: first + second for (place, first), (_, second) in zip(*halves, strict=True)}


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret; raise ValueError for fewer shares than it takes."""
    if len(shares) < threshold:
        raise ValueError(f"it takes {threshold} shares to open a secret, and there are {len(shares)}")
    taken = sorted(shares.items())[:threshold]
    halves = ([(place, share[at : at + HALF]) for place, share in taken] for at in (0, HALF))
    return b"".join(Shamir.combine(half, ssss=False) for half in halves)


def tag(session: bytes, owner: int, holder: int, what: str, share: bytes) -> bytes:
    """Return the hash by which a share of one node's secret is known that another one holds."""
    return sha256(b"%b %d %d %b %b" % (session, owner, holder, what.encode(), share)).digest()
