"""The seeded source of Deribit: notifications, snapshots and method results in the venue's exact forms.

Numbers are JSON numbers; amounts are at times printed with an exponent, as the venue does.
"""

from __future__ import annotations

import zlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from feedmill.simulator.catalog import NEVER_DERIBIT_MS, Listing, creation_ms
from feedmill.simulator.generated import MS_NS, CandleFlow, Generated
from feedmill.simulator.market import Market, MarketTrade
from feedmill.simulator.topics import Topic

if TYPE_CHECKING:
    from feedmill.simulator.venue import Venue

RESOLUTIONS = {
    "1": 1, "3": 3, "5": 5, "10": 10, "15": 15, "30": 30, "60": 60, "120": 120, "180": 180, "360": 360, "720": 720,
    "1D": 1440,
}  # fmt: skip
GROUPS = ("none", "1", "2", "5", "10", "25", "100", "250")
DEPTHS = ("1", "10", "20")
BAD_PRICE = '"not-a-number"'
_KINDS = {"Spot": "spot", "Perpetual": "future", "Future": "future", "Option": "option"}


def kind_of(listing: Listing) -> str:
    return _KINDS[listing.type]


def currency_of(listing: Listing) -> str:
    """The currency a group channel or get_instruments counts it under."""
    return listing.quote if "_" in listing.native else listing.base


