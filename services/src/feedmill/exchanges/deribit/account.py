"""Deribit, private session: log-on by client signature, refresh, ``user.*`` channels. Dossier sections 3, 4 and 7.

Reading needs account:read, trade:read and wallet:read; more is not asked for, so a token of ours can do no more,
whatever the key may. A token without a session name dies with its connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import SecretStr

from feedmill.accounts.hygiene import Permissions, deribit_scope
from feedmill.exchanges.account_base import (
    UNREADABLE,
    AccountRequest,
    AccountVerdict,
    Credentials,
    Grant,
    Mend,
    PrivateMessage,
    Purpose,
    Rejection,
    SignedRequest,
)
from feedmill.exchanges.account_signing import hmac_hex
from feedmill.exchanges.base import FrameKind, MapError
from feedmill.exchanges.deribit.feed import HEARTBEAT_S
from feedmill.exchanges.reading import DECODE_ERRORS, map_error, request_id, safe_text, seconds
from feedmill.exchanges.urls import join

SCOPE = "account:read trade:read wallet:read"
CHANNELS = ("user.changes.any.any.raw", "user.portfolio.any")
"""Changes bundle an instrument's orders, trades and positions, which as channels of their own have no common order."""
RENEW_AFTER = 300.0
"""Seconds at most: a token that ended before its time is noticed by its renewal only."""
CONNECTIONS = 32
"""At once from one address, WebSocket and HTTP together."""
PLACES = CONNECTIONS - 8
"""Of these for accounts: feeds, requests and connections that move from one process to another need some too."""
_KEY_REFUSED = (
    "the exchange refuses client id and secret: check both and the addresses the key is bound to, "
    "then feedmill accounts rotate-key (of an ExchangeAccount: write it into its Secret)"
)
_RIGHTS = "the key lacks a right: allow it to read account, trade and wallet at the exchange"
_CODES: Mapping[int, tuple[Mend, str, float | None]] = {
    10000: (Mend.RENEW, "the token has ended", None),
    10028: (Mend.RECONNECT, "too many requests: the exchange ends the session", 5.0),
    10040: (Mend.RETRY, "the exchange asks to try again", 1.0),
    10041: (Mend.RETRY, "settlement is in progress", 5.0),
    10047: (Mend.RETRY, "the matching engine's queue is full", 1.0),
    10066: (Mend.RETRY, "too many requests at once", 5.0),
    11051: (Mend.RETRY, "the exchange is in maintenance", 30.0),
    11052: (Mend.RENEW, "the subscription has ended", None),
    13009: (Mend.RENEW, "the token has ended", None),
    13021: (Mend.USER, _RIGHTS, None),
    13028: (Mend.RETRY, "the exchange is unavailable for now", 5.0),
}
_INVALID_CREDENTIALS = 13004
_WAITS = {429: 5.0}
_DATA = AccountVerdict(FrameKind.DATA, record=True)
_HEARTBEAT = AccountVerdict(FrameKind.HEARTBEAT)
_encode = msgspec.json.encode


class _Error(msgspec.Struct, gc=False):
    code: int = 0
    message: str = ""


class _Token(msgspec.Struct, gc=False):
    access_token: str
    refresh_token: str
    expires_in: int
    scope: str = ""


class _Params(msgspec.Struct, gc=False):
    type: str = ""


class _Frame(msgspec.Struct, gc=False):
    method: str = ""
    id: int | str | float | None = None
    params: _Params | None = None
    result: Any | UnsetType = UNSET
    error: _Error | None = None


class _Refused(msgspec.Struct, gc=False):
    error: _Error


_frame = msgspec.json.Decoder(_Frame)
_refused = msgspec.json.Decoder(_Refused)


def call(method: str, number: int | str, params: Mapping[str, Any]) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


# Its id is text, so that it never meets the session's numbers.
_TEST = AccountVerdict(FrameKind.HEARTBEAT, reply=call("public/test", "test", {}))


def url(base: str) -> str:
    """Holds no secret."""
    return join(base, ("/ws/api/v2", "/api/v2", "/ws"), "/ws/api/v2")


def heartbeat(number: int) -> PrivateMessage:
    return PrivateMessage(Purpose.KEEP, number, call("public/set_heartbeat", number, {"interval": HEARTBEAT_S}))


def logon(credentials: Credentials, number: int, now_ms: int, nonce: str, scope: str = SCOPE) -> PrivateMessage:
    """By signature, so that the secret itself is never sent. ``nonce``: random text of the caller.

    Raises ValueError when there is no secret.
    """
    params = {
        "grant_type": "client_signature",
        "client_id": credentials.api_key.get_secret_value(),
        "timestamp": now_ms,
        "nonce": nonce,
        "data": "",
        "signature": hmac_hex(_secret(credentials), f"{now_ms}\n{nonce}\n"),
    }
    return PrivateMessage(
        Purpose.LOGON, number, call("public/auth", number, params | ({"scope": scope} if scope else {}))
    )


def refresh(granted: Grant, number: int) -> PrivateMessage:
    """A new pair for the one that will end; the subscriptions stay. Raises ValueError when there is no token for it."""
    if granted.refresh is None:
        raise ValueError("no refresh token was granted")
    params = {"grant_type": "refresh_token", "refresh_token": granted.refresh.get_secret_value()}
    return PrivateMessage(Purpose.LOGON, number, call("public/auth", number, params))


