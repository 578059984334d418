"""Books over restarts and breaks, and how the streams are kept short."""

from __future__ import annotations

from .stage import SHARD, SYMBOL, Stage, depth_frame, ticker_frame


async def test_a_book_asks_for_its_snapshot_on_the_commands_stream(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin("Book")
    stage.start()
    (command,) = await stage.until(stage.commands)
    assert (command.kind, command.symbol, command.native, command.channel) == (
        "book_snapshot",
        SYMBOL,
        "BTCUSDT",
        "Book",
    )
    await producer.snapshot(100, command.id)
    await producer.frames(depth_frame(101), depth_frame(102), depth_frame(110))  # A break.
    first, second = await stage.until(lambda: _commands(stage, 2))
    assert first.id == command.id != second.id
    await producer.snapshot(109, second.id)
    await producer.frames(depth_frame(111))
    events = await stage.until_events(lambda found: found.seqs[-1:] == [111])
    assert events.seqs == [100, 101, 102, 110, 111]
    assert [(gap.state, gap.from_seq, gap.to_seq) for gap in events.block.gaps] == [
        ("open", 103, -1),
        ("closed", 103, 109),
    ]
    events.assert_chain()


async def _commands(stage: Stage, count: int) -> list[object]:
    found = await stage.commands()
    return list(found) if len(found) >= count else []


async def test_a_restart_goes_on_from_images_and_asks_for_nothing(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin("Book")
    await producer.snapshot(100)
    seq = 100
    for turn in range(4):
        running = stage.start(image_interval=3600.0 if turn % 2 else 0.02)
        for _ in range(20):
            await producer.frames(depth_frame(seq + 1), depth_frame(seq + 2))
            seq += 2
        await stage.until_events(lambda found, seq=seq: found.seqs[-1:] == [seq])
        await (running.kill() if turn == 2 else running.end())
        stage.running.remove(running)
    events = await stage.events()
    events.assert_chain()
    assert events.seqs == list(range(100, seq + 1))
    assert [delta.image for delta in events.deltas.deltas] == [True] + [False] * (seq - 100)
    assert not events.block.gaps
    assert len(await stage.commands()) <= 1  # The one of the first start, when the snapshot was there already or not.
    slots = [book.slot_ns for book in events.block.books]
    assert slots == sorted(set(slots))
    assert len(slots) == (1_750_000_000_000 + seq * 100) // 1000 - (1_750_000_000_000 + 10_100) // 1000


async def test_an_image_that_is_gone_costs_that_book_one_gap(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin("Book")
    running = stage.start()
    await producer.snapshot(100)
    await producer.frames(depth_frame(101))
    await stage.until_events(lambda found: found.seqs[-1:] == [101])
    await running.end()
    known = len(await stage.commands())
    await stage.client.delete(SHARD.images)
    stage.start()
    await stage.until(lambda: _commands(stage, known + 1))
    await producer.snapshot(105)
    events = await stage.until_events(lambda found: found.seqs[-1:] == [105])
    assert [(gap.cause, gap.state) for gap in events.block.gaps] == [("redis_lost", "open"), ("redis_lost", "closed")]


async def test_the_raw_stream_is_trimmed_to_what_a_restart_needs(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin("Trades", "Book")
    await producer.snapshot(100)
    running = stage.start()
    last = 0
    for seq in range(101, 1101):
        await producer.frames(depth_frame(seq))
        last = seq
    await stage.until_events(lambda found: found.seqs[-1:] == [last])

    async def short() -> bool:
        await producer.frames(ticker_frame(1))  # A commit trims.
        return bool(await stage.client.xlen(SHARD.raw) < 250)

    await stage.until(short)
    await running.end()
    stage.start()
    await producer.frames(depth_frame(last + 1))
    events = await stage.until_events(lambda found: found.seqs[-1:] == [last + 1])
    assert events.seqs == list(range(100, last + 2))


async def test_the_events_stream_is_trimmed_to_what_was_stored(stage: Stage) -> None:
    producer = stage.producer()
    await producer.begin()
    stage.start()
    for number in range(1, 601):
        await producer.trades(number, number)
        if not number % 20:
            await stage.until_trades(number)
    length = await stage.client.xlen(SHARD.events)
    assert length > 30
    assert (await stage.events()).numbers[0] == 1  # Nothing is trimmed while nothing was stored.
    at = 601
    for _ in range(150):
        await producer.trades(at, at)
        await stage.until_trades(at)
        at += 1
    entries = await stage.client.xrange(SHARD.events)
    stored = entries[-20][0]
    await stage.client.hset(SHARD.applied, "stream", stored)
    await producer.trades(at, at)
    await stage.until_trades(at)
    events = await stage.events()
    assert len(events.ids) < 150
    assert stored.decode() in events.ids
    events.assert_chain(events.numbers[0])