class DeribitSource(Generated):
    number = True
    book_step = 900

    def __init__(self, venue: Venue, listed: dict[str, Listing]) -> None:
        super().__init__(venue, listed)
        self._order = {native: at for at, native in enumerate(listed)}

    def channel_of(self, kind: str) -> str | None:
        if kind.startswith("chart_"):
            return "Candles" if kind[6:] in RESOLUTIONS else None
        if kind.startswith("group_"):
            _, group, depth = kind.split("_")
            return "Book" if group in GROUPS and depth in DEPTHS else None
        return {"trades": "Trades", "quote": "Ticker", "ticker": "Ticker", "book": "Book"}.get(kind)

    def start(self, topic: Topic, now_ms: int) -> None:
        native = topic.native
        if topic.channel in ("Trades", "Candles") and self.trades_needed(native, now_ms):
            self._add_trades(native)
        if topic.channel == "Ticker":
            self._add_ticker(topic)
        elif topic.channel == "Book":
            self._book_needed(native, now_ms)
        elif topic.channel == "Candles":
            resolution = topic.kind[6:]
            self.add_candles(topic, resolution, RESOLUTIONS[resolution], 1000)

    # -- trades

    def trade_text(self, market: Market, trade: MarketTrade, price: str = "") -> str:
        """One trade as the stream and REST show it; ``price`` replaces the true one."""
        unit, ticks, lots, buy, at, _, _ = trade
        listing = market.listing
        prices = market.prices
        prefix = "" if listing.native.startswith("BTC-") else currency_prefix(listing)
        extra = ',"liquidation":"T"' if unit % 997 == 0 else ""
        if listing.type == "Option":
            extra += ',"iv":55.5'
        return (
            f'{{"timestamp":{at},"price":{price or prices[ticks]},"amount":{market.amounts[lots]},'
            f'"direction":"{"buy" if buy else "sell"}","index_price":{prices[ticks - 1]},'
            f'"instrument_name":"{listing.native}","trade_seq":{unit},"mark_price":{prices[ticks + 1]},'
            f'"tick_direction":{lots & 3},"contracts":{lots}.0,'
            f'"trade_id":"{prefix}{unit * 64 + self._order.setdefault(listing.native, len(self._order)) % 64}"{extra}}}'
        )

    def _add_trades(self, native: str) -> None:
        topic = self.topic(native, "trades")
        assert topic is not None
        market, symbol, lines = self.market(native), topic.symbol, self.ledger.trades
        prices, amounts, text = market.prices, market.amounts, self.trade_text

        def produce(now_ms: int) -> None:
            unit = market.next_id
            parts = []
            for _ in range(3 if unit % 16 == 0 else 2 if unit % 5 == 0 else 1):
                trade = market.trade(now_ms)
                unit, ticks, lots, buy, _, _, _ = trade
                if topic.bad_prices:
                    topic.bad_prices -= 1
                    self.venue.log_fault("bad_price", symbol, "Trades", str(unit))
                    parts.append(text(market, trade, BAD_PRICE))
                    continue
                if topic.started:
                    lines.append(
                        f"{symbol}\t{unit}\t{prices[ticks]}\t{amounts[lots]}\t{2 - buy}\t{now_ms}{MS_NS}\t0\t0\n"
                    )
                    parts.append(text(market, trade))
            if topic.started:
                topic.emit(("[" + ",".join(parts) + "]").encode())

        self.engine.add("Trades", native, produce)

    # -- quote and ticker

    def _add_ticker(self, topic: Topic) -> None:
        native, symbol = topic.native, topic.symbol
        book, market, traded = self.book(native), self.market(native), self._traded
        prices, amounts, lines = market.prices, market.amounts, self.ledger.tickers
        quote = topic.kind == "quote"
        form = (
            f'{{"timestamp":%d,"instrument_name":"{native}","best_ask_price":%s,"best_bid_price":%s,'
            '"best_ask_amount":%s,"best_bid_amount":%s}'
        )

        def produce(now_ms: int) -> None:
            book.touch(native in traded)
            bid, ask = prices[book.best_bid], prices[book.best_ask]
            bid_size, ask_size = amounts[book.bids[book.best_bid]], amounts[book.asks[book.best_ask]]
            # The venue has no update id here: 0, verify computes the hash that stands for one.
            lines.append(f"{symbol}\t0\t{bid}\t{bid_size}\t{ask}\t{ask_size}\t{now_ms}{MS_NS}\n")
            if quote:
                topic.emit((form % (now_ms, ask, bid, ask_size, bid_size)).encode())
            else:
                topic.emit(self._ticker_text(market, now_ms, ask, bid, ask_size, bid_size).encode())

        self.engine.add("Ticker", native, produce)

    def _ticker_text(self, market: Market, at: int, ask: str, bid: str, ask_size: str, bid_size: str) -> str:
        listing, prices, start = market.listing, market.prices, market.start
        special = ""
        if listing.type == "Option":
            special = (
                f',"underlying_price":{market.prices[start]},"underlying_index":"SYN.{listing.base}","mark_iv":55.12,'
                '"bid_iv":54.0,"ask_iv":56.0,"interest_rate":0.0,'
                '"greeks":{"delta":0.42,"gamma":0.00002,"vega":85.2,"theta":-21.1,"rho":94.9}'
            )
        elif listing.type == "Perpetual":
            special = ',"current_funding":0.0,"funding_8h":1.742e-05,"interest_value":0.0028213400122472977'
        return (
            f'{{"timestamp":{at},"state":"open","stats":{{"high":{prices[start + market.band]},'
            f'"low":{prices[start - market.band]},"price_change":2.3275,"volume":11897.27640428,'
            f'"volume_usd":1.09237154e9,"volume_notional":1092371540.0}},"index_price":{prices[start]},'
            f'"instrument_name":"{listing.native}","last_price":{prices[market.mid]},'
            f'"settlement_price":{prices[start]},"min_price":{prices[max(1, start - 2 * market.band)]},'
            f'"max_price":{prices[start + 2 * market.band]},"open_interest":1.13232937e9,"mark_price":{prices[start]},'
            f'"best_ask_price":{ask},"best_bid_price":{bid},"estimated_delivery_price":{prices[start]},'
            f'"best_ask_amount":{ask_size},"best_bid_amount":{bid_size}{special}}}'
        )

    # -- book

    def _book_needed(self, native: str, now_ms: int) -> None:
        book = self.book(native)
        if book.remember:
            return
        book.remember = True
        book.last_taken = book.seq
        self.image_line(native, now_ms)
        traded = self._traded

        def produce(at_ms: int) -> None:
            book.touch(native in traded)
            for _ in range(1 + book.seq % 3):
                book.change()
            self._emit_book(native, at_ms)

        self.engine.add("Book", native, produce)

    def _emit_book(self, native: str, now_ms: int) -> None:
        """Send the changes since the last message, if there are any."""
        book, market = self.books[native], self.markets[native]
        prices, amounts = market.prices, market.amounts
        first, last, previous, bids, asks = book.take_changes()
        wire, kept = [], []
        for levels in (bids, asks):
            real = [level for level in levels if level[1] or level[2]]
            wire.append(
                ",".join(
                    f'["{"delete" if not lots else "change" if existed else "new"}",'
                    f"{prices[tick]},{amounts[lots] if lots else 0}]"
                    for tick, lots, existed in real
                )
            )
            kept.append(",".join(f'["{prices[tick]}","{amounts[lots] if lots else 0}"]' for tick, lots, _ in real))
        symbol = self.listings[native].symbol
        self.ledger.books.append(f"{symbol}\t{first}\t{last}\t{previous}\t{now_ms}{MS_NS}\t[{kept[0]}]\t[{kept[1]}]\n")
        topic = self.topics.get((native, "book"))
        if topic is not None and topic.started:
            topic.emit(
                f'{{"timestamp":{now_ms},"type":"change","change_id":{last},"instrument_name":"{native}",'
                f'"bids":[{wire[0]}],"asks":[{wire[1]}],"prev_change_id":{previous}}}'.encode()
            )
        for (owner, kind), grouped in self.topics.items():
            if owner == native and grouped.started and kind.startswith("group_"):
                grouped.emit(self._grouped(native, kind, now_ms).encode())

    def _grouped(self, native: str, kind: str, now_ms: int) -> str:
        """The whole window: prices rounded away from the middle to ``group``, amounts summed."""
        _, group, depth = kind.split("_")
        book, market = self.books[native], self.markets[native]
        unit = 1 if group == "none" else max(1, int(Decimal(group) / market.listing.tick))
        sides = []
        for levels, up in zip(book.image(), (False, True), strict=True):
            sums: dict[int, int] = {}
            for tick, lots in levels:
                bucket = -(-tick // unit) * unit if up else tick // unit * unit
                if bucket not in sums and len(sums) == int(depth):
                    break
                sums[bucket] = sums.get(bucket, 0) + lots
            sides.append(",".join(f"[{market.prices[t]},{market.amounts[lots]}]" for t, lots in sums.items()))
        return (
            f'{{"timestamp":{now_ms},"instrument_name":"{native}","change_id":{book.seq},'
            f'"bids":[{sides[0]}],"asks":[{sides[1]}]}}'
        )

    def snapshot(self, topic: Topic) -> str | None:
        """The first message of a new book subscription: the state its next change follows."""
        if topic.kind != "book":
            return None
        native, now_ms = topic.native, self.venue.matching_ms()
        self._book_needed(native, now_ms)
        book, market = self.books[native], self.markets[native]
        if book.changed:
            # Others must get what led to this state first, or their next prev_change_id would not fit.
            self._emit_book(native, now_ms)
        sides = [
            ",".join(f'["new",{market.prices[tick]},{market.amounts[lots]}]' for tick, lots in levels)
            for levels in book.image()
        ]
        return (
            f'{{"timestamp":{now_ms},"type":"snapshot","change_id":{book.last_taken},"instrument_name":"{native}",'
            f'"bids":[{sides[0]}],"asks":[{sides[1]}]}}'
        )

    # -- candles

    def push_candle(self, flow: CandleFlow, market: Market, now_ms: int, *, closed: bool) -> None:
        bar = market.interval_bar(flow.minutes, ended=closed)
        if bar is None or not bar.count:
            return
        prices = market.prices
        # Inverse contracts count amounts in USD: that is the cost, and the volume is in coin.
        amount, other = market.volume_text(bar.lots), market.quote_text(bar.quote)
        volume, cost = (other, amount) if market.listing.inverse else (amount, other)
        open_, high, low, close = prices[bar.open], prices[bar.high], prices[bar.low], prices[bar.close]
        if closed:
            minutes = f"{flow.minutes}m" if flow.minutes < 60 else f"{flow.minutes // 60}h"
            interval = "1d" if flow.minutes == 1440 else minutes
            self.ledger.candles.append(
                f"{market.listing.symbol}\t{interval}\t{bar.open_ms}{MS_NS}\t{open_}\t{high}\t{low}\t{close}\t"
                f"{volume}\t{cost}\t-1\t-1\t-1\n"
            )
        flow.topic.emit(
            f'{{"tick":{bar.open_ms},"open":{open_},"high":{high},"low":{low},"close":{close},'
            f'"volume":{volume},"cost":{cost}}}'.encode()
        )

    # -- methods

    def last_trades(self, native: str) -> list[tuple[int, int, str]] | None:
        """(trade_seq, time ms, JSON text) of the trades kept, ascending; None for an unknown instrument."""
        if native not in self.listings:
            return None
        market = self.market(native)
        return [(trade[0], trade[4], self.trade_text(market, trade)) for trade in market.history]

    def order_book(self, native: str, depth: int) -> str | None:
        """The result of get_order_book; its change_id belongs to the channel's chain."""
        if native not in self.listings:
            return None
        book, market, now_ms = self.book(native), self.market(native), self.venue.matching_ms()
        if book.remember and book.changed:
            self._emit_book(native, now_ms)
        bids, asks = (
            ",".join(f"[{market.prices[tick]},{market.amounts[lots]}]" for tick, lots in levels[:depth])
            for levels in book.image()
        )
        top = self._ticker_text(
            market,
            now_ms,
            market.prices[book.best_ask],
            market.prices[book.best_bid],
            market.amounts[book.asks[book.best_ask]],
            market.amounts[book.bids[book.best_bid]],
        )
        return f'{top[:-1]},"change_id":{book.seq},"bids":[{bids}],"asks":[{asks}]}}'

    def instrument(self, native: str) -> dict[str, Any] | None:
        listing = self.listings.get(native)
        if listing is None:
            return None
        inverse = listing.inverse
        row: dict[str, Any] = {
            "tick_size": float(listing.tick),
            "tick_size_steps": [{"above_price": 0.01, "tick_size": 0.001}] if listing.type == "Option" else [],
            "taker_commission": 0.0005, "maker_commission": 0.0,
            "settlement_period": "perpetual" if listing.type == "Perpetual" else "month",
            "quote_currency": listing.quote, "counter_currency": listing.quote, "base_currency": listing.base,
            "price_index": f"{listing.base}_{listing.quote}".lower(), "min_trade_amount": float(listing.lot),
            "kind": kind_of(listing), "is_active": native not in self.ended, "instrument_name": native,
            "instrument_id": 100_000 + zlib.crc32(native.encode()) % 100_000,
            "instrument_type": "reversed" if inverse or listing.settle == listing.base else "linear",
            "expiration_timestamp": listing.expiry_ms or NEVER_DERIBIT_MS, "creation_timestamp": creation_ms(listing),
            "contract_size": float(listing.contract_size), "state": "closed" if native in self.ended else "open",
        }  # fmt: skip
        if listing.type != "Spot":
            row["settlement_currency"] = listing.settle
        if listing.type == "Option":
            row |= {"option_type": listing.option_type, "strike": float(listing.strike)}
        return row

    def members(self, kind: str, currency: str) -> list[str]:
        """Instruments of a group channel ``trades.{kind}.{currency}``."""
        return [
            native
            for native, listing in self.listings.items()
            if native not in self.ended
            and kind in ("any", kind_of(listing))
            and currency in ("any", currency_of(listing))
        ]

    def instruments(self, currency: str, kind: str) -> list[dict[str, Any]]:
        found = []
        for native, listing in self.listings.items():
            if native in self.ended:
                continue
            if currency in ("any", currency_of(listing)) and kind in ("", "any", kind_of(listing)):
                row = self.instrument(native)
                assert row is not None
                found.append(row)
        return found


def currency_prefix(listing: Listing) -> str:
    """``ETH-`` or ``ETH_USDC-`` before a trade id."""
    return f"{listing.base}_{listing.quote}-" if "_" in listing.native else f"{listing.base}-"
