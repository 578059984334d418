"""API keys of the simulated accounts: made from the seed, with permissions, addresses and an end; rotated on demand."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from feedmill.simulator.accounts.model import Account
from feedmill.simulator.accounts.signing import ed25519_ok, hmac_ok

_LETTERS = string.ascii_letters + string.digits
NEVER = 1 << 62


@dataclass(slots=True)
class ApiKey:
    """``kind``: hmac | ed25519. Of Deribit ``id`` is the client id. Nothing here shows a secret in its repr."""

    account: str
    kind: str
    id: str
    created_ms: int
    secret: str = field(default="", repr=False)
    private: Ed25519PrivateKey | None = field(default=None, repr=False)
    withdraw: bool = False
    ips: tuple[str, ...] = ()
    """Addresses the key may be used from; empty = all."""
    until_ms: int = NEVER
    """Refused from then on."""
    uses: int = 0
    refused: int = 0

    def allowed(self, address: str, now_ms: int) -> bool:
        """Asked once a use, which is counted."""
        may = now_ms < self.until_ms and (not self.ips or address in self.ips)
        self.uses += may
        self.refused += not may
        return may

    def signed(self, payload: str, signature: str) -> bool:
        if self.private is not None:
            public: Ed25519PublicKey = self.private.public_key()
            return ed25519_ok(public, payload, signature)
        return hmac_ok(self.secret, payload, signature)

    def written(self) -> dict[str, Any]:
        """For the file of keys: the names that the credentials of an account have."""
        body: dict[str, Any] = {"account": self.account, "type": self.kind, "apiKey": self.id}
        if self.private is None:
            return body | {"apiSecret": self.secret}
        pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return body | {"privateKey": pem.decode()}


class KeyRing:
    """All keys of a venue. ``kinds``: what each account gets."""

    def __init__(self, accounts: Iterable[Account], seed: int, venue: str, now_ms: int) -> None:
        self._seed = seed
        self._venue = venue
        self._versions: dict[tuple[str, str], int] = {}
        self.by_id: dict[str, ApiKey] = {}
        self.kinds = ("hmac",) if venue.startswith("deribit") else ("hmac", "ed25519")
        for account in accounts:
            for kind in self.kinds:
                self._add(account.name, kind, now_ms)

    def of(self, account: str) -> list[ApiKey]:
        return [key for key in self.by_id.values() if key.account == account]

    def rotate(self, account: str, now_ms: int, until_ms: int) -> list[ApiKey]:
        """New keys for ``account``, with the rights of those before; these are refused from ``until_ms`` on."""
        made = []
        for old in self.of(account):
            if old.until_ms <= now_ms:
                continue
            old.until_ms = min(old.until_ms, until_ms)
            new = self._add(account, old.kind, now_ms)
            new.withdraw, new.ips = old.withdraw, old.ips
            made.append(new)
        return made

    def written(self, now_ms: int) -> list[dict[str, Any]]:
        """The keys that are not refused at ``now_ms``; of two of a kind the newest stands last."""
        return [key.written() for key in self.by_id.values() if now_ms < key.until_ms]

    def _add(self, account: str, kind: str, now_ms: int) -> ApiKey:
        version = self._versions[account, kind] = self._versions.get((account, kind), 0) + 1
        what = f"{self._seed}:{self._venue}:{account}:{kind}:{version}"
        deribit = self._venue.startswith("deribit")
        key = ApiKey(account, kind, _text(what + ":id", 8 if deribit else 64), now_ms)
        if kind == "hmac":
            key.secret = _text(what + ":secret", 43 if deribit else 64)
        else:
            key.private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(what.encode()).digest())
        self.by_id[key.id] = key
        return key


def _text(what: str, length: int) -> str:
    """Letters and digits that look random and depend on ``what`` alone."""
    digest = hashlib.shake_256(what.encode()).digest(length)
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest)