def subscribe(number: int) -> PrivateMessage:
    """After a log-on. ``accepted`` of the answer must hold all CHANNELS: what is unknown is left out."""
    return PrivateMessage(Purpose.SUBSCRIBE, number, call("private/subscribe", number, {"channels": CHANNELS}))


def _secret(credentials: Credentials) -> SecretStr:
    if credentials.api_secret is None:
        raise ValueError("the account has no apiSecret")
    return credentials.api_secret


def sign(base: str, request: AccountRequest, credentials: Credentials, now_ms: int, nonce: str) -> SignedRequest:
    """A REST request signed by itself, without a token. Raises ValueError when there is no secret."""
    query = urlencode(request.params, quote_via=quote)
    address = join(base, ("/api/v2", "/api"), "/api/v2") + request.path + (f"?{query}" if query else "")
    if not request.signed:
        return SignedRequest(request.method, SecretStr(address), {})
    parts = urlsplit(address)
    uri = parts.path + (f"?{parts.query}" if parts.query else "")
    text = f"{now_ms}\n{nonce}\n{request.method}\n{uri}\n\n"
    made = hmac_hex(_secret(credentials), text)
    key = credentials.api_key.get_secret_value()
    headers = {"Authorization": f"deri-hmac-sha256 id={key},ts={now_ms},nonce={nonce},sig={made}"}
    return SignedRequest(request.method, SecretStr(address), headers)


def rejection(error: _Error, *, clock_checked: bool = False) -> Rejection:
    """``clock_checked``: this request was timed by the venue's clock.

    A wrong time and a wrong secret have the same code; so the clock is looked at first, and then it is the key.
    """
    if error.code == _INVALID_CREDENTIALS:
        mend = Mend.USER if clock_checked else Mend.CLOCK
        return Rejection(mend, error.code, _KEY_REFUSED)
    known = _CODES.get(error.code)
    if known is not None:
        return Rejection(known[0], error.code, known[1], known[2])
    return Rejection(Mend.REFUSED, error.code, safe_text(error.message))


def judge(status: int, headers: Mapping[str, str], body: bytes, clock_checked: bool = False) -> Rejection | None:
    """Why a REST request was refused; None = it was answered."""
    if status == 200:
        return None
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        found = rejection(_refused.decode(body).error, clock_checked=clock_checked)
    except DECODE_ERRORS:
        mend = Mend.RETRY if status >= 500 or status in _WAITS else Mend.REFUSED
        return Rejection(mend, status, f"HTTP {status}", seconds(lower.get("retry-after", ""), _WAITS.get(status, 1.0)))
    # Over HTTP there is no session to end, and an error of the server is none of the request.
    if found.mend is Mend.RECONNECT or status in _WAITS or (found.mend is Mend.REFUSED and status >= 500):
        return Rejection(Mend.RETRY, found.code, found.text, found.wait or _WAITS.get(status))
    return found


def classify(payload: bytes, *, clock_checked: bool = False) -> AccountVerdict:
    """Judge a frame. Answers are not recorded: that to a log-on holds tokens. Never raises."""
    try:
        frame = _frame.decode(payload)
    except DECODE_ERRORS:
        return UNREADABLE
    if frame.method == "heartbeat":
        return _TEST if frame.params is not None and frame.params.type == "test_request" else _HEARTBEAT
    if frame.method:
        return _DATA
    asked = request_id(frame.id)
    if frame.error is not None:
        why = rejection(frame.error, clock_checked=clock_checked)
        return AccountVerdict(FrameKind.ERROR, False, asked, why, ended=why.mend is Mend.RECONNECT)
    if frame.result is UNSET:
        return UNREADABLE
    if frame.id == "test":
        return _HEARTBEAT
    accepted = None
    if isinstance(frame.result, list):
        accepted = frozenset(name for name in frame.result if isinstance(name, str))
    granted = grant_of(frame.result) if isinstance(frame.result, dict) and "access_token" in frame.result else None
    return AccountVerdict(FrameKind.ACK, False, asked, accepted=accepted, grant=granted)


def grant_of(result: Mapping[str, Any]) -> Grant | None:
    """The ``result`` of public/auth; None when it is of another shape."""
    try:
        token = msgspec.convert(result, _Token)
    except msgspec.ValidationError:
        return None
    renew_after = min(token.expires_in * 0.8, RENEW_AFTER)
    return Grant(SecretStr(token.access_token), renew_after, SecretStr(token.refresh_token), token.scope)


def ask_rights(base: str, credentials: Credentials, now_ms: int, nonce: str) -> SignedRequest:
    """A log-on that asks for no scope is granted all that the key may. Its token is not used: it ends by itself."""
    body = logon(credentials, 1, now_ms, nonce, scope="").payload
    address = join(base, ("/api/v2", "/api"), "/api/v2") + "/public/auth"
    return SignedRequest("POST", SecretStr(address), {"Content-Type": "application/json"}, body)


def rights(body: bytes) -> Permissions:
    """The answer to it. Raises MapError."""
    granted = classify(body).grant
    if granted is None:
        raise MapError("bad_field", "not the answer to a log-on")
    return deribit_scope(granted.scope)


class _Answer(msgspec.Struct, gc=False):
    result: int


_time = msgspec.json.Decoder(_Answer)


def server_ms(body: bytes) -> int:
    """The answer to TIME. Raises MapError."""
    try:
        return _time.decode(body).result
    except DECODE_ERRORS as error:
        raise map_error(error) from error


TIME = AccountRequest("time", "/public/get_time", {}, 1, signed=False)
