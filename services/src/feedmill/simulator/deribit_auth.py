"""Deribit's public/auth: client credentials, client signature, refresh."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from feedmill.simulator.deribit_rpc import RpcError

_VALID_MS = 60_000
_LIFE = 900
_KEPT = 1000
"""Refresh tokens remembered."""


class Tokens:
    """``credentials``: client id -> secret. Secrets are compared in constant time and never shown."""

    def __init__(self, credentials: Mapping[str, str]) -> None:
        self._credentials = dict(credentials)
        self._refresh: dict[str, str] = {}

    def grant(self, params: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
        """The result of public/auth. Raises RpcError 13004."""
        kind = params.get("grant_type")
        if kind == "refresh_token":
            if self._refresh.pop(str(params.get("refresh_token")), None) is None:
                raise RpcError(13004, "invalid_credentials", status=401)
        elif kind == "client_credentials":
            self._check(params, str(params.get("client_secret", "")), self._credentials.get(_client(params), ""))
        elif kind == "client_signature":
            self._check_signature(params, now_ms)
        else:
            raise RpcError(-32602, "Invalid params", data={"param": "grant_type", "reason": "unknown"})
        refresh = secrets.token_urlsafe(16)
        if len(self._refresh) >= _KEPT:
            self._refresh.pop(next(iter(self._refresh)))
        self._refresh[refresh] = _client(params)
        return {
            "access_token": secrets.token_urlsafe(16),
            "expires_in": _LIFE,
            "refresh_token": refresh,
            "scope": str(params.get("scope") or "connection mainaccount"),
            "token_type": "bearer",
            "sid": secrets.token_hex(8),
            "enabled_features": [],
        }

    def _check(self, params: Mapping[str, Any], given: str, wanted: str) -> None:
        if not wanted or not hmac.compare_digest(given.encode(), wanted.encode()):
            raise RpcError(13004, "invalid_credentials", status=401)

    def _check_signature(self, params: Mapping[str, Any], now_ms: int) -> None:
        stamp = params.get("timestamp")
        if not isinstance(stamp, int) or abs(now_ms - stamp) > _VALID_MS:
            raise RpcError(13004, "invalid_credentials", status=401)
        secret = self._credentials.get(_client(params), "")
        text = f"{stamp}\n{params.get('nonce', '')}\n{params.get('data', '')}"
        wanted = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        self._check(params, str(params.get("signature", "")), wanted if secret else "")


def _client(params: Mapping[str, Any]) -> str:
    return str(params.get("client_id", ""))
