"""Binance Spot and USD-M: signed REST requests, what refusals mean, what a key may do. Dossiers, sections 2 and 7."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

import msgspec
from pydantic import SecretStr

from feedmill.accounts.hygiene import Permissions
from feedmill.exchanges.account_base import AccountRequest, Credentials, Mend, Rejection, SignedRequest
from feedmill.exchanges.account_signing import signature
from feedmill.exchanges.reading import DECODE_ERRORS, map_error, safe_text, seconds
from feedmill.exchanges.times import Time, to_ns
from feedmill.exchanges.urls import join

RECV_WINDOW_MS = 5000
_KEY_REFUSED = (
    "the exchange refuses the API key: check the key, the addresses it is bound to and that it may read, "
    "then feedmill accounts rotate-key (of an ExchangeAccount: write it into its Secret)"
)
_MISMATCH = (
    "the secret does not belong to the API key: feedmill accounts rotate-key with both "
    "(of an ExchangeAccount: write both into its Secret)"
)
_CODES: Mapping[int, tuple[Mend, str]] = {
    -1000: (Mend.RETRY, "unknown error of the exchange"),
    -1001: (Mend.RETRY, "the exchange is disconnected inside"),
    -1002: (Mend.USER, _KEY_REFUSED),
    -1003: (Mend.RETRY, "too many requests"),
    -1006: (Mend.RETRY, "unexpected answer inside the exchange"),
    -1007: (Mend.RETRY, "time-out inside the exchange"),
    -1008: (Mend.RETRY, "the exchange is overloaded"),
    -1016: (Mend.RETRY, "the exchange is shutting down"),
    -1021: (Mend.CLOCK, "the time of the request is not the exchange's: check this machine's clock"),
    -1022: (Mend.USER, _MISMATCH),
    -1034: (Mend.RETRY, "too many connections"),
    -1099: (Mend.USER, _KEY_REFUSED),
    -1125: (Mend.RENEW, "the listen key has ended"),
    -2008: (Mend.USER, _KEY_REFUSED),
    -2014: (Mend.USER, _KEY_REFUSED),
    -2015: (Mend.USER, _KEY_REFUSED),
    -2035: (Mend.DONE, "subscribed already"),
    -2036: (Mend.RENEW, "the subscription has ended"),
    -2042: (Mend.RECONNECT, "no more subscriptions on this connection"),
    -4056: (Mend.USER, "the exchange takes no key of this kind here"),
}
_STATUS_WAITS = {429: 60.0, 418: 300.0, 403: 60.0}
"""Seconds to stay away where the answer does not say it: a weight window, a ban, the firewall."""


class _Data(msgspec.Struct, gc=False):
    serverTime: Time = 0
    retryAfter: Time = 0


class WireError(msgspec.Struct, gc=False):
    """``error`` of the WebSocket API and the body of a refused REST request."""

    code: int = 0
    msg: str = ""
    data: _Data | None = None


class _Restrictions(msgspec.Struct, gc=False):
    enableReading: bool | None = None
    enableWithdrawals: bool | None = None
    enableInternalTransfer: bool = False
    permitsUniversalTransfer: bool = False
    enableSpotAndMarginTrading: bool = False
    enableMargin: bool = False
    enableFutures: bool = False
    enableVanillaOptions: bool = False
    enablePortfolioMarginTrading: bool = False
    enableFixApiTrade: bool = False
    ipRestrict: bool | None = None
    tradingAuthorityExpirationTime: Time = 0


_error = msgspec.json.Decoder(WireError)
_restrictions = msgspec.json.Decoder(_Restrictions)


def rejection(status: int, error: WireError, wait: float | None = None) -> Rejection:
    """Of a refused request. ``status`` as in HTTP, also that of the WebSocket API."""
    known = _CODES.get(error.code)
    if error.data is not None and error.data.retryAfter > error.data.serverTime > 0:
        wait = (error.data.retryAfter - error.data.serverTime) / 1000
    if status in _STATUS_WAITS:
        text = known[1] if known else safe_text(error.msg) or f"HTTP {status}"
        return Rejection(Mend.RETRY, error.code, text, _STATUS_WAITS[status] if wait is None else wait)
    if known is not None:
        return Rejection(known[0], error.code, known[1], wait)
    if status >= 500 or status == 408:
        return Rejection(Mend.RETRY, error.code, safe_text(error.msg) or f"HTTP {status}", wait)
    if status == 401:
        return Rejection(Mend.USER, error.code, _KEY_REFUSED)
    return Rejection(Mend.REFUSED, error.code, safe_text(error.msg) or f"HTTP {status}")


def judge(status: int, headers: Mapping[str, str], body: bytes, clock_checked: bool = False) -> Rejection | None:
    """Why a REST request was refused; None = it was answered."""
    if status == 200:
        return None
    try:
        error = _error.decode(body)
    except DECODE_ERRORS:
        error = WireError()
    lower = {name.lower(): value for name, value in headers.items()}
    told = lower.get("retry-after", "")
    return rejection(status, error, seconds(told, 0.0) if told else None)


def sign(base: str, request: AccountRequest, credentials: Credentials, now_ms: int, nonce: str = "") -> SignedRequest:
    """Parameters in the order given, percent-encoded, then signed; the signature last. Raises ValueError."""
    base = join(base, ("/api/v3", "/api", "/fapi/v1", "/fapi", "/sapi"), "")
    key = credentials.api_key.get_secret_value()
    headers = {"X-MBX-APIKEY": key} if key else {}
    query = urlencode(request.params, quote_via=quote)
    if request.signed:
        stamp = urlencode({"recvWindow": RECV_WINDOW_MS, "timestamp": now_ms})
        query = f"{query}&{stamp}" if query else stamp
        query += "&signature=" + quote(signature(credentials, query), safe="")
    return SignedRequest(request.method, SecretStr(f"{base}{request.path}{'?' if query else ''}{query}"), headers)


def sorted_payload(params: Mapping[str, str | int]) -> str:
    """What the WebSocket API signs: all parameters by name, not encoded."""
    return "&".join(f"{name}={params[name]}" for name in sorted(params))


PERMISSIONS = AccountRequest("permissions", "/sapi/v1/account/apiRestrictions", {}, 1)


def ask_rights(base: str, credentials: Credentials, now_ms: int, nonce: str) -> SignedRequest:
    """Of a key for USD-M too this is told at Spot's address."""
    spot = {"https://fapi.binance.com": "https://api.binance.com"}
    return sign(spot.get(base.rstrip("/"), base), PERMISSIONS, credentials, now_ms, nonce)


class _Time(msgspec.Struct, gc=False):
    serverTime: Time


_time = msgspec.json.Decoder(_Time)


def server_ms(body: bytes) -> int:
    """The answer to ``time``. Raises MapError."""
    try:
        return _time.decode(body).serverTime
    except DECODE_ERRORS as error:
        raise map_error(error) from error


def permissions(body: bytes) -> Permissions:
    """What ``apiRestrictions`` says of the key. Raises MapError."""
    try:
        found = _restrictions.decode(body)
    except DECODE_ERRORS as error:
        raise map_error(error) from error
    ends = found.tradingAuthorityExpirationTime
    return Permissions(
        read=found.enableReading,
        trade=any((
            found.enableSpotAndMarginTrading, found.enableMargin, found.enableFutures, found.enableVanillaOptions,
            found.enablePortfolioMarginTrading, found.enableFixApiTrade,
        )),
        withdraw=found.enableWithdrawals,
        transfer=found.enableInternalTransfer or found.permitsUniversalTransfer,
        ip_bound=found.ipRestrict,
        expires_ns=to_ns(ends) if ends else None,
    )  # fmt: skip
