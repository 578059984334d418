"""Recorded Deribit frames. A ``*.raw`` channel of the recording reaches the subscribers of any interval of that
instrument, and a ticker those of its quote channel too: the channel's name is theirs, the data are as recorded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from feedmill.simulator.deribit_source import RESOLUTIONS
from feedmill.simulator.player import Player, RecordedBook
from feedmill.simulator.recorded import Recording
from feedmill.simulator.topics import Topic

if TYPE_CHECKING:
    from feedmill.simulator.venue import Venue

_MS = 1_000_000


class RecordedDeribit(Player):
    def __init__(self, venue: Venue, recording: Recording) -> None:
        super().__init__(venue, recording)
        self._rows: dict[str, dict[str, Any]] = {}
        for body in recording.metadata:
            self._rows |= {row["instrument_name"]: row for row in json.loads(body)["result"]}
        self._books: dict[str, RecordedBook] = {}
        self._times: dict[str, int] = {}
        self._tickers: dict[str, str] = {}

    def channel_of(self, kind: str) -> str | None:
        if kind.startswith("chart_"):
            return "Candles" if kind[6:] in RESOLUTIONS else None
        return {"trades": "Trades", "quote": "Ticker", "ticker": "Ticker", "book": "Book"}.get(kind)

    def topics_of(self, name: str) -> list[tuple[str, str]]:
        parts = name.split(".")
        if parts[0] == "chart":
            return [(parts[2], f"chart_{parts[3]}")]
        return [(parts[1], parts[0])] + ([(parts[1], "quote")] if parts[0] == "ticker" else [])

    def begin(self) -> None:
        """The recorded frames hold their snapshots themselves: the topics' first messages."""
        self.started = True

    def play(self, name: str, data: str) -> None:
        native, kind = self.topics_of(name)[0]
        # Numbers stay the text they were received as.
        event = json.loads(data, parse_float=str, parse_int=str)
        if kind == "ticker":
            self._tickers[native] = data
            keys = ("best_bid_price", "best_bid_amount", "best_ask_price", "best_ask_amount")
            values = "\t".join("" if event.get(key) is None else event[key] for key in keys)
            self.ledger.tickers.append(f"{self.symbols[native]}\t0\t{values}\t{int(event['timestamp']) * _MS}\n")
        elif kind == "book":
            self._book(native, event)
        elif kind == "trades":
            self._trade(native, data)
        for key in self.topics_of(name):
            self.send(key, data)

    def _book(self, native: str, event: dict[str, Any]) -> None:
        image = event["type"] == "snapshot"
        book = self._books.get(native)
        if image or book is None:
            book = self._books[native] = RecordedBook()
        seq, at = int(event["change_id"]), int(event["timestamp"])
        sides = [[[price, size] for _, price, size in event[side]] for side in ("bids", "asks")]
        book.apply(seq, *sides)
        self._times[native] = at
        first, previous = (0, -1) if image else (seq, int(event.get("prev_change_id", -1)))
        bids, asks = (json.dumps(side, separators=(",", ":")) for side in sides)
        symbol = self.symbols[native]
        self.ledger.books.append(f"{symbol}\t{first}\t{seq}\t{previous}\t{at * _MS}\t{bids}\t{asks}\n")

    def _trade(self, native: str, data: str) -> None:
        for row, kept in zip(json.loads(data, parse_float=str), json.loads(data), strict=True):
            side = 1 if row["direction"] == "buy" else 2
            self.ledger.trades.append(
                f"{self.symbols[native]}\t{row['trade_seq']}\t{row['price']}\t{row['amount']}\t{side}\t"
                f"{row['timestamp'] * _MS}\t0\t0\n"
            )
            self.sent.setdefault(native, []).append((row["trade_seq"], row["timestamp"], json.dumps(kept)))

    def snapshot(self, topic: Topic) -> str | None:
        """None until the recorded snapshot went out; then the book as it stands, for a later subscriber."""
        book = self._books.get(topic.native)
        if topic.kind != "book" or book is None:
            return None
        bids, asks = (",".join(f'["new",{p},{s}]' for p, s in side) for side in book.image())
        return (
            f'{{"type":"snapshot","timestamp":{self._times[topic.native]},"instrument_name":"{topic.native}",'
            f'"change_id":{book.seq},"bids":[{bids}],"asks":[{asks}]}}'
        )

    # -- methods

    def members(self, kind: str, currency: str) -> list[str]:
        return [row["instrument_name"] for row in self.instruments(currency, kind)]

    def last_trades(self, native: str) -> list[tuple[int, int, str]] | None:
        return self.sent.get(native, []) if native in self.symbols else None

    def order_book(self, native: str, depth: int) -> str | None:
        if native not in self.symbols:
            return None
        book = self._books.get(native) or RecordedBook()
        bids, asks = (",".join(f"[{p},{s}]" for p, s in side[:depth]) for side in book.image())
        head = self._tickers.get(native, f'{{"timestamp":0,"instrument_name":"{native}"}}')
        return f'{head[:-1]},"change_id":{max(book.seq, 0)},"bids":[{bids}],"asks":[{asks}]}}'

    def instrument(self, native: str) -> dict[str, Any] | None:
        return self._rows.get(native)

    def instruments(self, currency: str, kind: str) -> list[dict[str, Any]]:
        return [
            row
            for row in self._rows.values()
            if currency in ("any", row["base_currency"], row["quote_currency"]) and kind in ("", "any", row["kind"])
        ]
