"""The seeded source of Binance Spot and USD-M: messages and REST rows in the venues' exact forms."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from feedmill.simulator.catalog import NEVER_BINANCE_MS, Listing, creation_ms
from feedmill.simulator.generated import MS_NS, CandleFlow, Generated
from feedmill.simulator.market import MINUTE_MS, Bar, Market, MarketTrade
from feedmill.simulator.topics import Topic

if TYPE_CHECKING:
    from feedmill.simulator.venue import Venue

KLINE_MINUTES = {
    "1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240, "6h": 360, "8h": 480,
    "12h": 720, "1d": 1440,
}  # fmt: skip
BAD_PRICE = "not-a-number"


class BinanceSource(Generated):
    def __init__(self, venue: Venue, listed: dict[str, Listing]) -> None:
        super().__init__(venue, listed)
        self.spot = venue.config.market == "Spot"
        self.raw_per_unit = 1 if self.spot else 3
        self.book_step = 1 if self.spot else 40

    def channel_of(self, kind: str) -> str | None:
        if kind in ("trade", "aggTrade"):
            return "Trades"
        if kind.startswith("kline_"):
            return "Candles" if kind[6:] in KLINE_MINUTES else None
        return {"bookTicker": "Ticker", "depth": "Book"}.get(kind)

    def start(self, topic: Topic, now_ms: int) -> None:
        native = topic.native
        if topic.channel in ("Trades", "Candles") and self.trades_needed(native, now_ms):
            self._add_trades(native)
        if topic.kind == "bookTicker":
            self._add_ticker(topic)
        elif topic.kind == "depth":
            self._add_depth(topic, now_ms)
        elif topic.channel == "Candles":
            interval = topic.kind[6:]
            self.add_candles(topic, interval, KLINE_MINUTES[interval], 2000 if self.spot else 250)

    def _add_trades(self, native: str) -> None:
        market = self.market(native)
        symbol = market.listing.symbol
        trade, aggregate = self.topic(native, "trade"), self.topic(native, "aggTrade")
        assert trade is not None
        assert aggregate is not None
        prices, amounts, lines = market.prices, market.amounts, self.ledger.trades
        spot = self.spot
        # What our trade unit is: Spot's raw trades, USD-M's aggregates. Only that goes into the ledger.
        unit_topic = trade if spot else aggregate
        one = (
            f'{{"e":"trade","E":%d,"s":"{native}","t":%d,"p":"%s","q":"%s","T":%d,"m":%s,"M":true}}'
            if spot
            else f'{{"e":"trade","E":%d,"T":%d,"s":"{native}","t":%d,"p":"%s","q":"%s","X":"MARKET","m":%s}}'
        )
        many = (
            f'{{"e":"aggTrade","E":%d,"s":"{native}","a":%d,"p":"%s","q":"%s","f":%d,"l":%d,"T":%d,"m":%s,"M":true}}'
            if spot
            else f'{{"e":"aggTrade","E":%d,"a":%d,"s":"{native}","p":"%s","q":"%s","nq":"%s",'
            '"f":%d,"l":%d,"T":%d,"m":%s,"st":1}'
        )

        def produce(now_ms: int) -> None:
            item = market.trade(now_ms)
            unit, ticks, lots, buy, _, first, last = item
            price, size, maker = prices[ticks], amounts[lots], "false" if buy else "true"
            if unit_topic.bad_prices:
                unit_topic.bad_prices -= 1
                price = BAD_PRICE
                self.venue.log_fault("bad_price", symbol, "Trades", str(unit))
            elif unit_topic.started:
                raws = "0\t0" if spot else f"{first}\t{last}"
                lines.append(f"{symbol}\t{unit}\t{price}\t{size}\t{2 - buy}\t{now_ms}{MS_NS}\t{raws}\n")
            if trade.started:
                if spot:
                    trade.emit((one % (now_ms + 1, unit, price, size, now_ms, maker)).encode())
                else:
                    for raw, part in market.raws(item):
                        trade.emit((one % (now_ms + 1, now_ms, raw, price, amounts[part], maker)).encode())
            if aggregate.started:
                if spot:
                    text = many % (now_ms + 1, unit, price, size, first, last, now_ms, maker)
                else:
                    # nq leaves out what retail orders took: now and then less than q.
                    normal = size if unit & 15 else amounts[lots - lots // 4]
                    text = many % (now_ms + 1, unit, price, size, normal, first, last, now_ms, maker)
                aggregate.emit(text.encode())

        self.engine.add("Trades", native, produce)

    def _add_ticker(self, topic: Topic) -> None:
        native, symbol = topic.native, topic.symbol
        book, market = self.book(native), self.market(native)
        prices, amounts, lines, traded, spot = (
            market.prices,
            market.amounts,
            self.ledger.tickers,
            self._traded,
            self.spot,
        )
        tail = f'"s":"{native}","b":"%s","B":"%s","a":"%s","A":"%s"}}'
        form = '{"u":%d,' + tail
        if not spot:
            tail = tail.replace('"b"', f'"ps":"{native}","b"')[:-1] + ',"st":1}'
            form = '{"e":"bookTicker","u":%d,"E":%d,"T":%d,' + tail

        def produce(now_ms: int) -> None:
            book.touch(native in traded)
            bid, bid_size = prices[book.best_bid], amounts[book.bids[book.best_bid]]
            ask, ask_size = prices[book.best_ask], amounts[book.asks[book.best_ask]]
            seq = book.seq
            if spot:
                lines.append(f"{symbol}\t{seq}\t{bid}\t{bid_size}\t{ask}\t{ask_size}\t0\n")
                topic.emit((form % (seq, bid, bid_size, ask, ask_size)).encode())
            else:
                lines.append(f"{symbol}\t{seq}\t{bid}\t{bid_size}\t{ask}\t{ask_size}\t{now_ms}{MS_NS}\n")
                topic.emit((form % (seq, now_ms + 1, now_ms, bid, bid_size, ask, ask_size)).encode())

        self.engine.add("Ticker", native, produce)

    def _add_depth(self, topic: Topic, now_ms: int) -> None:
        native, symbol = topic.native, topic.symbol
        book, market = self.book(native), self.market(native)
        prices, amounts, lines = market.prices, market.amounts, self.ledger.books
        traded, spot = self._traded, self.spot
        book.remember = True
        book.last_taken = book.seq
        self.image_line(native, now_ms)
        if spot:
            form = f'{{"e":"depthUpdate","E":%d,"s":"{native}","U":%d,"u":%d,"b":%s,"a":%s}}'
        else:
            form = (
                f'{{"e":"depthUpdate","E":%d,"T":%d,"s":"{native}","ps":"{native}",'
                '"U":%d,"u":%d,"pu":%d,"b":%s,"a":%s,"st":1}'
            )

        def side(levels: list[tuple[int, int, bool]]) -> str:
            return "[" + ",".join([f'["{prices[tick]}","{amounts[lots]}"]' for tick, lots, _ in levels]) + "]"

        def produce(now_ms: int) -> None:
            book.touch(native in traded)
            for _ in range(1 + book.seq % 3):
                book.change()
            first, last, previous, bids, asks = book.take_changes()
            b, a = side(bids), side(asks)
            # Spot's event carries E only, so that is its exchange time.
            at = now_ms + 1 if spot else now_ms
            lines.append(f"{symbol}\t{first}\t{last}\t{previous}\t{at}{MS_NS}\t{b}\t{a}\n")
            values = (now_ms + 1, first, last, b, a) if spot else (now_ms + 1, now_ms, first, last, previous, b, a)
            topic.emit((form % values).encode())

        self.engine.add("Book", native, produce)

    def push_candle(self, flow: CandleFlow, market: Market, now_ms: int, *, closed: bool) -> None:
        bar = market.interval_bar(flow.minutes, ended=closed)
        if bar is None:
            return
        native = market.listing.native
        k = self._kline(market, bar, flow.interval)
        k["x"] = closed
        event = {"e": "kline", "E": now_ms + 1, "s": native, "k": k} | ({} if self.spot else {"st": 1})
        if closed:
            self.ledger.candles.append(
                f"{market.listing.symbol}\t{flow.interval}\t{bar.open_ms}{MS_NS}\t{k['o']}\t{k['h']}\t{k['l']}\t"
                f"{k['c']}\t{k['v']}\t{k['q']}\t{bar.count}\t{bar.first}\t{bar.last}\n"
            )
        flow.topic.emit(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode())

    def _kline(self, market: Market, bar: Bar, interval: str) -> dict[str, Any]:
        prices = market.prices
        return {
            "t": bar.open_ms, "T": bar.open_ms + KLINE_MINUTES[interval] * MINUTE_MS - 1,
            "s": market.listing.native, "i": interval, "f": bar.first, "L": bar.last,
            "o": prices[bar.open], "c": prices[bar.close], "h": prices[bar.high], "l": prices[bar.low],
            "v": market.volume_text(bar.lots), "n": bar.count, "x": False, "q": market.quote_text(bar.quote),
            "V": market.volume_text(bar.taker_lots), "Q": market.quote_text(bar.taker_quote), "B": "0",
        }  # fmt: skip

    # -- REST

    def depth(self, native: str, limit: int) -> dict[str, Any] | None:
        """A snapshot as of now; its id may lie inside the next event."""
        if native not in self.listings:
            return None
        book, market = self.book(native), self.market(native)
        now_ms = self.venue.matching_ms()
        topic = self.topics.get((native, "depth"))
        if topic is not None and topic.started:
            self.image_line(native, now_ms)
        bids, asks = (
            [[market.prices[tick], market.amounts[lots]] for tick, lots in levels[:limit]] for levels in book.image()
        )
        times = {} if self.spot else {"E": now_ms + 1, "T": now_ms}
        return {"lastUpdateId": book.seq, **times, "bids": bids, "asks": asks}

    def trade_rows(self, native: str, from_id: int | None, limit: int) -> list[dict[str, Any]] | None:
        """Raw trades, ascending: from ``from_id`` on, or the last ``limit``."""
        if native not in self.listings:
            return None
        market = self.market(native)
        rows: list[dict[str, Any]] = []
        if from_id is None:
            items: list[MarketTrade] = list(islice(reversed(market.history), limit))[::-1]
        else:
            items = [item for item in market.history if item[6] >= from_id]
        for item in items:
            _, ticks, _, buy, at, _, _ = item
            for raw, lots in market.raws(item):
                if from_id is not None and raw < from_id:
                    continue
                row = {
                    "id": raw, "price": market.prices[ticks], "qty": market.amounts[lots],
                    "quoteQty": market.quote_text(ticks * lots), "time": at, "isBuyerMaker": not buy,
                }  # fmt: skip
                rows.append(row | ({"isBestMatch": True} if self.spot else {"isRPITrade": False}))
            if from_id is not None and len(rows) >= limit:
                break
        return rows[:limit] if from_id is not None else rows[-limit:]

    def aggregate_rows(
        self, native: str, from_id: int | None, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[dict[str, Any]] | None:
        if native not in self.listings:
            return None
        market = self.market(native)
        items: list[MarketTrade] = list(market.history)
        if from_id is not None:
            items = [item for item in items if item[0] >= from_id][:limit]
        elif start_ms is not None or end_ms is not None:
            low, high = start_ms or 0, end_ms if end_ms is not None else 1 << 62
            items = [item for item in items if low <= item[4] <= high][:limit]
        else:
            items = items[-limit:]
        return [
            {
                "a": unit, "p": market.prices[ticks], "q": market.amounts[lots], "f": first, "l": last, "T": at,
                "m": not buy,
            } | ({"M": True} if self.spot else {})
            for unit, ticks, lots, buy, at, first, last in items
        ]  # fmt: skip

    def kline_rows(
        self, native: str, interval: str, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[list[Any]] | None:
        """Rows of the bars known, the running one last."""
        if native not in self.listings:
            return None
        market = self.market(native)
        size = KLINE_MINUTES[interval] * MINUTE_MS
        merged: dict[int, Bar] = {}
        for bar in (*market.bars, *([] if market.bar is None else [market.bar])):
            open_ms = bar.open_ms - bar.open_ms % size
            if open_ms not in merged:
                merged[open_ms] = Bar(open_ms, -1, -1, bar.open, bar.open, bar.open, bar.open)
            merged[open_ms].add(bar)
        low, high = start_ms or 0, end_ms if end_ms is not None else 1 << 62
        wanted = [bar for bar in merged.values() if low <= bar.open_ms <= high]
        wanted = wanted[:limit] if start_ms is not None else wanted[-limit:]
        rows = []
        for bar in wanted:
            k = self._kline(market, bar, interval)
            rows.append([k[key] for key in ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q")] + ["0"])
        return rows

    def exchange_info(self, natives: list[str] | None) -> dict[str, Any] | None:
        """None when a symbol is unknown."""
        if natives is not None and any(native not in self.listings for native in natives):
            return None
        wanted = list(self.listings) if natives is None else natives
        symbols = [self._symbol_info(self.listings[native]) for native in wanted]
        limit = self.venue.limits.weight
        return {
            "timezone": "UTC",
            "serverTime": self.venue.matching_ms() + 1,
            "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": limit}],
            "exchangeFilters": [],
            "symbols": symbols,
        } | ({} if self.spot else {"futuresType": "U_MARGINED", "assets": []})

    def _symbol_info(self, listing: Listing) -> dict[str, Any]:
        tick, lot = f"{listing.tick:.{listing.price_decimals}f}", f"{listing.lot:.{listing.size_decimals}f}"
        top = f"{listing.price * 100:.{listing.price_decimals}f}"
        price_filter = {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": top, "tickSize": tick}
        lot_filter = {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "9000000", "stepSize": lot}
        status = "TRADING" if listing.native not in self.ended else "BREAK" if self.spot else "SETTLING"
        if self.spot:
            return {
                "symbol": listing.native, "status": status, "baseAsset": listing.base, "baseAssetPrecision": 8,
                "quoteAsset": listing.quote, "quotePrecision": 8, "quoteAssetPrecision": 8,
                "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"], "isSpotTradingAllowed": True,
                "filters": [price_filter, lot_filter, {"filterType": "NOTIONAL", "minNotional": "5.00000000"}],
                "permissions": [], "permissionSets": [["SPOT"]], "defaultSelfTradePreventionMode": "NONE",
                "allowedSelfTradePreventionModes": ["NONE"],
            }  # fmt: skip
        return {
            "symbol": listing.native, "pair": listing.base + listing.quote,
            "contractType": "CURRENT_QUARTER" if listing.expiry_ms else "PERPETUAL",
            "deliveryDate": listing.expiry_ms or NEVER_BINANCE_MS, "onboardDate": creation_ms(listing),
            "status": status, "baseAsset": listing.base, "quoteAsset": listing.quote,
            "marginAsset": listing.settle, "pricePrecision": listing.price_decimals + 1,
            "quantityPrecision": listing.size_decimals, "underlyingType": "COIN",
            "filters": [price_filter, lot_filter, {"filterType": "MIN_NOTIONAL", "notional": "5.0"}],
            "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
        }  # fmt: skip
