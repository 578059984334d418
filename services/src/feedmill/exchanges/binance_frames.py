"""Wire forms of Binance stream frames, Spot and USD-M: only the fields that are needed, unknown ones are skipped.

Source: dossiers binance-spot and binance-usdm, section 5. Prices and sizes stay the venue's text.
"""

from __future__ import annotations

import msgspec

from feedmill.exchanges.times import Number, Time
from feedmill.shared.events import Level


class SpotTrade(msgspec.Struct, gc=False, tag_field="e", tag="trade"):
    s: str
    t: Number
    p: str
    q: str
    T: Time
    m: bool
    """The buyer was the maker, so the taker sold."""


class AggTrade(msgspec.Struct, gc=False, tag_field="e", tag="aggTrade"):
    s: str
    a: Number
    p: str
    q: str
    f: Number
    l: Number  # noqa: E741
    T: Time
    m: bool


class SpotDepth(msgspec.Struct, gc=False, tag_field="e", tag="depthUpdate"):
    E: Time
    s: str
    U: Number
    u: Number
    b: list[Level]
    a: list[Level]


class UsdmDepth(msgspec.Struct, gc=False, tag_field="e", tag="depthUpdate"):
    T: Time
    s: str
    U: Number
    u: Number
    pu: Number
    b: list[Level]
    a: list[Level]


class SpotTicker(msgspec.Struct, gc=False):
    """No event type and no time."""

    u: Number
    s: str
    b: str
    B: str
    a: str
    A: str


class UsdmTicker(msgspec.Struct, gc=False, tag_field="e", tag="bookTicker"):
    u: Number
    T: Time
    s: str
    b: str
    B: str
    a: str
    A: str


class KlineBar(msgspec.Struct, gc=False):
    t: Time
    i: str
    f: Number
    L: Number
    o: str
    c: str
    h: str
    l: str  # noqa: E741
    v: str
    n: Number
    x: bool
    q: str


class Kline(msgspec.Struct, gc=False, tag_field="e", tag="kline"):
    E: Time
    s: str
    k: KlineBar


class Envelope(msgspec.Struct, gc=False):
    """Any frame, told by which keys it has. Raw, so that no content can make this fail."""

    stream: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    code: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Payload(msgspec.Struct, gc=False):
    """What tells the kind of an event: its type, or (Spot's bookTicker) its keys."""

    e: str = ""
    u: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    s: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    B: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    a: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    A: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_book_ticker(self) -> bool:
        return msgspec.UNSET not in (self.u, self.s, self.b, self.B, self.a, self.A)
