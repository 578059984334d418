"""The seeded source, what is common to the venues: markets, books, topics and when they start."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from feedmill.simulator.catalog import Listing, listings
from feedmill.simulator.engine import Engine
from feedmill.simulator.market import MINUTE_MS, Market
from feedmill.simulator.orderbook import OrderBook
from feedmill.simulator.topics import Topic

if TYPE_CHECKING:
    from feedmill.simulator.venue import Venue

MS_NS = "000000"


class CandleFlow:
    """One kline or chart topic: pushed every ``every_ms`` when it changed, and when its bar ends."""

    __slots__ = ("count", "every_ms", "interval", "minutes", "next_ms", "topic")

    def __init__(self, topic: Topic, interval: str, minutes: int, every_ms: int) -> None:
        self.topic = topic
        self.interval = interval
        self.minutes = minutes
        self.every_ms = every_ms
        self.next_ms = 0
        self.count = -1
        """Trades of the bar when it was pushed last."""


class Generated(ABC):
    """Topics start at the first tick that finds them subscribed, and then never stop."""

    raw_per_unit = 1
    number = False
    book_step = 1

    def __init__(self, venue: Venue, listed: dict[str, Listing]) -> None:
        self.venue = venue
        self.config = venue.config
        self.listings = listed
        self.ledger = venue.ledger
        self.engine = Engine(venue.config.rate, venue.config.mix)
        self.topics: dict[tuple[str, str], Topic] = {}
        self.markets: dict[str, Market] = {}
        self.books: dict[str, OrderBook] = {}
        self.candles: dict[str, list[CandleFlow]] = {}
        self._traded: set[str] = set()
        self._waiting: list[Topic] = []
        self._minute = -1
        self.ended: set[str] = set()
        """Natives that no longer trade; REST still has what they traded."""
        self._expiring: dict[str, int] = {}
        """Native listed on demand -> when (ms) it ends by itself."""

    # -- what the servers ask

    def topic(self, native: str, kind: str) -> Topic | None:
        """The topic, or None when the venue knows no such instrument or stream."""
        if native in self.ended:
            return None
        found = self.topics.get((native, kind))
        if found is None:
            listing = self.listings.get(native)
            channel = self.channel_of(kind)
            if listing is None or channel is None:
                return None
            found = self.topics[native, kind] = Topic(native, listing.symbol, kind, channel)
            self.venue.topic_made(found)
        return found

    def want(self, topic: Topic) -> None:
        """A connection joined: start it at the next tick if somebody is still there."""
        if not topic.started and topic not in self._waiting:
            self._waiting.append(topic)

    @abstractmethod
    def channel_of(self, kind: str) -> str | None:
        """Our channel of a venue's stream kind, None when unknown."""

    @abstractmethod
    def start(self, topic: Topic, now_ms: int) -> None:
        """Add what makes its messages to the engine."""

    @abstractmethod
    def push_candle(self, flow: CandleFlow, market: Market, now_ms: int, *, closed: bool) -> None: ...

    # -- time

    def tick(self, now_ms: int, elapsed: float) -> None:
        """Emit what is due at ``now_ms`` (matching time)."""
        for native in [native for native, at in self._expiring.items() if now_ms >= at]:
            self.end(native)
        if self._waiting:
            self._start_waiting(now_ms)
        if now_ms // MINUTE_MS != self._minute:
            self._minute = now_ms // MINUTE_MS
            self._turn_minute(now_ms)
        for native, flows in self.candles.items():
            market = self.markets[native]
            for flow in flows:
                if now_ms >= flow.next_ms and market.bar is not None and market.bar.count != flow.count:
                    flow.next_ms = now_ms + flow.every_ms
                    flow.count = market.bar.count
                    self.push_candle(flow, market, now_ms, closed=False)
        self.engine.run(now_ms, elapsed)

    def forget(self, symbol: str) -> int:
        """REST no longer has the trades sent so far."""
        hit = [each for native, each in self.markets.items() if symbol in ("", native, each.listing.symbol)]
        for market in hit:
            market.history.clear()
        return len(hit)

    def list_new(self, symbol: str, expiry_ms: int) -> int:
        """The venue lists one more instrument, which ends by itself at ``expiry_ms`` (0 = as its name says)."""
        (native, listing), *_ = listings(self.config.venue, (symbol,), only=True).items()
        if native in self.listings and native not in self.ended:
            return 0
        self.listings[native] = replace(listing, expiry_ms=expiry_ms) if expiry_ms else listing
        self.ended.discard(native)
        if expiry_ms:
            self._expiring[native] = expiry_ms
        return 1

    def expire(self, symbol: str) -> int:
        """Instruments (of ``symbol``) end now; answers how many."""
        hit = [
            native
            for native, each in self.listings.items()
            if symbol in (native, each.symbol) and native not in self.ended
        ]
        for native in hit:
            self.end(native)
        return len(hit)

    def end(self, native: str) -> None:
        """No more messages of it, and no list has it among what trades."""
        self.ended.add(native)
        self._expiring.pop(native, None)
        self.engine.remove(native)
        self.candles.pop(native, None)
        self._waiting = [topic for topic in self._waiting if topic.native != native]
        for (owner, _), topic in self.topics.items():
            if owner == native:
                topic.release()

    def finish(self, now_ms: int) -> None:
        """One more message on each topic that somebody receives, so that holes before the end show."""
        self._start_waiting(now_ms)
        for lane in self.engine.lanes.values():
            if lane.producers:
                lane.run(len(lane.producers), now_ms)

    def _start_waiting(self, now_ms: int) -> None:
        waiting, self._waiting = self._waiting, []
        for topic in waiting:
            # One that is being closed receives nothing any more.
            here = any(not (member.closing or member.closed) for member in topic.members)
            if here and not topic.started:
                topic.started = True
                self.start(topic, now_ms)

    def _turn_minute(self, now_ms: int) -> None:
        for native in self._traded:
            market = self.markets[native]
            ended = market.minute(now_ms)
            if ended is None or market.bar is None:
                continue
            for flow in self.candles.get(native, ()):
                if market.bar.open_ms % (flow.minutes * MINUTE_MS) == 0:
                    self.push_candle(flow, market, now_ms, closed=True)
                flow.count = -1

    # -- parts of start()

    def market(self, native: str) -> Market:
        market = self.markets.get(native)
        if market is None:
            market = self.markets[native] = Market(
                self.listings[native],
                self.venue.seed,
                id_base=self.venue.id_base,
                history=self.config.history,
                raw_per_unit=self.raw_per_unit,
                number=self.number,
            )
        return market

    def book(self, native: str) -> OrderBook:
        book = self.books.get(native)
        if book is None:
            base = self.venue.id_base
            seq = (base if base is not None else 50_000_000_000) + zlib.crc32(native.encode()) % 1_000_000
            book = self.books[native] = OrderBook(
                self.market(native), self.venue.seed, self.config.levels, seq=seq, step=self.book_step
            )
        return book

    def trades_needed(self, native: str, now_ms: int) -> bool:
        """True the first time: the caller then adds the producer of the instrument's trades."""
        self.market(native).minute(now_ms)
        if native in self._traded:
            return False
        self._traded.add(native)
        return True

    def add_candles(self, topic: Topic, interval: str, minutes: int, every_ms: int) -> None:
        self.candles.setdefault(topic.native, []).append(CandleFlow(topic, interval, minutes, every_ms))

    def traded(self, native: str) -> bool:
        return native in self._traded

    def image_line(self, native: str, now_ms: int) -> None:
        """Write the whole book to the ledger (verify starts from it)."""
        book, market = self.books[native], self.markets[native]
        sides = []
        for levels in book.image():
            rows = ",".join(f'["{market.prices[tick]}","{market.amounts[lots]}"]' for tick, lots in levels)
            sides.append(f"[{rows}]")
        symbol = self.listings[native].symbol
        self.ledger.books.append(f"{symbol}\t0\t{book.seq}\t-1\t{now_ms}{MS_NS}\t{sides[0]}\t{sides[1]}\n")
