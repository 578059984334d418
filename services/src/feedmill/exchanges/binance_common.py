"""What Binance Spot and USD-M have in common on the stream side: subscribing, classifying, symbols.

Source: dossiers binance-spot and binance-usdm, sections 1, 2 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import msgspec

from feedmill.exchanges.base import ChannelName, Feed, FrameKind, Outbound, Subscription, Topic, Verdict
from feedmill.exchanges.reading import DECODE_ERRORS, request_id
from feedmill.exchanges.urls import join

_DATA = Verdict(FrameKind.DATA)
_SHUTDOWN = Verdict(FrameKind.SHUTDOWN, error="serverShutdown")
_encode = msgspec.json.encode


class _Answer(msgspec.Struct, gc=False):
    """Top-level keys of anything that is not data in its envelope."""

    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    id: int | str | float | None = None
    code: int | msgspec.UnsetType = msgspec.UNSET
    msg: str = ""
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    e: str = ""
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Error(msgspec.Struct, gc=False):
    code: int = 0
    msg: str = ""


class _Kind(msgspec.Struct, gc=False):
    e: str = ""


_answer = msgspec.json.Decoder(_Answer)
_error = msgspec.json.Decoder(_Error)
_kind = msgspec.json.Decoder(_Kind)


def classify(payload: bytes) -> Verdict:
    """Acknowledgement, error, shutdown notice; everything else is data."""
    if b'"stream"' in payload[:32] and b"serverShutdown" not in payload:
        return _DATA
    try:
        frame = _answer.decode(payload)
        inner = next((raw for raw in (frame.data, frame.event) if isinstance(raw, msgspec.Raw)), None)
        if frame.e == "serverShutdown" or (inner is not None and _kind.decode(inner).e == "serverShutdown"):
            return _SHUTDOWN
        if frame.e or inner is not None:
            return _DATA
        asked = request_id(frame.id)
        if isinstance(frame.error, msgspec.Raw):
            error = _error.decode(frame.error)
            return Verdict(FrameKind.ERROR, asked, error=f"{error.code}: {error.msg}")
        if isinstance(frame.code, int):
            return Verdict(FrameKind.ERROR, asked, error=f"{frame.code}: {frame.msg}")
        if isinstance(frame.result, msgspec.Raw):
            return Verdict(FrameKind.ACK, asked)
    except DECODE_ERRORS:
        pass
    return _DATA


class BinanceFeed(Feed):
    """Feed half; a market is a table of streams, the socket each belongs to, and the path of each socket."""

    streams: ClassVar[Mapping[ChannelName, str]]
    """Stream name after ``<symbol>@``; ``{interval}`` is filled in."""
    sockets: ClassVar[Mapping[ChannelName, str]]
    paths: ClassVar[Mapping[str, str]]
    known_paths: ClassVar[tuple[str, ...]]
    """Endings a base URL may bring along."""
    intervals: ClassVar[frozenset[str]]

    def topics(self, subscriptions: Sequence[Subscription]) -> list[Topic]:
        return [Topic(self._name(wanted), self.sockets[wanted.channel], wanted) for wanted in subscriptions]

    def _name(self, wanted: Subscription) -> str:
        if wanted.channel is ChannelName.CANDLES and wanted.interval not in self.intervals:
            known = ", ".join(sorted(self.intervals))
            raise ValueError(f"channel Candles: interval {wanted.interval!r} is not known here: write one of {known}")
        return f"{wanted.native.lower()}@{self.streams[wanted.channel].format(interval=wanted.interval)}"

    def url(self, socket: str) -> str:
        return join(self.stream, self.known_paths, self.paths[socket])

    def subscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        return self._requests("SUBSCRIBE", topics, next_id)

    def unsubscribe(self, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        return self._requests("UNSUBSCRIBE", topics, next_id)

    def _requests(self, method: str, topics: Sequence[Topic], next_id: Callable[[], int]) -> list[Outbound]:
        size = self.limits.topics_per_request
        requests = []
        for start in range(0, len(topics), size):
            chunk, number = tuple(topics[start : start + size]), next_id()
            body = {"method": method, "params": [topic.name for topic in chunk], "id": number}
            requests.append(Outbound(_encode(body), number, chunk))
        return requests

    def classify(self, payload: bytes) -> Verdict:
        return classify(payload)


def split_symbol(symbol: str, parts: int, example: str) -> list[str]:
    """Parts of a canonical symbol; ValueError with a remedy unless it is of the form of ``example``.

    Letters of any script are fine (the venue lists some that are not ASCII), lower case is not.
    """
    found = symbol.split("-")
    if symbol != symbol.upper():
        raise ValueError(f"{symbol!r} has lower case letters: write {symbol.upper()!r}")
    if len(found) == 1 and symbol:
        raise ValueError(f"{symbol!r} has no dash between base and quote: write it like {example}")
    if not 2 <= len(found) <= parts or not all(part.isalnum() for part in found):
        raise ValueError(f"{symbol!r} is not of the form {example}: letters and digits, joined by a dash")
    return found
