"""The generator's parts: texts, trades, bars, books, the engine."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.simulator.catalog import deribit, listings, spot, usdm
from feedmill.simulator.config import VENUES, ConfigError, Limits, VenueConfig, default_limits, parse_mix
from feedmill.simulator.engine import Engine
from feedmill.simulator.limits import Credits, Weights, Window
from feedmill.simulator.market import Bar, Market
from feedmill.simulator.orderbook import OrderBook
from feedmill.simulator.texts import Texts, product_text

START = 1_790_000_000_000 - 1_790_000_000_000 % 86_400_000


def market(symbol: str = "BTC-USDT", seed: int = 1, raw: int = 1) -> Market:
    made = Market(spot(symbol), seed, id_base=100, history=1000, raw_per_unit=raw)
    made.minute(START)
    return made


@given(st.integers(0, 10**12), st.sampled_from(["0.01", "0.00001", "0.5", "0.05", "1", "10", "0.1"]), st.integers(0, 8))
def test_texts_are_exact(units: int, unit: str, decimals: int) -> None:
    assert Decimal(Texts(Decimal(unit), decimals)[units]) == units * Decimal(unit)
    assert Decimal(Texts(Decimal(unit), decimals, number=True, exponents=True)[units]) == units * Decimal(unit)
    assert Decimal(product_text(units, Decimal(unit), decimals)) == units * Decimal(unit)


def test_texts_have_the_venues_form() -> None:
    assert Texts(Decimal("0.0001"), 8)[3513] == "0.35130000"
    assert Texts(Decimal("0.5"), 1, number=True)[184577] == "92288.5"
    assert Texts(Decimal("0.5"), 1, number=True)[184576] == "92288.0"
    assert Texts(Decimal(10), 0, number=True, exponents=True)[2224] == "2.224e4"
    assert Texts(Decimal(1), 0)[7] == "7"


def test_the_seed_decides_the_trades() -> None:
    one, two, other = market(), market(), market(seed=2)
    first = [one.trade(START)[:4] for _ in range(500)]
    assert first == [two.trade(START + 7)[:4] for _ in range(500)]
    assert first != [other.trade(START)[:4] for _ in range(500)]


@pytest.mark.parametrize("raw", [1, 3])
def test_ids_are_contiguous_and_bars_hold_every_trade(raw: int) -> None:
    source = market(raw=raw)
    closed: list[Bar] = []
    trades = []
    for step in range(3000):
        now = START + step * 50
        ended = source.minute(now)
        if ended is not None:
            closed.append(ended)
        trades.append(source.trade(now))
    assert [trade[0] for trade in trades] == list(range(101, 3101))
    for before, after in itertools.pairwise(trades):
        assert after[5] == before[6] + 1
    assert len(closed) == 2
    for bar in closed:
        inside = [trade for trade in trades if trade[4] // 60_000 == bar.open_ms // 60_000]
        assert (bar.first, bar.last) == (inside[0][5], inside[-1][6])
        assert bar.count == bar.last - bar.first + 1
        assert bar.lots == sum(trade[2] for trade in inside)
        assert bar.quote == sum(trade[1] * trade[2] for trade in inside)
        assert (bar.high, bar.low) == (max(t[1] for t in inside), min(t[1] for t in inside))
        assert (bar.open, bar.close) == (inside[0][1], inside[-1][1])
        assert bar.taker_lots == sum(trade[2] for trade in inside if trade[3])
    whole = source.interval_bar(3, ended=False)
    assert whole is not None
    assert whole.count == trades[-1][6] - trades[0][5] + 1


def test_minutes_without_trades_become_empty_bars() -> None:
    source = market()
    source.trade(START)
    source.minute(START + 4 * 60_000)
    assert [bar.count for bar in source.bars] == [1, 0, 0, 0]
    assert source.bars[-1].open == source.bars[0].close
    assert (source.bars[-1].first, source.bars[-1].last) == (-1, -1)


def test_raw_trades_split_an_aggregate_exactly() -> None:
    source = market(raw=3)
    for _ in range(200):
        trade = source.trade(START)
        parts = source.raws(trade)
        assert [part[0] for part in parts] == list(range(trade[5], trade[6] + 1))
        assert sum(part[1] for part in parts) == trade[2]
        assert all(part[1] > 0 for part in parts)


@pytest.mark.parametrize("symbol", ["BTC-USDT", "XRP-USDT", "ETH-BTC"])
@pytest.mark.parametrize("step", [1, 40])
def test_the_book_stays_whole_and_its_changes_rebuild_it(symbol: str, step: int) -> None:
    source = market(symbol)
    book = OrderBook(source, 1, 200, seq=1000, step=step)
    book.remember = True
    bids, asks = dict(book.bids), dict(book.asks)
    last = book.seq
    for turn in range(3000):
        source.trade(START)
        book.touch(follow=turn % 3 > 0)
        book.change()
        assert book.best_bid == max(book.bids)
        assert book.best_ask == min(book.asks)
        assert 0 < book.best_bid < book.best_ask
        assert min(book.bids) > 0
        assert len(book.bids) <= book.levels + 1
        if turn % 5 == 0:
            first, seq, previous, changed_bids, changed_asks = book.take_changes()
            assert previous == last
            assert first > previous
            assert first <= seq
            if step == 1:
                assert first == previous + 1
            last = seq
            for side, changes in ((bids, changed_bids), (asks, changed_asks)):
                for tick, lots, existed in changes:
                    assert existed == (tick in side)
                    if lots:
                        side[tick] = lots
                    else:
                        side.pop(tick, None)
            assert (bids, asks) == (book.bids, book.asks)
    assert len(book.asks) > book.levels // 2


def test_the_top_never_repeats_soon() -> None:
    source = Market(deribit("BTC-PERPETUAL"), 1, id_base=None, history=10, number=True)
    book = OrderBook(source, 1, 200, seq=5)
    seen = set()
    for _ in range(900):
        book.touch(follow=False)
        seen.add((book.best_bid, book.bids[book.best_bid], book.best_ask, book.asks[book.best_ask]))
    assert len(seen) == 900


@pytest.mark.parametrize("venue", VENUES)
def test_default_listings(venue: str) -> None:
    listed = listings(venue)
    assert len(listed) >= 20
    for native, listing in listed.items():
        assert native == listing.native
        assert listing.tick > 0
        assert listing.lot > 0
        made = Market(listing, 1, id_base=None, history=1)
        book = OrderBook(made, 1, 200, seq=1)
        assert min(book.bids) > 0


def test_names() -> None:
    assert spot("BTC-USDT").native == "BTCUSDT"
    assert usdm("BTC-USDT-270326").native == "BTCUSDT_270326"
    assert usdm("BTC-USDT-270326").expiry_ms == 1806048000000
    option = deribit("XRP_USDC-25JUN27-0d625-C")
    assert (option.strike, option.option_type, option.settle) == (Decimal("0.625"), "call", "USDC")
    assert deribit("BTC-PERPETUAL").inverse
    assert not deribit("SOL_USDC-PERPETUAL").inverse
    assert deribit("ETH_USDC").type == "Spot"
    for make, bad in ((spot, "BTCUSDT"), (usdm, "BTC-USDT-1"), (deribit, "BTC"), (deribit, "BTC-25XXX27")):
        with pytest.raises(ConfigError, match=bad.replace(".", "\\.")):
            make(bad)


def test_the_rate_is_shared_by_weight() -> None:
    engine = Engine(1000, {"Trades": 3, "Ticker": 1, "Book": 5})
    made = {"Trades": 0, "Ticker": 0}

    def add(channel: str) -> None:
        engine.add(channel, "BTCUSDT", lambda _: made.__setitem__(channel, made[channel] + 1))

    add("Trades")
    add("Ticker")
    for _ in range(100):
        engine.run(1, 0.01)
    assert made == {"Trades": 750, "Ticker": 250}
    engine.run(1, 60.0)
    assert sum(made.values()) in (1249, 1250), "a process held up for a minute does not make it all up"


def test_mix_and_config_say_what_is_wrong() -> None:
    assert parse_mix("trades=5,depth=1") == {"Trades": 5.0, "Book": 1.0}
    with pytest.raises(ConfigError, match="funding=1"):
        parse_mix("trades=5,funding=1")
    with pytest.raises(ConfigError, match="kraken"):
        VenueConfig("kraken/Spot")
    assert default_limits("binance/UsdM", weight=7).messages_per_second == 10


def test_windows() -> None:
    window = Window(2, 1.0)
    assert [window.take(at) for at in (0.0, 0.5, 0.9, 1.0)] == [True, True, False, True]
    assert window.wait(1.2) == pytest.approx(0.3)


def test_weights_refuse_then_ban() -> None:
    weights = Weights(Limits(weight=10, weight_window=60, ban_after=2, ban_seconds=100))
    assert weights.take(10, 600).status == 200
    refused = weights.take(1, 610)
    assert (refused.status, refused.retry_after, refused.used) == (429, 50, 11)
    assert weights.take(1, 611).status == 429
    assert weights.take(1, 612).status == 418
    assert weights.take(1, 661).status == 418, "a ban outlasts the window"
    assert weights.take(1, 713).status == 200


def test_credits_refill() -> None:
    pool = Credits(3000, 30_000, 10_000)
    assert all(pool.take(0.0) for _ in range(10))
    assert not pool.take(0.1)
    assert pool.take(0.4)
