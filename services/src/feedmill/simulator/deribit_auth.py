"""Deribit's public/auth: client credentials, client signature, refresh; tokens with scopes, sessions and an end."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from feedmill.simulator.accounts.keys import ApiKey
from feedmill.simulator.deribit_rpc import RpcError

_VALID_MS = 60_000
SESSIONS = 16
"""Tokens of a key of an account; one more ends the oldest."""
_KEPT = 1000
"""The same of a client without account, of which every receiver may have one."""
_WIDER = {"none": 0, "read": 1, "read_write": 2}


@dataclass(slots=True)
class Token:
    client: str
    account: str
    """Empty: a client without an account, for market data."""
    access: str
    refresh: str
    scope: str
    """As told to the client."""
    rights: Mapping[str, str]
    """trade | account | wallet -> none | read | read_write."""
    until_ms: int
    life_ms: int
    session: str
    """Name of the session; empty = the connection's."""
    connection: int | None
    """Number of the connection it dies with."""

    def valid(self, now_ms: int) -> bool:
        return now_ms < self.until_ms

    def may(self, needed: str) -> bool:
        what, _, level = needed.partition(":")
        return _WIDER[self.rights.get(what, "none")] >= _WIDER[level]

    def answer(self) -> dict[str, Any]:
        return {
            "access_token": self.access,
            "expires_in": self.life_ms // 1000,
            "refresh_token": self.refresh,
            "scope": self.scope,
            "token_type": "bearer",
            "sid": secrets.token_hex(8),
            "enabled_features": [],
        }


