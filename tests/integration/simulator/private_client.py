"""A plain client's side of the venues' signatures, written apart from the simulator's checks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from yarl import URL


def keys_in(path: Path, venue: str, kind: str = "hmac") -> list[dict[str, str]]:
    """The newest key of each account."""
    rows = json.loads(path.read_text("utf-8"))[venue]["accounts"]
    newest = {row["account"]: row for row in rows if row["type"] == kind}
    return [newest[account] for account in sorted(newest)]


def sign(key: Mapping[str, str], payload: str) -> str:
    if "privateKey" in key:
        private: Any = load_pem_private_key(key["privateKey"].encode(), None)
        return base64.b64encode(private.sign(payload.encode())).decode()
    return hmac.new(key["apiSecret"].encode(), payload.encode(), hashlib.sha256).hexdigest()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _stamped(params: Mapping[str, Any]) -> dict[str, Any]:
    """Good for as long as a venue takes: one that answers late is not told that it was asked late. ``recvWindow=None``
    leaves the venue's own."""
    given = {"timestamp": now_ms(), "recvWindow": 60_000} | dict(params)
    return {name: value for name, value in given.items() if value is not None}


def signed_params(key: Mapping[str, str], **params: Any) -> dict[str, Any]:
    """Of a request of the WebSocket API."""
    params = {"apiKey": key["apiKey"]} | _stamped(params)
    payload = "&".join(f"{name}={params[name]}" for name in sorted(params))
    return params | {"signature": sign(key, payload)}


async def signed_get(base: str, path: str, key: Mapping[str, str], **params: Any) -> tuple[int, Any, Any]:
    """(status, body, headers) of a signed REST request."""
    query = urlencode(_stamped(params))
    url = f"{base}{path}?{query}&signature={quote(sign(key, query), safe='')}"
    return await plain(url, "GET", key)


async def plain(url: str, method: str, key: Mapping[str, str] | None = None) -> tuple[int, Any, Any]:
    headers = {} if key is None else {"X-MBX-APIKEY": key["apiKey"]}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, URL(url, encoded=True), headers=headers) as answer,
    ):
        return answer.status, await answer.json(), answer.headers


def deribit_auth(key: Mapping[str, str], ident: int = 1, **more: Any) -> dict[str, Any]:
    """A log-on by client signature."""
    stamp, nonce = now_ms(), "n0nce"
    params = {
        "grant_type": "client_signature",
        "client_id": key["apiKey"],
        "timestamp": stamp,
        "nonce": nonce,
        "data": "",
        "signature": sign(key, f"{stamp}\n{nonce}\n"),
    }
    return {"jsonrpc": "2.0", "id": ident, "method": "public/auth", "params": params | more}


def deribit_call(method: str, ident: int, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": ident, "method": method, "params": params}
