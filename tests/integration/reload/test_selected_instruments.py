"""``instruments.select`` on real processes: listings and expiries touch only what they are about."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROLES = ("receiver-one", "distributor-one")
OPTIONS = "{types: [Option], base: [BTC], refreshInterval: 10s}"
BTC_OPTIONS = {"BTC-25JUN27-80000-C", "BTC-25JUN27-80000-P", "BTC-25JUN27-100000-C", "BTC-25JUN27-60000-P"}


async def until_selected(bed: Any, kit: Any, count: int, *roles: str) -> None:
    """Every process of the feed works on so many instruments."""

    async def reached() -> bool:
        found = [await bed.health(role) for role in roles or ROLES]
        return all(item is not None and item["selection"]["instruments"] == count for item in found)

    try:
        await kit.until(reached, timeout=150.0)  # One may be about to expire.
    except TimeoutError:
        found = {role: (await bed.health(role) or {}).get("selection") for role in ROLES}
        pytest.fail(f"{count} wanted, {found}\n{bed.trouble()}")
    await bed.until_flowing()


async def strike(bed: Any, venue: str, **fault: Any) -> int:
    async with bed.http.post(f"{bed.simulation.endpoints[venue].rest}/_sim/fault", json=fault) as answer:
        document = await answer.json()
        assert answer.status == 200, document
        return int(document["hit"])


async def nothing_lost_or_doubled(bed: Any, venue: str) -> None:
    """From its first stored message on every instrument is stored without a hole to the last one emitted."""
    emitted, stored = bed.ledger(venue, "trades"), await bed.stored("trades")
    assert emitted.keys() == stored.keys()
    for symbol, numbers in emitted.items():
        assert stored[symbol] == numbers[numbers.index(stored[symbol][0]) :], symbol


async def test_options_are_listed_and_expire(start_bed: Any, kit: Any) -> None:
    """Three come (one with an expiry, one delisted before its time), the others do not notice."""
    venue = "deribit/Derivatives"
    feed = kit.Wanted(venue, [], select=OPTIONS)
    bed = await start_bed(feed)
    await until_selected(bed, kit, 4)
    assert set(await bed.stored("trades")) <= BTC_OPTIONS
    await bed.until_emitted(1500)
    assert await strike(bed, venue, kind="list", symbol="BTC-24DEC27-70000-C") == 1
    assert await strike(bed, venue, kind="list", symbol="BTC-24DEC27-70000-P", seconds=60) == 1
    assert await strike(bed, venue, kind="list", symbol="ETH-24DEC27-3000-P") == 1  # Not selected.
    await until_selected(bed, kit, 6)
    await bed.until_emitted(1500)
    await until_selected(bed, kit, 5)  # The one expired by itself.
    await bed.until_emitted(1500)
    assert await strike(bed, venue, kind="expire", symbol="BTC-25JUN27-60000-P") == 1
    await until_selected(bed, kit, 4)
    await bed.until_emitted(1500)

    after = await bed.stats(venue)
    assert after["connects"] == {"accepted": 1}
    assert after["closed"] == {}
    report = await bed.settled()
    (found,) = report.venues
    assert report.ok, bed.explain(report)
    assert found.trades.emitted == found.trades.stored > 0, bed.explain(report)
    assert found.tickers.emitted == found.tickers.stored > 0, bed.explain(report)
    assert (found.trades.doubled, found.tickers.doubled, found.dead_letters) == (0, 0, 0)
    assert await bed.rows("SELECT id, cause FROM gaps") == []
    await nothing_lost_or_doubled(bed, venue)
    traded = set(await bed.stored("trades"))
    assert traded == BTC_OPTIONS | {"BTC-24DEC27-70000-C", "BTC-24DEC27-70000-P"}
    expiries = await bed.rows(
        "SELECT symbol FROM instruments i JOIN instrument_versions v ON v.instrument_id = i.id WHERE expiry IS NOT NULL"
    )
    assert {row["symbol"] for row in expiries} == traded


async def test_spot_pairs_of_one_quote(start_bed: Any, kit: Any) -> None:
    venue = "binance/Spot"
    feed = kit.Wanted(venue, [], select="{types: [Spot], quote: [USDT], refreshInterval: 10s}")
    bed = await start_bed(feed)
    await until_selected(bed, kit, 16)
    await bed.until_emitted(1500)
    assert await strike(bed, venue, kind="list", symbol="NEW-USDT") == 1
    assert await strike(bed, venue, kind="list", symbol="NEW-BTC") == 1
    await until_selected(bed, kit, 17)
    assert await strike(bed, venue, kind="expire", symbol="SOL-USDT") == 1
    await until_selected(bed, kit, 16)
    await bed.until_emitted(1500)
    after = await bed.stats(venue)
    assert after["connects"] == {"accepted": 1}
    assert after["closed"] == {}
    report = await bed.settled()
    (found,) = report.venues
    assert report.ok, bed.explain(report)
    assert found.trades.emitted == found.trades.stored > 0, bed.explain(report)
    assert found.tickers.emitted == found.tickers.stored > 0, bed.explain(report)
    assert (found.trades.doubled, found.tickers.doubled, found.dead_letters) == (0, 0, 0)
    assert await bed.rows("SELECT id, cause FROM gaps") == []
    await nothing_lost_or_doubled(bed, venue)
    assert "NEW-USDT" in await bed.stored("trades")
    assert not {"NEW-BTC", "ETH-BTC", "BTC-EUR"} & (await bed.stored("trades")).keys()


async def test_another_receiver_reads_the_list_when_one_is_killed(start_bed: Any, kit: Any) -> None:
    venue = "deribit/Derivatives"
    feed = kit.Wanted(venue, [], select=OPTIONS)
    bed = await start_bed(feed)
    where = ("--feed", "default/one", "--shard", "0")
    second = await bed.start("receiver-second", "receiver", *where, "--replica", "r1")
    await until_selected(bed, kit, 4, *ROLES, "receiver-second")

    async def reads() -> list[str]:
        """None, or both, where the lease has just run out while its holder was held up."""
        found = [name for name in ("receiver-one", "receiver-second") if (await bed.health(name))["selector"]["reads"]]
        return found if len(found) == 1 else []

    reading = await kit.until(reads)
    killed = bed.services.pop(reading[0])
    left = "receiver-second" if killed is not second else "receiver-one"
    killed.process.kill()
    await killed.process.wait()
    assert await strike(bed, venue, kind="list", symbol="BTC-24DEC27-70000-C") == 1
    await until_selected(bed, kit, 5, left, "distributor-one")

    async def taken_over() -> bool:
        return bool((await bed.health(left))["selector"]["reads"])

    await kit.until(taken_over)
    await bed.until_emitted(1000)
    report = await bed.settled()
    (found,) = report.venues
    assert report.ok, bed.explain(report)
    assert found.trades.emitted == found.trades.stored > 0, bed.explain(report)
    assert "BTC-24DEC27-70000-C" in await bed.stored("trades")


async def test_a_selection_changes_and_becomes_a_list(start_bed: Any, kit: Any) -> None:
    venue = "deribit/Derivatives"
    feed = kit.Wanted(venue, ["BTC-PERPETUAL"])
    bed = await start_bed(feed)
    await bed.until_emitted(500)
    feed.select = OPTIONS
    await bed.take_up()
    await until_selected(bed, kit, 4)
    await bed.until_emitted(500)
    feed.select = "{types: [Option], base: [BTC, ETH], refreshInterval: 10s}"
    await bed.take_up()
    await until_selected(bed, kit, 6)
    await bed.until_emitted(500)
    # More than may be: the list stays as it is, and health says which key, how many and what to do.
    feed.select = "{types: [Option], base: [BTC, ETH, SOL], maxInstruments: 5, refreshInterval: 10s}"
    await bed.take_up()

    async def told() -> str:
        problem = str((await bed.health(ROLES[0]))["selector"]["problem"])
        return problem if "matches 7 instruments" in problem else ""

    problem = await kit.until(told)
    assert "maxInstruments 5" in problem
    assert "raise maxInstruments" in problem
    await until_selected(bed, kit, 6)
    feed.select = ""
    await bed.take_up()
    await until_selected(bed, kit, 1)
    await bed.until_emitted(500)
    after = await bed.stats(venue)
    assert after["connects"] == {"accepted": 1}

    async def all_there(report: Any) -> bool:
        """Of the one that is wanted in the end; what else is missing was not wanted."""
        last = bed.ledger(venue, "trades")["BTC-PERPETUAL"][-1]
        return kit.nothing_wrong(report) and last in (await bed.stored("trades")).get("BTC-PERPETUAL", ())

    report = await bed.settled(all_there)
    (found,) = report.venues
    assert await bed.rows("SELECT id, cause FROM gaps") == []
    for flow in (found.trades, found.tickers):
        assert (flow.doubled, flow.phantom, flow.wrong) == (0, 0, 0), bed.explain(report)
    assert found.dead_letters == 0


async def test_a_venue_that_gives_no_list(start_bed: Any, kit: Any) -> None:
    """At the first start it waits and says so; later the last list stays, also over a restart of everything."""
    venue = "binance/Spot"
    other = kit.Wanted("deribit/Derivatives", ["BTC-PERPETUAL"])
    feed = kit.Wanted(venue, ["BTC-USDT"])
    feed.name = "two"
    bed = await start_bed(other, feed)
    roles = ("receiver-two", "distributor-two")
    await strike(bed, venue, kind="rest_500", path="exchangeInfo")
    for role in roles:
        await kit.until(partial(bed.health, role), timeout=60.0)  # It can end in order from here on.
        assert await bed.services[role].stop() == 0
    feed.select = "{types: [Spot], quote: [BTC], refreshInterval: 10s}"
    bed.write()
    for role in roles:
        await bed.services[role].start()

    async def waits() -> bool:
        found = await bed.health("receiver-two")
        return found is not None and found["selector"]["problem"] != ""

    await kit.until(waits)
    for role in roles:
        found = await kit.until(partial(bed.health, role))  # The other one may have come up later.
        assert found["selection"] | {"error": ""} == {
            "selecting": True, "instruments": None, "listedAtNs": None, "waiting": True, "error": "",
        }  # fmt: skip
        assert not found["ready"]
        assert "no list of instruments" in found["waitingFor"]["selected"]
    await strike(bed, venue, kind="clear")
    await until_selected(bed, kit, 3, *roles)
    await strike(bed, venue, kind="rest_500", path="exchangeInfo")
    for role in roles:
        assert await bed.services[role].stop() == 0
    for role in roles:
        await bed.services[role].start()
    await until_selected(bed, kit, 3, *roles)
    await kit.until(waits)
