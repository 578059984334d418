"""Deribit, feed half: JSON-RPC over one socket. Dossier sections 1 to 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from feedmill.exchanges.base import ChannelName, Feed, FrameKind, Outbound, Subscription, Topic, VenueLimits, Verdict
from feedmill.exchanges.reading import request_id
from feedmill.exchanges.urls import join

HEARTBEAT_S = 10
"""The least the venue accepts. Unanswered test requests close the connection 10 s later."""
RESOLUTIONS = {
    "1m": "1", "3m": "3", "5m": "5", "10m": "10", "15m": "15", "30m": "30", "1h": "60", "2h": "120", "3h": "180",
    "6h": "360", "12h": "720", "1d": "1D",
}  # fmt: skip
"""Our interval -> the venue's resolution. It has no 4h: that one is rolled up from 1m."""
INTERVALS = {resolution: interval for interval, resolution in RESOLUTIONS.items()}

_TERMINAL = frozenset({10028})
"""Errors after which the venue ends the session (too_many_requests)."""
_DATA = Verdict(FrameKind.DATA)
_HEARTBEAT = Verdict(FrameKind.HEARTBEAT)
_encode = msgspec.json.encode


def _call(method: str, request: int | str, params: Mapping[str, Any] | None = None) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": request, "method": method, "params": params or {}})


# Ids of our own calls are text, so that they never meet the receiver's numbers.
_TEST = Verdict(FrameKind.HEARTBEAT, reply=_call("public/test", "test"))


class _Error(msgspec.Struct, gc=False):
    code: int = 0
    message: str = ""


class _Params(msgspec.Struct, gc=False):
    type: str = ""


class _Frame(msgspec.Struct, gc=False):
    method: str = ""
    id: int | str | float | None = None
    params: _Params | None = None
    result: Any = msgspec.UNSET
    error: _Error | None = None


_frame = msgspec.json.Decoder(_Frame)


class DeribitFeed(Feed):
    limits = VenueLimits(
        connects=32,  # What is documented is 32 at once; attempts are held to as many a minute.
        connects_window=60.0,
        messages_per_second=3.0,  # A subscribe costs 3000 credits of 30,000, refilled at about 3.3 calls a second.
        topics_per_connection=10_000,
        topics_per_request=250,  # 500 are recommended at most.
        request_weight=300,  # Unpublished without login: a quarter of what an account may do.
        request_window=60.0,
        signed_weight=1200,  # Each account has 20 a second of its own; held to that by all accounts together.
        connection_lifetime=None,
        silence=3.0 * HEARTBEAT_S,
        subscribes=10,  # The same credits, of the whole account or address.
        subscribes_per_second=3.3,
    )
    data_prefixes = (b'{"jsonrpc":"2.0","method":"subscription"',)

    def topics(self, subscriptions: Sequence[Subscription]) -> list[Topic]:
        return [Topic(self._name(wanted), "stream", wanted) for wanted in subscriptions]

    def _name(self, wanted: Subscription) -> str:
        pace = "raw" if self.authenticated else "100ms"
        if wanted.channel is ChannelName.TRADES:
            return f"trades.{wanted.native}.{pace}"
        if wanted.channel is ChannelName.BOOK:
            return f"book.{wanted.native}.{pace}"
        if wanted.channel is ChannelName.TICKER:
            return f"quote.{wanted.native}"
        resolution = RESOLUTIONS.get(wanted.interval)
        if resolution is None:
            known = ", ".join(RESOLUTIONS)
            raise ValueError(f"channel Candles: interval {wanted.interval!r} is not known here: write one of {known}")
        return f"chart.trades.{wanted.native}.{resolution}"

    def url(self, socket: str) -> str:
        return join(self.stream, ("/ws/api/v2", "/api/v2", "/ws"), "/ws/api/v2")

    def opening(self) -> list[Outbound]:
        return [Outbound(_call("public/set_heartbeat", "heartbeat", {"interval": HEARTBEAT_S}))]

    def subscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        return self._requests("public/subscribe", topics, next_id)

    def unsubscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        return self._requests("public/unsubscribe", topics, next_id)

    def _requests(self, method: str, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        size = self.limits.topics_per_request
        requests = []
        for start in range(0, len(topics), size):
            chunk, number = tuple(topics[start : start + size]), next_id()
            channels = {"channels": [topic.name for topic in chunk]}
            requests.append(Outbound(_call(method, number, channels), number, chunk))
        return requests

    def classify(self, payload: bytes) -> Verdict:
        try:
            frame = _frame.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _DATA
        if frame.method == "heartbeat":
            return _TEST if frame.params is not None and frame.params.type == "test_request" else _HEARTBEAT
        if frame.method:
            return _DATA
        if frame.error is not None:
            error, asked = frame.error, request_id(frame.id)
            text = f"{error.code}: {error.message}"
            return Verdict(FrameKind.ERROR, asked, error=text, fatal=error.code in _TERMINAL)
        if frame.result is msgspec.UNSET:
            return _DATA
        if frame.id == "test":
            return _HEARTBEAT
        accepted = None
        if isinstance(frame.result, list):
            accepted = frozenset(name for name in frame.result if isinstance(name, str))
        return Verdict(FrameKind.ACK, request_id(frame.id), accepted)
