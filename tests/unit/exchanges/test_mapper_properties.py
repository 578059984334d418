"""Properties of all mappers: both paths agree, whatever comes is mapped or refused with a MapError, nothing else."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.exchanges.base import MapError, Venue, VenueEvent
from feedmill.exchanges.binance_spot import VENUE as SPOT
from feedmill.exchanges.binance_usdm import VENUE as USDM
from feedmill.exchanges.deribit import VENUE as DERIBIT
from feedmill.exchanges.deribit.numbers import canonical, plain, ticker_seq
from feedmill.shared.events import EventBlock, Ticker, Trade, decode_events, encode

SYMBOLS = {"BTCUSDT": "BTC-USDT", "BTC-PERPETUAL": "BTC-PERPETUAL"}
texts = st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=0, max_value=10**9).map(str)
ids = st.integers(0, 2**63 - 1)
times = st.integers(0, 9_223_372_036_854_775)
natives = st.sampled_from(["BTCUSDT", "OTHER"])
levels = st.lists(st.lists(texts, min_size=2, max_size=2), max_size=3)
trade = st.fixed_dictionaries(
    {"e": st.just("trade"), "E": times, "s": natives, "t": ids, "p": texts, "q": texts, "T": times, "m": st.booleans()}
)
agg = st.fixed_dictionaries(
    {
        "e": st.just("aggTrade"), "E": times, "a": ids, "s": natives, "p": texts, "q": texts, "f": ids, "l": ids,
        "T": times, "m": st.booleans(),
    }
)  # fmt: skip
quote = st.fixed_dictionaries({"u": ids, "s": natives, "b": texts, "B": texts, "a": texts, "A": texts})
usdm_quote = st.builds(lambda fields, time: {"e": "bookTicker", "T": time, **fields}, quote, times)
depth = st.fixed_dictionaries(
    {
        "e": st.just("depthUpdate"), "E": times, "T": times, "s": natives, "U": ids, "u": ids, "pu": ids, "b": levels,
        "a": levels,
    }
)  # fmt: skip
CASES: dict[str, tuple[Venue, str, st.SearchStrategy[dict[str, Any]]]] = {
    "spot trade": (SPOT, "btcusdt@trade", trade),
    "spot aggTrade": (SPOT, "btcusdt@aggTrade", agg),
    "spot quote": (SPOT, "btcusdt@bookTicker", quote),
    "spot depth": (SPOT, "btcusdt@depth@100ms", depth),
    "usdm aggTrade": (USDM, "btcusdt@aggTrade", agg),
    "usdm quote": (USDM, "btcusdt@bookTicker", usdm_quote),
    "usdm depth": (USDM, "btcusdt@depth@100ms", depth),
}


def outcome(call: Any, payload: bytes) -> list[VenueEvent] | str:
    try:
        return list(call(payload, 5))
    except MapError as error:
        return error.reason


@pytest.mark.parametrize("case", CASES)
@given(data=st.data())
def test_the_fast_and_the_general_path_give_equal_events(case: str, data: st.DataObject) -> None:
    venue, stream, payloads = CASES[case]
    payload = data.draw(payloads)
    if data.draw(st.integers(0, 9)) == 0:
        payload.pop(data.draw(st.sampled_from(sorted(payload))))
    shuffled = dict(data.draw(st.permutations(list(payload.items()))))
    mapper: Any = venue.mapper(SYMBOLS)
    compact = json.dumps({"stream": stream, "data": payload}, separators=(",", ":")).encode()
    expected = outcome(mapper.map, compact)
    assert outcome(mapper.general, compact) == expected
    assert outcome(mapper.map, json.dumps({"data": shuffled, "x": 1, "stream": stream}).encode()) == expected
    if isinstance(expected, list):
        assert outcome(mapper.map, json.dumps(shuffled).encode()) == expected
        # What a mapper lets through, the events stream can carry.
        trades = [event for event in expected if isinstance(event, Trade)]
        tickers = [event for event in expected if isinstance(event, Ticker)]
        block = EventBlock(trades=trades, tickers=tickers)
        assert decode_events(encode(block)) == block


def combined(stream: str, payload: str) -> bytes:
    return f'{{"stream":"{stream}","data":{payload}}}'.encode()


def notification(channel: str, data: str) -> bytes:
    return f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":{data}}}}}'.encode()


SEEDS = [
    (SPOT, combined("btcusdt@trade", '{"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"1","q":"1","T":1,"m":true}')),
    (SPOT, combined("btcusdt@bookTicker", '{"u":1,"s":"BTCUSDT","b":"1","B":"1","a":"1","A":"1"}')),
    (
        USDM,
        combined(
            "btcusdt@aggTrade",
            '{"e":"aggTrade","a":1,"s":"BTCUSDT","p":"1","q":"1","f":1,"l":1,"T":1,"m":true}',
        ),
    ),
    (
        DERIBIT,
        notification(
            "trades.BTC-PERPETUAL.100ms",
            '[{"timestamp":1,"price":1.5,"amount":1e1,"direction":"buy","instrument_name":"BTC-PERPETUAL",'
            '"trade_seq":1,"trade_id":"1"}]',
        ),
    ),
    (
        DERIBIT,
        notification(
            "book.BTC-PERPETUAL.100ms",
            '{"timestamp":1,"type":"change","change_id":2,"prev_change_id":1,"instrument_name":"BTC-PERPETUAL",'
            '"bids":[["new",1.5,2]],"asks":[]}',
        ),
    ),
    (
        DERIBIT,
        notification(
            "quote.BTC-PERPETUAL",
            '{"timestamp":1,"instrument_name":"BTC-PERPETUAL","best_bid_price":1,"best_bid_amount":1,'
            '"best_ask_price":null,"best_ask_amount":0}',
        ),
    ),
]


@pytest.mark.parametrize(("venue", "seed"), SEEDS)
@given(data=st.data())
def test_damaged_frames_are_mapped_or_refused_and_judged_without_raising(
    venue: Venue, seed: bytes, data: st.DataObject
) -> None:
    mapper: Any = venue.mapper(SYMBOLS)
    assert len(mapper.map(seed, 5)) == 1
    damaged = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=3))
        if not damaged:
            break
    payload = bytes(damaged)
    assert outcome(mapper.map, payload) == outcome(mapper.general, payload)
    venue.feed("wss://h").classify(payload)


KEYS = st.sampled_from(["e", "s", "data", "stream", "result", "id", "error", "code", "method", "params", "event"])
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
).map(msgspec.json.encode)


@pytest.mark.parametrize("venue", [SPOT, USDM, DERIBIT])
@given(payload=st.binary() | documents)
def test_anything_at_all_is_mapped_or_refused(venue: Venue, payload: bytes) -> None:
    mapper: Any = venue.mapper(SYMBOLS)
    outcome(mapper.map, payload)
    venue.feed("wss://h").classify(payload)
    for kind in ("book_snapshot", "trades", "instruments"):
        outcome(lambda body, at, kind=kind: mapper.map_rest(kind, "BTC-USDT", 200, body, at), payload)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=10))
def test_numbers_stay_exact_and_equal_ones_hash_alike(number: Decimal) -> None:
    forms = {format(number, "f"), plain(f"{number:E}"), canonical(format(number, "f")), format(number, "f") + "00"}
    assert all("e" not in form.lower() and Decimal(form) == number for form in forms)
    assert len({canonical(form) for form in forms}) == 1
    assert len({ticker_seq("I", 1, form, "1", "2", "3") for form in forms}) == 1
