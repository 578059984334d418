"""Binance Spot, private session: the WebSocket API. Dossier sections 2, 3 and 7.

An account with an Ed25519 key may log a connection on; any key signs single subscriptions, of which one connection
carries up to 1,000, of as many accounts. Events name their subscription. Nothing has to be renewed.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Raw, UnsetType

from feedmill.exchanges.account_base import (
    UNREADABLE,
    AccountRequest,
    AccountVerdict,
    Credentials,
    Mend,
    PrivateMessage,
    Purpose,
)
from feedmill.exchanges.account_signing import signature
from feedmill.exchanges.base import FrameKind
from feedmill.exchanges.binance_signed import RECV_WINDOW_MS, WireError, rejection, sorted_payload
from feedmill.exchanges.reading import DECODE_ERRORS, request_id
from feedmill.exchanges.urls import join

SUBSCRIPTIONS = 1000
"""Active ones of a connection."""
SUBSCRIPTIONS_EVER = 65_535
"""Over its life: a connection that has given so many numbers must be replaced."""
CONNECT_WEIGHT, CALL_WEIGHT = 2, 2
"""REST weight of a connection, and of each log-on or subscription: from the same budget as requests."""
TIME = AccountRequest("time", "/api/v3/time", {}, 1, signed=False)
_encode = msgspec.json.encode


class _Result(msgspec.Struct, gc=False):
    subscriptionId: int | None = None


class _Event(msgspec.Struct, gc=False):
    e: str = ""


class _Frame(msgspec.Struct, gc=False):
    id: int | str | None = None
    status: int = 0
    result: Raw | UnsetType = UNSET
    error: WireError | None = None
    event: _Event | None = None
    subscriptionId: int | None = None


_frame = msgspec.json.Decoder(_Frame)
_result = msgspec.json.Decoder(_Result)


def url(base: str) -> str:
    """Holds no secret."""
    return join(base, ("/ws-api/v3", "/ws-api"), "/ws-api/v3") + "?returnRateLimits=false"


def _call(purpose: Purpose, method: str, number: int, params: Mapping[str, str | int]) -> PrivateMessage:
    body = {"id": number, "method": method} | ({"params": dict(params)} if params else {})
    return PrivateMessage(purpose, number, _encode(body))


def _signed(credentials: Credentials, now_ms: int) -> dict[str, str | int]:
    params: dict[str, str | int] = {
        "apiKey": credentials.api_key.get_secret_value(),
        "recvWindow": RECV_WINDOW_MS,
        "timestamp": now_ms,
    }
    return params | {"signature": signature(credentials, sorted_payload(params))}


def logon(credentials: Credentials, number: int, now_ms: int) -> PrivateMessage:
    """Log the whole connection on, for one account with an Ed25519 key."""
    return _call(Purpose.LOGON, "session.logon", number, _signed(credentials, now_ms))


def subscribe_logged_on(number: int) -> PrivateMessage:
    """After :func:`logon`."""
    return _call(Purpose.SUBSCRIBE, "userDataStream.subscribe", number, {})


def subscribe(credentials: Credentials, number: int, now_ms: int) -> PrivateMessage:
    """Subscribe one account, whatever its key, beside others on the connection."""
    return _call(Purpose.SUBSCRIBE, "userDataStream.subscribe.signature", number, _signed(credentials, now_ms))


def unsubscribe(number: int, subscription: int) -> PrivateMessage:
    return _call(Purpose.SUBSCRIBE, "userDataStream.unsubscribe", number, {"subscriptionId": subscription})


def classify(payload: bytes) -> AccountVerdict:
    """Judge a frame. Never raises. Answers are not recorded: that to a log-on holds the key."""
    try:
        frame = _frame.decode(payload)
        if frame.event is not None:
            if frame.event.e == "serverShutdown":
                return AccountVerdict(FrameKind.SHUTDOWN, record=True)
            ended = frame.event.e == "eventStreamTerminated"
            return AccountVerdict(FrameKind.DATA, True, subscription=frame.subscriptionId, ended=ended)
        asked = request_id(frame.id)
        if frame.error is not None:
            why = rejection(frame.status, frame.error)
            # Told without a request: the key of the log-on was revoked.
            return AccountVerdict(FrameKind.ERROR, False, asked, why, ended=asked is None and why.mend is Mend.USER)
        if isinstance(frame.result, Raw):
            if not bytes(frame.result).startswith(b"{"):
                return AccountVerdict(FrameKind.ACK, False, asked)
            return AccountVerdict(FrameKind.ACK, False, asked, subscription=_result.decode(frame.result).subscriptionId)
    except DECODE_ERRORS:
        pass
    return UNREADABLE
