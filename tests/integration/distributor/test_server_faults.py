"""The server restarts, forgets, is full: nothing twice, nothing lost that it still has, and it goes on."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from redis.exceptions import OutOfMemoryError

from feedmill.distributor import dispatcher

from .stage import SHARD, Events, Stage, depth_frame, ticker_frame, trade_frame


async def test_a_restarted_server_is_gone_on_with(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin()
    running = stage.start()
    await producer.trades(1, 200)
    await stage.until_trades(200)
    await asyncio.to_thread(stage.server.stop)
    await stage.until(lambda: not running.figures.loaded)
    document = running.health.document()
    assert not document["ready"]
    assert document["redis"]["state"] == "away"
    await asyncio.to_thread(stage.server.start)
    await producer.trades(201, 400)
    events = await stage.until_trades(400)
    events.assert_chain()
    assert events.trades == list(range(1, 401))


async def test_a_server_that_forgot_its_tail_is_told_it_again(stage: Stage, tmp_path: Path) -> None:
    """Everything goes back to an earlier state: the events after it are made anew, from what receivers send again."""
    data, kept = stage.server.data_dir / "data", tmp_path / "kept"
    producer = stage.producer()
    await producer.begin("Trades", "Ticker", "Book")
    running = stage.start()
    await producer.snapshot(100)
    await producer.trades(1, 100)
    await stage.until_trades(100)
    await asyncio.to_thread(stage.server.stop)
    await asyncio.to_thread(shutil.copytree, data, kept)
    await asyncio.to_thread(stage.server.start)
    await producer.trades(101, 300)
    await producer.frames(ticker_frame(7), depth_frame(101))
    await stage.until_trades(300)
    await stage.until_events(lambda found: 101 in found.seqs)
    await asyncio.to_thread(stage.server.kill)
    await asyncio.to_thread(shutil.rmtree, data)
    await asyncio.to_thread(shutil.copytree, kept, data)
    await asyncio.to_thread(stage.server.start)
    await stage.until(lambda: running.figures.loaded)
    assert 300 not in (await stage.events()).trades
    await producer.trades(301, 400)  # The receiver first sends what the server no longer has.
    events = await stage.until_trades(400)
    events.assert_chain()
    assert events.trades == list(range(1, 401))
    assert [ticker.seq for ticker in events.block.tickers] == [7]
    assert events.seqs == [100, 101]
    assert not events.block.gaps


async def test_a_cut_append_only_file_leaves_a_state_that_is_gone_on_from(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin()
    stage.start()
    for first in range(1, 1001, 10):
        await producer.trades(first, first + 9)
    await stage.until_trades(1000)
    await asyncio.to_thread(stage.server.kill)
    (part,) = stage.server.aof_dir.glob("*.incr.aof")
    size = part.stat().st_size
    with part.open("r+b") as file:
        file.truncate(size * 3 // 5 + 7)
    await asyncio.to_thread(stage.server.start)
    await producer.trades(1001, 1100)
    events = await stage.until_trades(1100)
    events.assert_chain()
    assert events.trades == list(range(1, 1101))


async def test_everything_is_flushed_and_it_begins_anew(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin()
    stage.start()
    await producer.trades(1, 100)
    await stage.until_trades(100)
    await stage.client.flushall()
    await producer.trades(101, 200)
    events = await stage.until_trades(200)
    events.assert_chain()
    assert events.trades == list(range(1, 201))


async def test_a_flushed_raw_stream_is_a_gap_with_that_cause(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin("Trades", "Ticker", "Book")
    running = stage.start(image_interval=0.0)
    await producer.snapshot(100)
    await producer.frames(trade_frame(1), ticker_frame(5), depth_frame(101))
    await stage.until_events(lambda found: found.seqs[-1:] == [101])
    await running.end()
    await producer.frames(trade_frame(2), ticker_frame(6), depth_frame(102))
    await stage.client.delete(SHARD.raw)
    await producer.frames(trade_frame(3), ticker_frame(7), depth_frame(103))
    stage.start()
    await stage.until_trades(3)
    await producer.snapshot(103)
    events = await stage.until_events(lambda found: sum(gap.state == "closed" for gap in found.block.gaps) == 2)
    rows = {gap.channel: gap for gap in events.block.gaps}
    assert {gap.cause for gap in events.block.gaps} == {"redis_lost"}
    assert (rows["Ticker"].from_seq, rows["Ticker"].to_seq) == (5, 7)
    assert (rows["Book"].from_seq, rows["Book"].to_seq) == (102, 103)
    trades = await stage.until_events(lambda found: any(gap.channel == "Trades" for gap in found.block.gaps))
    assert [gap.missing for gap in trades.block.gaps if gap.channel == "Trades"] == [[(2, 2)]]


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often and read little, so that a few MiB are many steps."""
    monkeypatch.setattr(dispatcher, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(dispatcher, "READ_BYTES", 20_000)


async def _fill(stage: Stage, first: int, size: int = 4 << 20) -> int:
    """Append trades until the server refuses; gives the last one that was taken."""
    producer = stage.producers[0]
    used = int((await stage.client.info("memory"))["used_memory"])
    await stage.client.config_set("maxmemory", used + size)
    last = first - 1
    while True:
        try:
            await producer.frames(*(trade_frame(n) for n in range(last + 1, last + 101)))
        except OutOfMemoryError:
            del producer.batches[-1]
            return last
        last += 100


async def test_a_full_server_is_drained_by_commits(stage: Stage, small_steps: None) -> None:
    """A commit frees raw entries before it adds events; while processors keep up nothing holds it."""
    producer = stage.producer()
    await producer.begin()
    last = await _fill(stage, 1)
    assert last > 2000
    running = stage.start(memory_share=0.5)

    async def drained() -> bool:
        await stage.apply()
        tip = await stage.client.hget(SHARD.checkpoint, "en")
        return bool(tip) and running.figures.events >= last

    await stage.until(drained)

    async def taken() -> bool:
        """The server has room again: what it refused is taken. Commits of nothing but the position trim."""
        await stage.apply()
        try:
            await producer.frames(*(trade_frame(n) for n in range(last + 1, last + 101)))
        except OutOfMemoryError:
            del producer.batches[-1]
            return False
        return True

    await stage.until(taken)
    await stage.until(lambda: running.figures.events == last + 100)

    async def free() -> bool:
        """Processors keep up with these too: until they do, a server not trimmed yet holds back."""
        await stage.apply()
        return not running.figures.held_back

    await stage.until(free)


async def test_a_full_server_without_input_is_trimmed_all_the_same(stage: Stage) -> None:
    """It takes nothing in before something is freed, so there is nothing that would make a commit."""
    producer = stage.producer()
    await producer.begin("Trades", "Book")
    await producer.snapshot(100)
    last = await _fill(stage, 1, 1 << 20)
    running = stage.start(memory_share=0.01, image_interval=0.5)

    async def trimmed() -> bool:
        complete = running.figures.events >= last  # First: a commit after what is said to be stored is held back for.
        await stage.apply()
        short = [await stage.client.xlen(stream) <= 3 for stream in (SHARD.raw, SHARD.events)]
        return complete and all(short)

    await stage.until(trimmed)
    await producer.trades(last + 1, last + 20)
    await stage.until_trades(last + 20)


async def test_a_full_server_with_processors_behind_holds_back_until_they_caught_up(
    stage: Stage, small_steps: None
) -> None:
    producer = stage.producer()
    await producer.begin()
    last = await _fill(stage, 1)
    running = stage.start(memory_share=0.5)
    await stage.until(lambda: running.figures.held_back)
    assert "processors are behind" in running.health.document()["dispatch"]["heldBack"]
    held = await stage.client.xlen(SHARD.events)
    events = running.figures.events
    assert events < last
    for _ in range(5):
        await asyncio.sleep(0.02)  # Nothing happens, which cannot be awaited.
        assert await stage.client.xlen(SHARD.events) == held
    seen: list[int] = []
    position = "-"

    async def stored() -> bool:
        """A processor: reads what is new, then says so."""
        nonlocal position
        entries = await stage.client.xrange(SHARD.events, position)
        if entries:
            seen.extend(Events(entries).trades)
            position = f"({entries[-1][0].decode()}"
            await stage.say_stored(entries[-1][0])
        return len(seen) >= last

    await stage.until(stored)
    assert seen == list(range(1, last + 1))
    await stage.until(lambda: not running.figures.held_back)


async def test_a_gate_that_holds_lets_an_orderly_stop_through(stage: Stage, small_steps: None) -> None:
    await stage.producer().begin()
    await _fill(stage, 1)
    running = stage.start(memory_share=0.5)
    await stage.until(lambda: running.figures.held_back)
    async with asyncio.timeout(30):
        await running.end()
    (await stage.events()).assert_chain()


async def test_an_unreadable_checkpoint_is_told_and_nothing_is_guessed(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin()
    await producer.trades(1, 10)
    await stage.client.hset(SHARD.checkpoint, "t:BTC-USDT", b"\xc1")
    running = stage.start()
    await stage.until(lambda: "t:BTC-USDT" in running.figures.error)
    assert not running.health.document()["ready"]
    assert await stage.client.xlen(SHARD.events) == 0
