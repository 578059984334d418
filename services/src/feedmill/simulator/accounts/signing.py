"""Checking signatures as the venues do, with the real algorithms; comparisons take constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def hmac_ok(secret: str, payload: str, given: str) -> bool:
    """HMAC-SHA256 in hex, in either case."""
    wanted = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted.encode(), given.lower().encode())


def ed25519_ok(key: Ed25519PublicKey, payload: str, given: str) -> bool:
    """Ed25519 in base64."""
    try:
        key.verify(base64.b64decode(given, validate=True), payload.encode())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
