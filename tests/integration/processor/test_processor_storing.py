"""What is in the events streams comes to be in PostgreSQL, once, with the position."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from feedmill.shared.clock import SECOND
from feedmill.shared.events import BookSnapshot, Candle, DeadLetter, EventBlock, Gap, Instrument, Ticker

from .conftest import BASE, MINUTE, REF, SYMBOL, Bench, shard_settings, trade

NOON = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=BASE // SECOND)


async def test_rows_and_position_come_together(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.trades(1, 120)
    run = bench.start()
    await bench.until_stored()
    assert await bench.value("SELECT count(*) FROM trades") == 120
    position = await bench.fetch("SELECT n, commit_id, stream_id FROM applied WHERE shard = $1", str(REF))
    assert position == [(distributor.n, distributor.id, distributor.entries[-1])]
    await distributor.trades(121, 130)
    await bench.until_stored()
    await run.end()
    assert await bench.value("SELECT count(*) FROM trades") == 130


async def test_every_kind_of_event_with_all_its_columns(bench: Bench) -> None:
    first = trade(7, BASE + 123_456_789, price="0.10", first_id=70, last_id=72, venue_id="v7", flags=3)
    block = EventBlock(
        trades=[first],
        tickers=[
            Ticker(SYMBOL, 5, "1.10", "2", "", "", BASE, BASE + 1),
            Ticker(SYMBOL, 6, "", "", "1.30", "0.500", 0, BASE + 2, 1),
        ],
        books=[BookSnapshot(SYMBOL, BASE, 9, BASE - 5, BASE - 4, [("1.10", "2"), ("1.0", "3")], [])],
        candles=[Candle(SYMBOL, "1m", BASE, "1", "2", "0.5", "1.5", "9", "", -1, -1, -1, True, BASE, BASE + 3)],
        gaps=[Gap("g/1", SYMBOL, "Trades", "sequence", "open", 3, 6, [(3, 4), (6, 6)], 10, 0, "", 1, 11)],
        dead_letters=[DeadLetter("r0-1", 4, 2, 1, 12, "undecodable", "a\x00b", "0.1", b"\x00\xff")],
        instruments=[
            Instrument(SYMBOL, "BTCUSDT", "Spot", "BTC", "USDT", "", "trading", "0.01", "", "", 0, "", "", BASE)
        ],
    )
    await bench.distributor().commit(block)
    bench.start()
    await bench.until_stored()
    assert await bench.fetch("SELECT id, exchange, market, symbol, native FROM instruments") == [
        (1, "binance", "Spot", SYMBOL, "BTCUSDT")
    ]
    columns = "trade_id, time, price::text, size::text, side, exchange_ns, receive_ns, flags, first_id, last_id"
    assert await bench.fetch(f"SELECT {columns}, venue_id FROM trades") == [
        (
            *(7, NOON + timedelta(milliseconds=123), "0.10", "0.25", 2, BASE + 123_456_789, first.receive_ns),
            *(3, 70, 72, "v7"),
        )
    ]
    columns = "day, seq, bid::text, bid_size::text, ask::text, ask_size::text, exchange_ns, receive_ns, flags"
    assert await bench.fetch(f"SELECT {columns} FROM tickers ORDER BY seq") == [
        (NOON.date(), 5, "1.10", "2", None, None, BASE, BASE + 1, 0),
        (NOON.date(), 6, None, None, "1.30", "0.500", None, BASE + 2, 1),
    ]
    columns = "time, seq, exchange_ns, receive_ns, bid_prices, bid_sizes, ask_prices, ask_sizes"
    assert await bench.fetch(f"SELECT {columns} FROM book_snapshots") == [
        (NOON, 9, BASE - 5, BASE - 4, [Decimal("1.10"), Decimal("1.0")], [Decimal(2), Decimal(3)], [], [])
    ]
    columns = "interval, open_time, open, high, low, close, volume, quote_volume, trades, first_id, last_id, closed"
    assert await bench.fetch(f"SELECT {columns} FROM venue_candles") == [
        (
            *("1m", NOON, Decimal(1), Decimal(2), Decimal("0.5"), Decimal("1.5"), Decimal(9), None, None, None, None),
            True,
        )
    ]
    columns = "id, shard, instrument_id, channel, cause, state, from_seq, to_seq, missing::text, from_ns, to_ns"
    assert await bench.fetch(f"SELECT {columns}, revision FROM gaps") == [
        ("g/1", str(REF), 1, "Trades", "sequence", "open", 3, 6, "{[3,5),[6,7)}", 10, None, 1)
    ]
    columns = "shard, session, batch, idx, conn, receive_ns, reason, detail, code_version, payload"
    assert await bench.fetch(f"SELECT {columns} FROM dead_letters") == [
        (str(REF), "r0-1", 4, 2, 1, 12, "undecodable", "a\\x00b", "0.1", b"\x00\xff")
    ]
    columns = "valid_from, valid_to, type, base, quote, settle, status, tick::text, lot, contract_size, expiry, strike"
    assert await bench.fetch(f"SELECT {columns} FROM instrument_versions") == [
        (NOON, None, "Spot", "BTC", "USDT", "", "trading", "0.01", None, None, None, None)
    ]


async def test_what_is_there_already_changes_nothing(bench: Bench) -> None:
    distributor = bench.distributor()
    ticker = Ticker(SYMBOL, 5, "1", "2", "3", "4", BASE, BASE + 1)
    book = BookSnapshot(SYMBOL, BASE, 9, BASE, BASE, [("1", "2")], [("3", "4")])
    for _ in range(3):
        await distributor.commit(trades=[trade(n) for n in range(1, 21)], tickers=[ticker, ticker], books=[book, book])
    # The same trade as REST tells it: another receive time, another flag, the same key.
    await distributor.commit(trades=[trade(5, flags=2), trade(21)])
    run = bench.start()
    await bench.until_stored()
    assert await bench.fetch("SELECT count(*), count(DISTINCT trade_id) FROM trades") == [(21, 21)]
    assert await bench.value("SELECT flags FROM trades WHERE trade_id = 5") == 0
    assert await bench.value("SELECT count(*) FROM tickers") == 1
    assert await bench.value("SELECT count(*) FROM book_snapshots") == 1
    candle = await bench.fetch("SELECT trades, volume, first_id, last_id FROM candles WHERE interval = '1m'")
    assert candle == [(21, Decimal("0.25") * 21, 1, 21)]
    assert run.shard().rows == 23
    assert run.shard().duplicates == 41 + 5 + 5


async def test_an_empty_commit_moves_the_position(bench: Bench) -> None:
    await bench.distributor().commit()
    bench.start()
    await bench.until_stored()
    assert await bench.value("SELECT n FROM applied") == 1


async def test_names_of_the_manifest_are_known_before_the_venue_tells_them(bench: Bench) -> None:
    await bench.distributor().commit(trades=[trade(1), trade(1, symbol="ETH-USDT")])
    bench.start(shard_settings(natives={SYMBOL: "BTCUSDT"}))
    await bench.until_stored()
    found = await bench.fetch("SELECT symbol, native FROM instruments ORDER BY symbol")
    assert found == [(SYMBOL, "BTCUSDT"), ("ETH-USDT", "ETH-USDT")]


async def test_a_gap_is_replaced_by_a_higher_revision_only(bench: Bench) -> None:
    def gap(revision: int, state: str, missing: list[tuple[int, int]], repaired: str = "") -> Gap:
        return Gap("g/1", SYMBOL, "Trades", "sequence", state, 3, 6, missing, 10, 20, repaired, revision, 11)

    distributor = bench.distributor()
    await distributor.commit(gaps=[gap(1, "open", [(3, 6)])])
    bench.start()
    await bench.until_value("SELECT missing::text FROM gaps", "{[3,7)}")
    await distributor.commit(gaps=[gap(3, "closed", [], "late"), gap(2, "open", [(4, 6)])])
    await bench.until_stored()
    wanted = [("closed", "{}", "late", 3)]
    assert await bench.fetch("SELECT state, missing::text, repaired_by, revision FROM gaps") == wanted
    await distributor.commit(gaps=[gap(2, "open", [(4, 6)]), gap(3, "open", [(3, 3)])])
    await bench.until_stored()
    assert await bench.fetch("SELECT state, missing::text, repaired_by, revision FROM gaps") == wanted


async def test_instruments_get_a_version_for_each_change_of_content(bench: Bench) -> None:
    def stated(minute: int, status: str, native: str = "BTCUSDT", tick: str = "0.01") -> Instrument:
        at = BASE + minute * MINUTE
        return Instrument(SYMBOL, native, "Future", "BTC", "USDT", "USDT", status, tick, "1", "1", BASE, "", "", at)

    distributor = bench.distributor()
    await distributor.commit(instruments=[stated(0, "trading")])
    await distributor.commit(instruments=[stated(1, "trading")])  # Nothing new.
    await distributor.commit(instruments=[stated(3, "halted", "BTCUSDT2"), stated(2, "trading", tick="0.010")])
    bench.start()
    await bench.until_stored()
    await distributor.commit(instruments=[stated(1, "closed")])  # Old news, as when a stream is read again.
    await bench.until_stored()
    found = await bench.fetch("SELECT valid_from, valid_to, status, expiry FROM instrument_versions ORDER BY 1")
    third = NOON + timedelta(minutes=3)
    assert found == [(NOON, third, "trading", NOON), (third, None, "halted", NOON)]
    assert await bench.value("SELECT native FROM instruments") == "BTCUSDT2"


async def test_a_closed_candle_of_the_venue_wins_over_an_open_one(bench: Bench) -> None:
    def candle(close: str, closed: bool, at: int) -> Candle:
        return Candle(SYMBOL, "1m", BASE, "1", "2", "0.5", close, "9", "9", 3, 1, 3, closed, BASE + at, BASE + at)

    distributor = bench.distributor()
    await distributor.commit(candles=[candle("1", False, 1), candle("3", False, 3), candle("2", False, 2)])
    bench.start()
    await bench.until_value("SELECT close FROM venue_candles", Decimal(3))
    await distributor.commit(candles=[candle("4", True, 4)])
    await distributor.commit(candles=[candle("5", False, 5)])
    await bench.until_stored()
    assert await bench.fetch("SELECT close, closed FROM venue_candles") == [(Decimal(4), True)]