class Tokens:
    """``credentials``: client id -> secret of clients without account; ``keys``: client id -> key of an account.
    Secrets are compared in constant time and never shown."""

    def __init__(self, credentials: Mapping[str, str], keys: Mapping[str, ApiKey], life: float) -> None:
        self._credentials = dict(credentials)
        self._keys = keys
        self._life_ms = int(life * 1000)
        self._of: dict[str, list[Token]] = {}
        """Client id -> its tokens, oldest first."""
        self._by_text: dict[str, Token] = {}
        """Access and refresh tokens alike: they are random."""

    def grant(self, params: Mapping[str, Any], now_ms: int, address: str, connection: int | None) -> Token:
        """The token of public/auth. Raises RpcError 13004."""
        kind = params.get("grant_type")
        if kind == "refresh_token":
            given = str(params.get("refresh_token"))
            old = self._by_text.get(given)
            if old is None or old.refresh != given:
                raise _refused()
            self._usable(old.client, address, now_ms)
            self._drop(old)
            number = None if old.session else connection
            return self._make(old.client, old.scope, old.rights, old.session, old.life_ms, number, now_ms)
        client = str(params.get("client_id", ""))
        if kind == "client_credentials":
            self._check(str(params.get("client_secret", "")), self._usable(client, address, now_ms))
        elif kind == "client_signature":
            self._check_signature(params, self._usable(client, address, now_ms), now_ms)
        else:
            raise RpcError(-32602, "Invalid params", data={"param": "grant_type", "reason": "unknown"})
        scope, rights, session, life_ms = self._scope(client, str(params.get("scope") or ""))
        return self._make(client, scope, rights, session, life_ms, None if session else connection, now_ms)

    def signed(self, header: str, request: str, now_ms: int, address: str) -> Token:
        """Of one REST request: ``header`` follows ``deri-hmac-sha256``; ``request`` is method, URI and body, each
        with a newline after it. Raises RpcError 13004."""
        parts = dict(part.strip().split("=", 1) for part in header.split(",") if "=" in part)
        client = parts.get("id", "")
        secret = self._usable(client, address, now_ms)
        stamp = _fresh(parts.get("ts"), now_ms)
        wanted = _hmac(secret, f"{stamp}\n{parts.get('nonce', '')}\n{request}")
        self._check(parts.get("sig", ""), wanted if secret else "")
        key = self._keys.get(client)
        scope, rights, _, life_ms = self._scope(client, "")
        account = "" if key is None else key.account
        return Token(client, account, "", "", scope, rights, now_ms + life_ms, life_ms, "", None)

    def find(self, access: str, now_ms: int) -> Token | None:
        token = self._by_text.get(access)
        return token if token is not None and token.access == access and token.valid(now_ms) else None

    def closed(self, connection: int) -> None:
        """The connection ended, and what belonged to it."""
        self.end(lambda token: token.connection == connection)

    def end(self, which: Callable[[Token], bool]) -> int:
        """End the tokens for which ``which`` says so; how many."""
        gone = [token for tokens in self._of.values() for token in tokens if which(token)]
        for token in gone:
            self._drop(token)
        return len(gone)

    def _drop(self, token: Token) -> None:
        token.until_ms = 0
        self._of[token.client].remove(token)
        del self._by_text[token.access], self._by_text[token.refresh]

    def _make(
        self,
        client: str,
        scope: str,
        rights: Mapping[str, str],
        session: str,
        life_ms: int,
        number: int | None,
        now: int,
    ) -> Token:
        key = self._keys.get(client)
        account = "" if key is None else key.account
        access, refresh = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        token = Token(client, account, access, refresh, scope, rights, now + life_ms, life_ms, session, number)
        self._by_text[access] = self._by_text[refresh] = token
        tokens = self._of.setdefault(client, [])
        tokens.append(token)
        if len(tokens) > (SESSIONS if account else _KEPT):
            self._drop(tokens[0])
        return token

    def _scope(self, client: str, asked: str) -> tuple[str, dict[str, str], str, int]:
        """(scope told, rights, session name, life in ms): no more than the key may."""
        words = asked.split()
        session = next((word.partition(":")[2] for word in words if word.startswith("session:")), "")
        lives = [int(word[8:]) * 1000 for word in words if word.startswith("expires:") and word[8:].isdigit()]
        life_ms = min([*lives, self._life_ms])
        key = self._keys.get(client)
        if key is None:
            return asked or "connection mainaccount", {}, session, life_ms
        rights = {"account": "read", "trade": "read", "wallet": "read_write" if key.withdraw else "read"}
        wanted = dict(word.split(":", 1) for word in words if word.partition(":")[0] in rights)
        if wanted:
            rights = {
                what: min(level, wanted.get(what, "none"), key=lambda name: _WIDER.get(name, 0))
                for what, level in rights.items()
            }
        told = [f"{what}:{level}" for what, level in rights.items() if level != "none"]
        told += [f"session:{session}" if session else "connection", "mainaccount"]
        return " ".join(told), rights, session, life_ms

    def _usable(self, client: str, address: str, now_ms: int) -> str:
        """The client's secret, if it may be used from ``address`` now."""
        key = self._keys.get(client)
        if key is None:
            return self._credentials.get(client, "")
        if not key.allowed(address, now_ms):
            raise _refused()
        return key.secret

    def _check(self, given: str, wanted: str) -> None:
        if not wanted or not hmac.compare_digest(given.encode(), wanted.encode()):
            raise _refused()

    def _check_signature(self, params: Mapping[str, Any], secret: str, now_ms: int) -> None:
        stamp = _fresh(params.get("timestamp"), now_ms)
        text = f"{stamp}\n{params.get('nonce', '')}\n{params.get('data', '')}"
        wanted = _hmac(secret, text)
        self._check(str(params.get("signature", "")), wanted if secret else "")


def _hmac(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def _fresh(stamp: Any, now_ms: int) -> int:
    """The time of a signature, in ms, if it is less than a minute old. Raises RpcError 13004."""
    if isinstance(stamp, str) and stamp.isdigit():
        stamp = int(stamp)
    if not isinstance(stamp, int) or abs(now_ms - stamp) > _VALID_MS:
        raise _refused()
    return stamp


def _refused() -> RpcError:
    return RpcError(13004, "invalid_credentials", status=401)
