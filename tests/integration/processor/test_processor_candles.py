"""Candles: kept on insert, rolled up, proven complete or not, filled where empty, compared with the venue's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from feedmill.shared.clock import SECOND
from feedmill.shared.events import Candle, Gap, Trade

from .conftest import BASE, MINUTE, SYMBOL, Bench, shard_settings, trade

NOON = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=BASE // SECOND)
OPEN_HIGH = "open, high, low, close, volume, quote_volume, trades, first_id, last_id"


def at(number: int, minute: float, price: str = "10", **more: Any) -> Trade:
    return trade(number, BASE + int(minute * MINUTE), price=price, **more)


def gap(state: str, minute: float, until: float, revision: int = 1) -> Gap:
    times = (BASE + int(minute * MINUTE), BASE + int(until * MINUTE) if until else 0)
    return Gap("g/1", SYMBOL, "Trades", "sequence", state, 3, 4, [], *times, "", revision, BASE)


async def completes(bench: Bench, interval: str = "1m") -> dict[int, tuple[bool, int]]:
    """Minute -> (complete, trades)."""
    rows = await bench.fetch("SELECT open_time, complete, trades FROM candles WHERE interval = $1", interval)
    return {int((open_time - NOON).total_seconds()) // 60: (complete, count) for open_time, complete, count in rows}


async def until_completes(bench: Bench, wanted: dict[int, tuple[bool, int]], interval: str = "1m") -> None:
    async def equal() -> bool:
        return await completes(bench, interval) == wanted

    try:
        await bench.until(equal)
    except TimeoutError:
        assert await completes(bench, interval) == wanted
        raise


async def test_a_candle_is_the_same_in_whatever_order_its_trades_come(bench: Bench) -> None:
    distributor = bench.distributor()
    prices = ["10", "12.5", "9", "11", "8.25", "13", "10.75"]
    trades = [at(n, n / 10, price) for n, price in enumerate(prices, 1)]
    bench.start()
    for order in ([3], [6, 0], [2, 4, 5], [1]):
        await distributor.commit(trades=[trades[place] for place in order])
        await bench.until_stored()
    size = Decimal("0.25")
    (found,) = await bench.fetch(f"SELECT {OPEN_HIGH} FROM candles WHERE interval = '1m'")
    values = [Decimal(price) for price in prices]
    assert found == (values[0], max(values), min(values), values[-1], size * 7, sum(values) * size, 7, 1, 7)


async def test_longer_ones_are_rolled_up_and_follow_late_trades(bench: Bench) -> None:
    distributor = bench.distributor()
    trades = [at(n, n, str(100 + n)) for n in range(20)]
    missing = trades.pop(7)
    await distributor.commit(trades=trades)
    run = bench.start(intervals=("1m", "5m", "15m", "1h"), finish_timeout=60.0)
    columns = "interval, open_time, open, high, low, close, volume, trades, first_id, last_id"
    long = f"SELECT {columns} FROM candles WHERE interval <> '1m' ORDER BY length(interval) DESC, interval, open_time"

    def candle(name: str, minute: int, first: int, last: int, count: int) -> tuple[Any, ...]:
        prices = (Decimal(100 + first), Decimal(100 + last), Decimal(100 + first), Decimal(100 + last))
        return (name, NOON + timedelta(minutes=minute), *prices, Decimal("0.25") * count, count, first, last)

    def expected(count: int) -> list[tuple[Any, ...]]:
        return [
            *(candle("15m", 0, 0, 14, 14 + count), candle("15m", 15, 15, 19, 5), candle("1h", 0, 0, 19, 19 + count)),
            *(candle("5m", 0, 0, 4, 5), candle("5m", 5, 5, 9, 4 + count)),
            *(candle("5m", 10, 10, 14, 5), candle("5m", 15, 15, 19, 5)),
        ]

    async def equal(count: int) -> bool:
        return await bench.fetch(long) == expected(count)

    await bench.until(lambda: equal(0))
    await distributor.commit(trades=[missing])
    await bench.until(lambda: equal(1))
    await bench.until_value("SELECT count(*) FROM candles WHERE interval = '5m' AND complete", 2)
    await run.end()
    assert run.document()["candles"]["lastError"] == ""


async def test_complete_means_dense_and_joined_on_both_sides(bench: Bench) -> None:
    distributor = bench.distributor()
    times = {1: 0, 2: 0.5, 3: 1, 4: 1.5, 5: 2, 7: 2.5, 8: 3, 9: 4}
    await distributor.commit(trades=[at(number, minute) for number, minute in times.items()])
    bench.start()
    # 0: nothing is known before it. 2: 6 is missing. 4: no later trade was seen.
    await until_completes(bench, {0: (False, 2), 1: (True, 2), 2: (False, 2), 3: (True, 1), 4: (False, 1)})
    await distributor.commit(trades=[at(6, 2.2, flags=1), at(10, 5)])
    await until_completes(bench, {0: (False, 2), 1: (True, 2), 2: (True, 3), 3: (True, 1), 4: (True, 1), 5: (False, 1)})
    # What is missing may belong to either side of the border.
    await distributor.commit(trades=[at(12, 6), at(13, 7)])
    await until_completes(
        bench,
        {
            0: (False, 2),
            1: (True, 2),
            2: (True, 3),
            3: (True, 1),
            4: (True, 1),
            5: (False, 1),
            6: (False, 1),
            7: (False, 1),
        },
    )


async def test_empty_ones_are_proven_by_their_neighbours(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.commit(trades=[at(1, 0, "10"), at(2, 3, "12"), at(4, 6, "13")])
    bench.start(intervals=("1m", "5m"))
    # 1 and 2 lie between ids 1 and 2; 4 and 5 between 2 and 4: there trade 3 may have been.
    await until_completes(bench, {0: (False, 1), 1: (True, 0), 2: (True, 0), 3: (False, 1), 6: (False, 1)})
    empty = await bench.fetch(f"SELECT {OPEN_HIGH} FROM candles WHERE trades = 0 ORDER BY open_time")
    assert empty == [(*[Decimal(10)] * 4, Decimal(0), Decimal(0), 0, None, None)] * 2
    await distributor.commit(trades=[at(3, 4.5, "11", flags=1)])
    await until_completes(
        bench, {0: (False, 1), 1: (True, 0), 2: (True, 0), 3: (True, 1), 4: (True, 1), 5: (True, 0), 6: (False, 1)}
    )
    await until_completes(bench, {0: (False, 3), 5: (False, 1)}, "5m")


async def test_an_empty_one_that_gets_a_trade_is_empty_no_more(bench: Bench) -> None:
    """It cannot be where ids are dense, and the numbers must be right even so."""
    distributor = bench.distributor()
    await distributor.commit(trades=[at(1, 0, "10"), at(2, 3, "12")])
    bench.start(shard_settings(dense=False))
    await until_completes(bench, {0: (False, 1), 1: (True, 0), 2: (True, 0), 3: (False, 1)})
    await distributor.commit(trades=[at(77, 1.5, "99")])
    await bench.until_stored()
    one = f"SELECT {OPEN_HIGH} FROM candles WHERE open_time = $1 AND interval = '1m'"
    found = await bench.fetch(one, NOON + timedelta(minutes=1))
    assert found == [(*[Decimal(99)] * 4, Decimal("0.25"), Decimal("24.75"), 1, 77, 77)]


async def test_an_empty_one_follows_the_price_before_it(bench: Bench) -> None:
    """Where ids are not dense, a later trade may come to the candle before when the empty one is there already."""
    distributor = bench.distributor()
    await distributor.commit(trades=[at(1, 0, "10"), at(7, 2, "12")])
    bench.start(shard_settings(dense=False))
    empty = "SELECT array_agg(DISTINCT close) FROM candles WHERE trades = 0 AND interval = '1m'"
    await bench.until_value(empty, [Decimal(10)])
    await distributor.commit(trades=[at(4, 0.5, "11", flags=1)])
    await bench.until_value(empty, [Decimal(11)])
    assert await bench.fetch(f"SELECT {OPEN_HIGH} FROM candles WHERE trades = 0 AND interval = '1m'") == [
        (*[Decimal(11)] * 4, Decimal(0), Decimal(0), 0, None, None)
    ]


async def test_where_ids_are_not_dense_open_gaps_decide(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.commit(trades=[at(10, 0), at(25, 1), at(70, 2), at(71, 3)], gaps=[gap("open", 1.2, 2.4)])
    bench.start(shard_settings(dense=False))
    await until_completes(bench, {0: (False, 1), 1: (False, 1), 2: (False, 1), 3: (False, 1)})
    await distributor.commit(trades=[at(90, 4), at(99, 7)])
    after = {4: (True, 1), 5: (True, 0), 6: (True, 0), 7: (False, 1)}
    await until_completes(bench, {0: (False, 1), 1: (False, 1), 2: (False, 1), 3: (True, 1), **after})
    await distributor.commit(gaps=[gap("closed", 1.2, 2.4, revision=2)])
    await until_completes(bench, {0: (False, 1), 1: (True, 1), 2: (True, 1), 3: (True, 1), **after})
    # A gap found later takes the proof back.
    await distributor.commit(gaps=[gap("open", 3.2, 3.4, revision=3)])
    await until_completes(bench, {0: (False, 1), 1: (True, 1), 2: (True, 1), 3: (False, 1), **after})


async def test_a_gap_found_later_takes_the_proof_back_from_empty_ones(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.commit(trades=[at(10, 0), at(20, 1), at(30, 6), at(40, 7), at(50, 10), at(60, 11)])
    bench.start(shard_settings(dense=False))
    proven = {minute: (True, int(minute in (1, 6, 7, 10))) for minute in range(1, 11)}
    ends = {0: (False, 1), 11: (False, 1)}
    await until_completes(bench, proven | ends)
    # In minute 4: the empty ones from there on have their price from trades that may not be the last ones.
    await distributor.commit(gaps=[gap("open", 4.2, 4.6)])
    doubtful = {4: (False, 0), 5: (False, 0)}
    await until_completes(bench, proven | ends | doubtful)
    await distributor.commit(gaps=[gap("closed", 4.2, 4.6, revision=2)])
    await until_completes(bench, proven | ends)


def stated(minute: int, close: str, trades: int, *, closed: bool = True, later: int = 0, raw: Any = (-1, -1)) -> Candle:
    """The venue's candle; ``later``: ns after which it said so once more."""
    ns = BASE + minute * MINUTE
    values = (close, close, close, close, "0.25", "2.5", trades, *raw, closed)
    return Candle(SYMBOL, "1m", ns, *values, ns + later, ns + later)


