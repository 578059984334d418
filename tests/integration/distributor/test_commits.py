"""Commits: each event once, whoever works on the shard and wherever the wire is cut; the chain is dense."""

from __future__ import annotations

import asyncio

import pytest

from feedmill.distributor.scripts import COMMIT

from .stage import SHARD, Proxy, Stage, ticker_frame, trade_frame


async def test_two_distributors_without_a_lease_emit_each_event_once(stage: Stage) -> None:
    producer, other = stage.producer(), stage.producer("r1")
    await producer.begin()
    await other.begin()
    both = [stage.start(lease=False) for _ in range(2)]
    for first in range(1, 2001, 100):
        await producer.trades(first, first + 99)
        await other.trades(first, first + 99)
    events = await stage.until_trades(2000)
    await asyncio.gather(*(each.end() for each in both))
    events = await stage.events()
    events.assert_chain()
    assert events.trades == list(range(1, 2001))
    assert not events.block.gaps
    assert not events.block.dead_letters
    assert sum(each.figures.events for each in both) == 2000


async def test_a_checkpoint_moved_by_somebody_else_is_loaded_anew(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin()
    running = stage.start()
    await producer.trades(1, 100)
    await stage.until_trades(100)
    await stage.client.hset(SHARD.checkpoint, "id", "of somebody else")
    await producer.trades(101, 200)
    await stage.until_trades(200)
    assert running.figures.reloads >= 1
    await running.end()
    events = await stage.events()
    events.assert_chain()
    assert events.trades == list(range(1, 201))


async def test_a_commit_whose_answer_was_lost_is_not_made_twice(stage: Stage, proxy: Proxy) -> None:
    producer = stage.producer()
    await producer.begin("Trades", "Ticker")
    running = stage.start(proxy.url)
    await producer.trades(1, 20)
    await stage.until_trades(20)
    last = 20
    for cuts in range(1, 6):
        proxy.swallow = COMMIT.digest.encode()
        await producer.frames(*(trade_frame(n) for n in range(last + 1, last + 31)), ticker_frame(last))
        last += 30
        await stage.until(lambda cuts=cuts: proxy.swallowed == cuts)
        await stage.until_trades(last)
    await running.end()
    events = await stage.events()
    events.assert_chain()
    assert events.trades == list(range(1, last + 1))
    assert [ticker.seq for ticker in events.block.tickers] == [20, 50, 80, 110, 140]
    assert not events.block.gaps
    assert running.figures.reloads >= 5


@pytest.mark.parametrize("orderly", [False, True])
async def test_stopped_and_killed_at_any_moment_and_begun_again(stage: Stage, orderly: bool) -> None:
    producer = stage.producer()
    await producer.begin()
    for turn in range(12):
        running = stage.start(lease=False)
        await producer.trades(turn * 100 + 1, turn * 100 + 100, size=5)
        await (running.end() if orderly else running.kill())
        stage.running.remove(running)
    stage.start(lease=False)
    events = await stage.until_trades(1200)
    events.assert_chain()
    assert events.trades == list(range(1, 1201))
    assert not events.block.gaps


async def test_an_orderly_stop_commits_what_was_read_and_tells_pending_holes(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin()
    running = stage.start(grace_ns=3600 * 10**9)
    await producer.frames(trade_frame(1), trade_frame(5))
    await stage.until_trades(5)
    assert not (await stage.events()).block.gaps
    await running.end()
    events = await stage.events()
    assert [(gap.missing, gap.state) for gap in events.block.gaps] == [([(2, 4)], "open")]
    stage.start()
    await producer.frames(*map(trade_frame, (2, 3, 4)))
    events = await stage.until_events(lambda found: len(found.block.gaps) == 4)
    events.assert_chain()
    assert (events.block.gaps[-1].state, events.block.gaps[-1].revision) == ("closed", 4)


async def test_a_hole_becomes_a_gap_by_the_clock_when_nothing_more_comes(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin()
    stage.start()
    await producer.frames(trade_frame(1), trade_frame(3))
    events = await stage.until_events(lambda found: found.block.gaps)
    assert events.block.gaps[0].missing == [(2, 2)]


async def test_poison_in_the_raw_stream_stops_nothing(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin()
    stage.start()
    await stage.client.xadd(SHARD.raw, {"b": b"\xc1"})
    await stage.client.xadd(SHARD.raw, {"other": b"x"})
    await producer.frames(trade_frame(1), b"{", trade_frame(2, "NOSUCH"), trade_frame(2))
    events = await stage.until_trades(2)
    reasons = sorted(letter.reason for letter in events.block.dead_letters)
    assert len(reasons) == 4
    assert reasons.count("undecodable_batch") == 2
    events.assert_chain()


async def test_health_tells_what_is_going_on(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin("Trades", "Book")
    # A lease that does not run out while the machine is busy: who holds it is looked at once.
    running, standby = stage.start(lease_ttl=10.0), stage.start(lease_ttl=10.0)
    await producer.trades(1, 10)
    await stage.until_trades(10)
    holder = running if running.distributor.lease.held else standby
    await stage.until(lambda: holder.health.document()["books"]["syncing"] == 1)
    document = holder.health.document()
    assert document["ready"]
    assert document["dispatch"]["events"] >= 10
    assert document["sessions"] == {"known": [producer.session], "connections": 1}
    assert document["redis"]["state"] == "connected"
    other = standby if holder is running else running
    await stage.until(lambda: other.distributor.lease.holder)
    assert other.health.document()["ready"]
    assert other.health.document()["dispatch"]["standby"]
