"""Instruments and channels come and go under load: only they are touched, and what was wanted is stored to the last."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
STAY = {
    "binance/Spot": ["BTC-USDT", "ETH-USDT"],
    "binance/UsdM": ["BTC-USDT", "ETH-USDT"],
    "deribit/Derivatives": ["BTC-PERPETUAL", "ETH-PERPETUAL"],
}
COMES = {"binance/Spot": "SOL-USDT", "binance/UsdM": "SOL-USDT", "deribit/Derivatives": "SOL_USDC-PERPETUAL"}


@pytest.mark.parametrize("venue", list(STAY))
async def test_instruments_and_channels_come_and_go(start_bed: Any, kit: Any, venue: str) -> None:
    first, goes = STAY[venue]
    feed = kit.Wanted(venue, [first, goes])
    bed = await start_bed(feed)
    before = await bed.stats(venue)
    await bed.until_emitted(2000)

    feed.symbols.append(COMES[venue])
    await bed.take_up()
    await bed.until_flowing()
    await bed.until_emitted(2000)
    feed.symbols.remove(goes)
    await bed.take_up()
    await bed.until_flowing()
    await bed.until_emitted(2000)
    feed.symbols.append(goes)
    await bed.take_up()
    await bed.until_flowing()
    await bed.until_emitted(2000)

    after = await bed.stats(venue)
    assert after["connects"] == before["connects"]
    assert after["closed"] == before["closed"]
    report = await bed.settled(lambda report: kit.nothing_wrong(report, "trades", "tickers"))
    (found,) = report.venues
    # Nothing told, nothing wrong; what is not stored is of the instrument and the time it was not wanted.
    assert await bed.rows("SELECT id, cause FROM gaps") == []
    for flow in (found.trades, found.tickers):
        assert (flow.doubled, flow.phantom, flow.wrong) == (0, 0, 0), bed.explain(report)
    assert (found.books.wrong, found.books.phantom, found.candles.wrong, found.dead_letters) == (0, 0, 0, 0), (
        bed.explain(report)
    )
    assert found.books.checked > 0
    await only_one_hole(bed, venue, "trades", goes)
    if not venue.startswith("deribit"):
        await only_one_hole(bed, venue, "tickers", goes)


async def only_one_hole(bed: Any, venue: str, kind: str, goes: str) -> None:
    """Stored is what was emitted, but for one stretch of ``goes``."""
    emitted, stored = bed.ledger(venue, kind), await bed.stored(kind)
    assert emitted.keys() == stored.keys()
    for symbol, numbers in emitted.items():
        have = set(stored[symbol])
        missing = [at for at, number in enumerate(numbers) if number not in have]
        if symbol != goes:
            assert missing == [], f"{kind} of {symbol}"
        else:
            assert missing, f"{kind} of {symbol}: the simulator emits on"
            assert missing == list(range(missing[0], missing[-1] + 1)), f"{kind} of {symbol}"
            assert missing[0] > 0
            assert missing[-1] < len(numbers) - 1


async def test_channels_come_and_go(start_bed: Any, kit: Any) -> None:
    feed = kit.Wanted("binance/Spot", ["BTC-USDT", "ETH-USDT"], ["Trades", "Ticker"])
    bed = await start_bed(feed)
    before = await bed.stats(feed.venue)
    await bed.until_emitted(1500)
    feed.channels[:] = ["Trades", "Book", "Candles"]
    await bed.take_up()
    await bed.until_flowing()
    await bed.until_emitted(1500)

    async def both() -> Any:
        found = await bed.stored("tickers")
        return found if found.keys() == {"BTC-USDT", "ETH-USDT"} else None

    tickers = await kit.until(both)
    report = await bed.settled(lambda report: kit.nothing_wrong(report, "trades"))
    (found,) = report.venues
    assert (await bed.stats(feed.venue))["connects"] == before["connects"]
    assert await bed.rows("SELECT id, cause FROM gaps") == []
    assert found.trades.emitted == found.trades.stored > 0, bed.explain(report)
    assert found.trades.wrong == found.trades.doubled == found.dead_letters == 0
    assert found.books.checked > 0
    assert found.books.wrong == 0
    assert (await bed.stored("tickers")).keys() == tickers.keys() == {"BTC-USDT", "ETH-USDT"}
    for symbol, numbers in (await bed.stored("tickers")).items():
        assert numbers == bed.ledger(feed.venue, "tickers")[symbol][: len(numbers)]


async def test_a_distributor_whose_files_are_older_loses_nothing(start_bed: Any, kit: Any) -> None:
    """ConfigMaps reach the nodes at different times: receivers name what they ask for before it comes."""
    feed = kit.Wanted("binance/Spot", ["BTC-USDT"])
    bed = await start_bed(feed)
    distributor = bed.services["distributor-one"]
    await distributor.stop()
    feed.symbols.append("ETH-USDT")
    await bed.take_up("receiver-one", "processor")
    await bed.until_flowing()
    # As if its mount were still the old one: it is started with the old text in another folder.
    old = bed.folder / "old"
    old.mkdir()
    feed.symbols.remove("ETH-USDT")
    (old / "resources.yaml").write_text(bed.text)
    distributor._arguments[distributor._arguments.index("--config") + 1] = str(old / "resources.yaml")
    await distributor.start()
    await bed.until_emitted(2000)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    assert report.venues[0].trades.emitted == report.venues[0].trades.stored
    assert report.venues[0].dead_letters == 0
    assert set(await bed.stored("trades")) == {"BTC-USDT", "ETH-USDT"}


async def test_a_socket_left_without_topics_closes_and_comes_again(start_bed: Any, kit: Any) -> None:
    """USD-M carries trades on another socket than tickers and books."""
    feed = kit.Wanted("binance/UsdM", ["BTC-USDT", "ETH-USDT"], ["Trades", "Ticker", "Book"])
    bed = await start_bed(feed)
    assert (await bed.stats(feed.venue))["connects"] == {"accepted": 2}
    await bed.until_emitted(1000)
    feed.channels[:] = ["Ticker", "Book"]
    await bed.take_up()

    async def one() -> bool:
        document = await bed.health("receiver-one")
        return len(document["connections"]) == (await bed.stats(feed.venue))["connections"] == 1

    await kit.until(one)
    # A line of the log comes a moment after what it tells.
    ended = await kit.until(lambda: bed.services["receiver-one"].logged("connection.ended"))
    assert ended[-1]["cause"] == "planned"
    await bed.until_emitted(1000)
    feed.channels[:] = ["Ticker", "Book", "Trades"]
    await bed.take_up()
    await bed.until_flowing()
    await bed.until_emitted(1000)
    assert (await bed.stats(feed.venue))["connects"] == {"accepted": 3}
    report = await bed.settled(lambda report: kit.nothing_wrong(report, "trades", "tickers"))
    (found,) = report.venues
    assert await bed.rows("SELECT id, cause FROM gaps") == []
    assert found.tickers.emitted == found.tickers.stored > 0, bed.explain(report)
    assert (found.trades.doubled, found.trades.wrong, found.trades.phantom, found.dead_letters) == (0, 0, 0, 0)
    emitted, stored = bed.ledger(feed.venue, "trades"), await bed.stored("trades")
    for symbol, numbers in emitted.items():
        missing = [at for at, number in enumerate(numbers) if number not in set(stored[symbol])]
        assert missing == list(range(missing[0], missing[-1] + 1)), symbol
