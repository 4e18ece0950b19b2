"""Keys that two nodes share without anybody else, and what is done with them: sealing and masks.

X25519 (RFC 7748) agrees on a secret, HKDF (RFC 5869) makes a key of it for one purpose and session,
ChaCha20-Poly1305 (RFC 8439) seals, and the key stream of ChaCha20 is a mask.
"""

import secrets

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strategies.secure.modular import Limbs, add, subtract

KEY = 32
"""Bytes of a key, of either kind, and of a seed."""
NONCE = 12
BLOCK = 16_384
"""Numbers that are masked at once, so that they stay in the processor's cache."""
MASKING, SEALING, SEEDING = b"polyfed mask", b"polyfed seal", b"polyfed seed"
"""Purposes of keys."""


def new_key() -> bytes:
    """Return a private key."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> bytes:
    """Return the public half of a key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def shared_key(private: bytes, public: bytes, purpose: bytes, session: bytes) -> bytes:
    """Return what the owners of two keys have in common; raise ValueError for a key that is none."""
    own = X25519PrivateKey.from_private_bytes(private)
    agreed = own.exchange(X25519PublicKey.from_public_bytes(public))
    both = b"".join(sorted([own.public_key().public_bytes_raw(), public]))
    return HKDF(SHA256(), KEY, salt=session, info=purpose + both).derive(agreed)


def check_public(public: bytes) -> None:
    """Raise ValueError for a public key that agrees on no secret with anybody (RFC 7748, section 6.1)."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ValueError("one of its public keys is none: it agrees on no secret with anybody's") from error


def seed_key(seed: bytes, session: bytes) -> bytes:
    """Return the key of the mask that a node adds by itself."""
    return HKDF(SHA256(), KEY, salt=session, info=SEEDING).derive(seed)


def seal(key: bytes, text: bytes, way: bytes) -> bytes:
    """Encrypt a text; `way` says from whom to whom it goes, and what opens it must say the same."""
    nonce = secrets.token_bytes(NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, text, way)


def unseal(key: bytes, sealed: bytes, way: bytes) -> bytes:
    """Decrypt what `seal` gave; raise ValueError where somebody has changed it."""
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:NONCE], sealed[NONCE:], way)
    except (InvalidTag, ValueError) as error:
        raise ValueError("it does not open: it was changed on its way, or is meant for another") from error


def put_mask(numbers: Limbs, key: bytes, *, off: bool = False) -> None:
    """Add the mask of a key to numbers modulo 2^128, or take it off."""
    stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    apply = subtract if off else add
    size = numbers.shape[1]
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        mask = np.frombuffer(stream.update(bytes(16 * (end - start))), "<u8").reshape(2, -1)
        apply(numbers[:, start:end], mask)
