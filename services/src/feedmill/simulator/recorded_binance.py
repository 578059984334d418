"""Recorded Binance frames and REST bodies. Data go out as recorded; one thing is derived: an aggregate of one single
trade is also that trade, so it reaches subscribers of Spot's ``@trade`` in that form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from feedmill.simulator.binance_source import KLINE_MINUTES
from feedmill.simulator.player import Player, RecordedBook
from feedmill.simulator.recorded import Recording

if TYPE_CHECKING:
    from feedmill.simulator.venue import Venue

_MS = 1_000_000


class RecordedBinance(Player):
    def __init__(self, venue: Venue, recording: Recording) -> None:
        super().__init__(venue, recording)
        self.spot = venue.config.market == "Spot"
        self._info: dict[str, Any] = json.loads(recording.metadata[0])
        self._bodies = {native: json.loads(body) for native, body in recording.depths.items()}
        self._books: dict[str, RecordedBook] = {}
        self._candles: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        self._last_seq: dict[str, int] = {}
        for native, body in self._bodies.items():
            book = self._books[native] = RecordedBook()
            book.apply(body["lastUpdateId"], body["bids"], body["asks"])

    def channel_of(self, kind: str) -> str | None:
        if kind.startswith("kline_"):
            return "Candles" if kind[6:] in KLINE_MINUTES else None
        return {"trade": "Trades", "aggTrade": "Trades", "bookTicker": "Ticker", "depth": "Book"}.get(kind)

    def topics_of(self, name: str) -> list[tuple[str, str]]:
        pair, _, stream = name.partition("@")
        native, kind = pair.upper(), "depth" if stream.startswith("depth") else stream
        return [(native, kind)] + ([(native, "trade")] if kind == "aggTrade" and self.spot else [])

    def begin(self) -> None:
        for native, book in self._books.items():
            bids, asks = (json.dumps(side, separators=(",", ":")) for side in book.image())
            at = self._bodies[native].get("T", 0) * _MS
            self.ledger.books.append(f"{self.symbols[native]}\t0\t{book.seq}\t-1\t{at}\t{bids}\t{asks}\n")

    def play(self, name: str, data: str) -> None:
        native, kind = self.topics_of(name)[0]
        event = json.loads(data)
        symbol = self.symbols[native]
        if kind == "depth":
            self._depth(native, symbol, event)
        elif kind == "bookTicker":
            at = event.get("T", 0) * _MS
            self.ledger.tickers.append(
                f"{symbol}\t{event['u']}\t{event['b']}\t{event['B']}\t{event['a']}\t{event['A']}\t{at}\n"
            )
        elif kind == "aggTrade":
            self._aggregate(native, symbol, event)
        elif kind.startswith("kline_"):
            self._kline(native, symbol, event["k"])
        self.send((native, kind), data)

    def _depth(self, native: str, symbol: str, event: dict[str, Any]) -> None:
        previous = event.get("pu", self._last_seq.get(native, event["U"] - 1))
        self._last_seq[native] = event["u"]
        # Spot gives no matching time: its event time is the exchange time.
        at = event.get("T", event["E"]) * _MS
        bids, asks = (json.dumps(event[side], separators=(",", ":")) for side in "ba")
        self.ledger.books.append(f"{symbol}\t{event['U']}\t{event['u']}\t{previous}\t{at}\t{bids}\t{asks}\n")
        book = self._books.get(native)
        if book is not None and event["u"] > book.seq:
            book.apply(event["u"], event["b"], event["a"])

    def _aggregate(self, native: str, symbol: str, event: dict[str, Any]) -> None:
        side, at = 2 if event["m"] else 1, event["T"] * _MS
        self.sent.setdefault(native, []).append(event)
        if not self.spot:
            self.ledger.trades.append(
                f"{symbol}\t{event['a']}\t{event['p']}\t{event['q']}\t{side}\t{at}\t{event['f']}\t{event['l']}\n"
            )
        elif event["f"] == event["l"]:
            self.ledger.trades.append(f"{symbol}\t{event['f']}\t{event['p']}\t{event['q']}\t{side}\t{at}\t0\t0\n")
            trade = {key: event[key] for key in ("E", "s")} | {"t": event["f"]}
            trade = {"e": "trade"} | trade | {key: event[key] for key in ("p", "q", "T", "m", "M")}
            self.send((native, "trade"), json.dumps(trade, separators=(",", ":")))

    def _kline(self, native: str, symbol: str, k: dict[str, Any]) -> None:
        self._candles.setdefault((native, k["i"]), {})[k["t"]] = k
        if k["x"]:
            self.ledger.candles.append(
                f"{symbol}\t{k['i']}\t{k['t'] * _MS}\t{k['o']}\t{k['h']}\t{k['l']}\t{k['c']}\t{k['v']}\t{k['q']}\t"
                f"{k['n']}\t{k['f']}\t{k['L']}\n"
            )

    # -- REST

    def depth(self, native: str, limit: int) -> dict[str, Any] | None:
        """The recorded snapshot; once later changes were sent, that snapshot with them applied."""
        if native not in self.symbols:
            return None
        book = self._books.get(native)
        if book is None:
            return {"lastUpdateId": 0, "bids": [], "asks": []}
        bids, asks = ([list(level) for level in side[:limit]] for side in book.image())
        body = self._bodies[native]
        times = {key: body[key] for key in ("E", "T") if key in body}
        return {"lastUpdateId": book.seq, **times, "bids": bids, "asks": asks}

    def trade_rows(self, native: str, from_id: int | None, limit: int) -> list[dict[str, Any]] | None:
        """Of the aggregates sent, those of one single trade."""
        if native not in self.symbols:
            return None
        single = [event for event in self.sent.get(native, []) if event["f"] == event["l"]]
        wanted = single[-limit:] if from_id is None else [row for row in single if row["f"] >= from_id][:limit]
        return [
            {"id": row["f"], "price": row["p"], "qty": row["q"], "time": row["T"], "isBuyerMaker": row["m"]}
            for row in wanted
        ]

    def aggregate_rows(
        self, native: str, from_id: int | None, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[dict[str, Any]] | None:
        if native not in self.symbols:
            return None
        rows = self.sent.get(native, [])
        low, high = start_ms or 0, end_ms if end_ms is not None else 1 << 62
        wanted = [row for row in rows if row["a"] >= (from_id or 0) and low <= row["T"] <= high]
        wanted = wanted[-limit:] if from_id is None and start_ms is None else wanted[:limit]
        return [{key: row[key] for key in ("a", "p", "q", "f", "l", "T", "m")} for row in wanted]

    def kline_rows(
        self, native: str, interval: str, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[list[Any]] | None:
        if native not in self.symbols:
            return None
        low, high = start_ms or 0, end_ms if end_ms is not None else 1 << 62
        bars = [k for at, k in sorted(self._candles.get((native, interval), {}).items()) if low <= at <= high]
        keys = ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q", "B")
        return [[k[key] for key in keys] for k in (bars[:limit] if start_ms is not None else bars[-limit:])]

    def exchange_info(self, natives: list[str] | None) -> dict[str, Any] | None:
        if natives is None:
            return self._info
        if any(native not in self.symbols for native in natives):
            return None
        return self._info | {"symbols": [row for row in self._info["symbols"] if row["symbol"] in natives]}
