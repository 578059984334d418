"""Envelope encryption of one secret: pure, no file and no database.

Each secret is sealed with a data key of its own (AES-256-GCM), which is wrapped by a key-encryption key. So a new
key-encryption key means wrapping 32 bytes a secret anew, and the secrets themselves are never opened for it. Both
blobs are bound to the place they are stored in: moved to another row they do not open. A message never says more than
the place and the id of the key.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from feedmill.accounts.keyring import Keyring

FORMAT = 1
"""12 bytes of random nonce, then AES-256-GCM ciphertext with its tag of 16 bytes; the same for both blobs."""
MAX_SECRET_BYTES = 16 * 1024
_NONCE = 12


class SealError(ValueError):
    """A secret cannot be sealed or opened; the message names place, key and remedy, never content."""


@dataclass(frozen=True, slots=True)
class Place:
    """The row a secret belongs to."""

    account: int
    venue: str
    """Exchange, market and environment: a secret is not given to another venue by changing the account's row."""
    field: str
    version: int

    def __str__(self) -> str:
        return f"account {self.account} ({self.venue}), {self.field} version {self.version}"

    def bound(self, what: str, *more: str) -> bytes:
        """Associated data. JSON of a list: no two places have the same bytes."""
        parts = ["feedmill", FORMAT, what, self.account, self.venue, self.field, self.version, *more]
        return json.dumps(parts, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is stored of a secret."""

    format: int
    key_id: str
    wrapped_key: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


def _encrypt(key: bytes, plain: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound)


def _decrypt(key: bytes, blob: bytes, bound: bytes) -> bytes | None:
    """None when key, content or place are not those it was made with."""
    if len(blob) < _NONCE + 16:
        return None
    try:
        return AESGCM(key).decrypt(blob[:_NONCE], blob[_NONCE:], bound)
    except InvalidTag:
        return None


def seal(ring: Keyring, place: Place, secret: str) -> Sealed:
    """Seal ``secret`` for ``place`` with a new data key, wrapped by the current key. Raises SealError."""
    plain = secret.encode()
    if not plain or len(plain) > MAX_SECRET_BYTES:
        raise SealError(f"{place}: a secret has 1 to {MAX_SECRET_BYTES} bytes, this one has {len(plain)}")
    data_key = AESGCM.generate_key(256)
    return Sealed(
        FORMAT,
        ring.current,
        _encrypt(ring.key(ring.current), data_key, place.bound("data-key", ring.current)),
        _encrypt(data_key, plain, place.bound("secret")),
    )


def _unwrap(ring: Keyring, place: Place, sealed: Sealed) -> bytes:
    if sealed.format != FORMAT:
        raise SealError(f"{place}: sealed in format {sealed.format}, this version reads {FORMAT}: upgrade feedmill")
    if sealed.key_id not in ring:
        raise SealError(
            f"{place}: wrapped by key {sealed.key_id!r}, the key file holds {', '.join(ring.ids)}: put that key back "
            "as a further line, then run feedmill accounts rewrap"
        )
    data_key = _decrypt(ring.key(sealed.key_id), sealed.wrapped_key, place.bound("data-key", sealed.key_id))
    if data_key is None or len(data_key) != 32:
        raise SealError(
            f"{place}: key {sealed.key_id!r} does not open it: that id names another key than the one it was wrapped "
            "by, or the row was changed or moved; put the right key back, or store the secret anew (rotate-key)"
        )
    return data_key


def open_sealed(ring: Keyring, place: Place, sealed: Sealed) -> str:
    """The secret. Raises SealError when anything of key, place or content is not what it was sealed with."""
    plain = _decrypt(_unwrap(ring, place, sealed), sealed.ciphertext, place.bound("secret"))
    if plain is None:
        raise SealError(
            f"{place}: the stored secret was changed or moved: store it anew (feedmill accounts rotate-key)"
        )
    return plain.decode()


def rewrap(ring: Keyring, place: Place, sealed: Sealed) -> Sealed:
    """The same ciphertext, its data key wrapped by the current key. Raises SealError."""
    data_key = _unwrap(ring, place, sealed)
    wrapped = _encrypt(ring.key(ring.current), data_key, place.bound("data-key", ring.current))
    return Sealed(sealed.format, ring.current, wrapped, sealed.ciphertext)
