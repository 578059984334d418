"""Signatures of the venues: pure functions of a secret and a text. Nothing here keeps or shows a secret."""

from __future__ import annotations

import base64
import hashlib
import hmac

from pydantic import SecretStr

from feedmill.exchanges.account_base import Credentials


def hmac_hex(secret: SecretStr, payload: str) -> str:
    """HMAC-SHA256 in lower-case hex."""
    return hmac.new(secret.get_secret_value().encode(), payload.encode(), hashlib.sha256).hexdigest()


def ed25519_base64(private_key: SecretStr, payload: str) -> str:
    """Ed25519 in base64. Raises ValueError (without the key) unless it is the PEM text of such a key."""
    # Here, since most processes that know venues sign nothing.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_key.get_secret_value().encode(), None)
    except (ValueError, TypeError):
        raise ValueError("privateKey is not the PEM text of a private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("privateKey is not an Ed25519 key")
    return base64.b64encode(key.sign(payload.encode())).decode()


def signature(credentials: Credentials, payload: str) -> str:
    """By whichever of the two the account has. Raises ValueError when it has neither."""
    if credentials.private_key is not None:
        return ed25519_base64(credentials.private_key, payload)
    if credentials.api_secret is not None:
        return hmac_hex(credentials.api_secret, payload)
    raise ValueError("the account has neither apiSecret nor privateKey")
