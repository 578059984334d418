"""What feedmill tail prints."""

from __future__ import annotations

import json

import pytest

from feedmill.cli.tail import Event, Wanted, as_json, line, of_block
from feedmill.shared.events import (
    BookSnapshot,
    Candle,
    DeadLetter,
    EventBlock,
    Gap,
    Instrument,
    Ticker,
    Trade,
    decode_events,
    encode,
)
from feedmill.shared.keys import ShardRef

SHARD = ShardRef("default", "spot", 0)
T = 1_760_000_000_123_000_000
TRADE = Trade("BTC-USDT", 7, "100.10", "0.5", 2, T, T + 5, flags=1)
TICKER = Ticker("BTC-USDT", 9, "100.0", "1", "", "", 0, T)
BOOK = BookSnapshot("ETH-USDT", T, 3, T, T, [("10", "1"), ("9", "2")], [("11", "4")])
CANDLE = Candle("BTC-USDT", "1m", T, "1", "2", "0.5", "1.5", "10", "", -1, -1, -1, False, T, T)
GAP = Gap("id", "BTC-USDT", "Trades", "sequence", "open", 5, -1, [(5, 6)], T, 0, "", 1, T)
LETTER = DeadLetter("s", 1, 0, 1, T, "bad_json", "unexpected end", "0.1.0", b"\x00{")
INSTRUMENT = Instrument("BTC-USDT", "BTCUSDT", "Spot", "BTC", "USDT", "", "TRADING", "0.01", "0.001", "1", 0, "", "", T)


@pytest.mark.parametrize(
    ("event", "end"),
    [
        (TRADE, "sell 100.10 x 0.5  id 7 late"),
        (TICKER, "100.0 x 1 | - x -"),
        (BOOK, "10 x 1 | 11 x 4  2+1 levels at 08:53:20"),
        (CANDLE, "1m o 1 h 2 l 0.5 c 1.5 v 10 open"),
        (GAP, "Trades 5..? open: sequence"),
        (LETTER, "bad_json: unexpected end (2 bytes kept)"),
        (INSTRUMENT, "BTCUSDT Spot TRADING tick 0.01 lot 0.001"),
    ],
)
def test_lines(event: Event, end: str) -> None:
    shown = line(SHARD, event)
    assert shown.endswith(end)
    assert shown.startswith("08:53:20.123  spot ")


def test_json_lines_hold_every_field_exactly() -> None:
    found = json.loads(as_json(SHARD, TRADE))
    assert found["price"] == "100.10"
    assert (found["feed"], found["shard"], found["kind"]) == ("default/spot", 0, "trade")
    assert json.loads(as_json(SHARD, LETTER))["payload"] == "007b"
    assert json.loads(as_json(SHARD, GAP))["missing"] == [[5, 6]]


def test_blocks_are_taken_apart_and_filtered() -> None:
    block = EventBlock(
        trades=[TRADE], tickers=[TICKER], books=[BOOK], candles=[CANDLE], gaps=[GAP], dead_letters=[LETTER],
        instruments=[INSTRUMENT],
    )  # fmt: skip
    events = list(of_block(decode_events(encode(block))))
    assert len(events) == len(block)
    assert [event for event in events if Wanted(frozenset({"gap"})).takes(event)] == [GAP]
    assert [event for event in events if Wanted(symbols=frozenset({"ETH-USDT"})).takes(event)] == [BOOK]
    assert all(Wanted().takes(event) for event in events)
