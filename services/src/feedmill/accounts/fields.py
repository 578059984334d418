"""Which secrets an account has at which venue, and reading them from text: pure.

Messages name fields, never values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import SecretStr

from feedmill.accounts.sealing import MAX_SECRET_BYTES

API_KEY, API_SECRET, PRIVATE_KEY, PASSPHRASE = "apiKey", "apiSecret", "privateKey", "passphrase"
KNOWN = (API_KEY, API_SECRET, PRIVATE_KEY, PASSPHRASE)
_ED25519 = frozenset((("binance", "Spot"), ("binance", "UsdM")))
"""Markets that take an Ed25519 key instead of a shared secret."""
_PRINTABLE = re.compile(r"[!-~]+")

Secrets = Mapping[str, SecretStr]


class SecretsError(ValueError):
    """Secrets are missing or not of their form."""


def check(exchange: str, market: str, secrets: Secrets) -> None:
    """Raises SecretsError unless ``secrets`` is what the market needs, no less and no more."""
    takes_key = (exchange, market) in _ED25519
    unknown = sorted(set(secrets) - set(KNOWN))
    if unknown:
        # A name that is not known may be a value in the wrong place: how many is all that is said.
        raise SecretsError(f"{len(unknown)} names are not known: write {', '.join(KNOWN)}")
    if API_KEY not in secrets:
        raise SecretsError(f"{API_KEY} is missing: it is the key (Deribit: client id) that the exchange shows you")
    if API_SECRET in secrets and PRIVATE_KEY in secrets:
        raise SecretsError(f"{API_SECRET} and {PRIVATE_KEY} are both given: keep the one that belongs to the key")
    if PRIVATE_KEY in secrets and not takes_key:
        raise SecretsError(f"{PRIVATE_KEY}: {exchange} {market} is used with {API_SECRET} here: give that instead")
    if API_SECRET not in secrets and PRIVATE_KEY not in secrets:
        also = f", or {PRIVATE_KEY} for an Ed25519 key" if takes_key else ""
        raise SecretsError(f"{API_SECRET} is missing{also}")
    if PASSPHRASE in secrets:
        raise SecretsError(f"{PASSPHRASE}: {exchange} {market} has none: leave it out")
    for name, secret in secrets.items():
        value = secret.get_secret_value()
        if len(value.encode()) > MAX_SECRET_BYTES:
            raise SecretsError(f"{name} is longer than {MAX_SECRET_BYTES} bytes")
        if name == PRIVATE_KEY:
            _check_pem(value)
        elif not _PRINTABLE.fullmatch(value):
            raise SecretsError(f"{name} is empty, or has white space or letters other than ASCII: copy it again")


def _check_pem(value: str) -> None:
    form = "write the PEM text of an Ed25519 private key without a password (-----BEGIN PRIVATE KEY-----)"
    try:
        key = load_pem_private_key(value.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SecretsError(f"{PRIVATE_KEY} cannot be read: {form}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SecretsError(f"{PRIVATE_KEY} is a key of another kind: {form}")


def parse(text: str, source: str) -> dict[str, SecretStr]:
    """Secrets from a JSON object, or from lines NAME=VALUE. ``source`` names the text. Raises SecretsError."""
    form = f'write lines NAME=VALUE ({", ".join(KNOWN)}), or one JSON object {{"{API_KEY}": "...", ...}}'
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise SecretsError(f"{source}: is not JSON: {form}") from None
        if not all(isinstance(value, str) for value in found.values()):
            raise SecretsError(f"{source}: each value must be a text: {form}")
        return {str(name): SecretStr(value) for name, value in found.items()}
    secrets: dict[str, SecretStr] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or name.startswith("#"):
            continue
        if not equals or name not in KNOWN:
            raise SecretsError(f"{source}, line {number}: does not begin with a known name and =: {form}")
        if name in secrets:
            raise SecretsError(f"{source}, line {number}: {name} stands there twice: keep one")
        secrets[name] = SecretStr(value.replace("\\n", "\n") if name == PRIVATE_KEY else value)
    return secrets