COMPARABLE = {"open": True, "close": True, "volume": True, "trades": True}


async def test_the_venues_candles_are_compared_when_both_are_final(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.commit(trades=[at(1, 0), at(2, 1), at(3, 2), at(4, 3), at(5, 4)])
    candles = [stated(1, "10", 1), stated(2, "10.01", 1), stated(3, "10", 1, closed=False), stated(4, "10", 1)]
    await distributor.commit(candles=candles)
    run = bench.start(shard_settings(comparable=COMPARABLE))
    agrees = "SELECT array_agg(venue_agrees ORDER BY open_time) FROM candles WHERE interval = '1m'"
    await bench.until_value(agrees, [None, True, False, None, None])
    await distributor.commit(candles=[stated(2, "10", 1, later=1), stated(3, "10", 2)], trades=[at(6, 5)])
    await bench.until_value(agrees, [None, True, True, False, True, None])
    await run.end()


@pytest.mark.parametrize(("stated_turnover", "agrees"), [("0.31", True), ("0.30", True), ("0.33", False)])
async def test_the_venues_turnover_has_fewer_decimals(bench: Bench, stated_turnover: str, agrees: bool) -> None:
    """Ours is 1.23457 * 0.25 = 0.3086425: a venue of two decimals may be one of its last digits off a trade."""
    distributor = bench.distributor()
    trades = [at(1, 0), at(2, 1, "1.23457"), at(3, 2), at(4, 3)]
    await distributor.commit(trades=trades)
    candle = stated(1, "1.23457", 1)
    candle.quote_volume = stated_turnover
    await distributor.commit(candles=[candle])
    bench.start(shard_settings(comparable={"quote_volume": True}))
    minute = f"'{(NOON + timedelta(minutes=1)).isoformat()}'"
    await bench.until_value(f"SELECT venue_agrees FROM candles WHERE open_time = {minute} AND interval = '1m'", agrees)


@pytest.mark.parametrize("agrees", [True, False])
async def test_aggregates_are_compared_by_the_raw_ids_they_carry(bench: Bench, agrees: bool) -> None:
    distributor = bench.distributor()
    trades = [at(n, n / 2, first_id=10 * n, last_id=10 * n + 9) for n in range(8)]
    await distributor.commit(trades=trades)
    await distributor.commit(candles=[stated(1, "10", 20, raw=(20, 39 if agrees else 38))])
    comparable = {"first_id": "raw", "last_id": "raw", "trades": "raw"}
    bench.start(shard_settings(comparable=comparable))
    minute = f"'{(NOON + timedelta(minutes=1)).isoformat()}'"
    await bench.until_value(f"SELECT venue_agrees FROM candles WHERE open_time = {minute} AND interval = '1m'", agrees)


async def test_what_a_killed_process_left_undone_is_done_by_the_next(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.commit(trades=[at(n, n / 4) for n in range(41)])
    first = bench.start(finish_every=3600.0)  # It never gets to finish anything.
    await bench.until_stored()
    await first.kill()
    assert await bench.value("SELECT count(*) FROM candles WHERE interval <> '1m' OR complete") == 0
    bench.start(intervals=("1m", "5m"))
    await until_completes(bench, {0: (False, 4), **dict.fromkeys(range(1, 10), (True, 4)), 10: (False, 1)})
    await until_completes(bench, {0: (False, 20), 5: (True, 20), 10: (False, 1)}, "5m")


async def test_an_orderly_end_finishes_what_was_stored(bench: Bench) -> None:
    distributor = bench.distributor()
    await distributor.commit(trades=[at(n, n / 4) for n in range(41)])
    run = bench.start(finish_every=3600.0, finish_timeout=60.0)
    await bench.until_stored()
    await run.end()
    assert await bench.value("SELECT count(*) FROM candles WHERE interval = '1m' AND complete") == 9
    assert await bench.value("SELECT count(*) FROM candles WHERE interval = '1d'") == 1
