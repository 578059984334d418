"""Reading a stream: how much is asked for, when it is read again, what an entry becomes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from feedmill.processor.batch import Batch
from feedmill.processor.chain import Chain, Loss
from feedmill.processor.rows import Windows
from feedmill.processor.source import MAX_COUNT, NotACommit, Source, parse_entry, read_link
from feedmill.shared.events import EventBlock, Trade, encode
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.ids import BEGIN
from feedmill.shared.redis.wire import WireError

REF = ShardRef("test", "spot", 0)
WIDE = Windows((0, 10**19), (0, 10**19), (0, 10**19))


def fields(n: int, life: str = "a", trades: int = 1) -> dict[bytes, bytes]:
    block = EventBlock(trades=[Trade("A", n * 1000 + i, "1", "1", 1, n * 10**6, n * 10**6 + 5) for i in range(trades)])
    return {
        b"n": b"%d" % n,
        b"id": f"{life}{n}".encode(),
        b"p": f"{life}{n - 1}".encode() if n > 1 else b"",
        b"e": encode(block),
    }


class FakeWire:
    """Answers XREAD and XINFO from a dict of entries."""

    def __init__(self) -> None:
        self.entries: dict[int, dict[bytes, bytes]] = {}
        self.last = 0
        self.asked: list[tuple[Any, ...]] = []
        self.exists = True

    def add(self, n: int, **more: Any) -> None:
        self.last += 1
        self.entries[self.last] = fields(n, **more)

    async def call(self, *args: Any) -> Any:
        self.asked.append(args)
        listed = [
            [b"%d-0" % ms, [each for pair in values.items() for each in pair]] for ms, values in self.entries.items()
        ]
        if args[0] == "XINFO":
            if not self.exists:
                raise WireError("ERR no such key")
            return [b"last-generated-id", b"%d-0" % self.last, b"last-entry", listed[-1] if listed else None]
        count, after = args[2], int(args[-1].partition("-")[0])
        found = [entry for entry in listed if int(entry[0].partition(b"-")[0]) > after][:count]
        return [[REF.events.encode(), found]] if found else None


class Reader:
    """A source and the batch it fills."""

    def __init__(self, n: int = 0, commit_id: str = "", stream_id: str = BEGIN) -> None:
        self.wire = FakeWire()
        self.breaks: list[str] = []
        self.chain = Chain(n, commit_id, stream_id)
        self.source = Source(self.wire, REF, self.chain, on_break=self.breaks.append)  # type: ignore[arg-type]
        self.batch = Batch()

    async def read(self, room: int = 10_000) -> int:
        return self.source.add(await self.source.fetch(room), self.batch, {"A": 1}, WIDE)

    async def batches(self) -> list[Batch]:
        """Read to the end; a batch ends where one must."""
        made = [self.batch]
        for _ in range(20):
            await self.read()
            if self.source.held:
                self.batch = Batch()
                made.append(self.batch)
        return made

    async def drain(self) -> None:
        for _ in range(20):
            await self.read()


async def test_reads_to_the_end_and_stands_there() -> None:
    reader = Reader()
    for n in range(1, 31):
        reader.wire.add(n)
    await reader.source.start()
    assert (reader.source.tip.n, reader.source.tip.stream_id) == (30, "30-0")
    await reader.drain()
    assert (reader.batch.n, reader.batch.commit_id, reader.batch.stream_id) == (30, "a30", "30-0")
    assert len(reader.batch.rows.trades) == len(reader.batch.entries) == 30
    assert reader.breaks == []
    assert [(sample.exchange_ns, sample.weight) for sample in reader.batch.samples[:2]] == [(10**6, 1), (2 * 10**6, 1)]


async def test_the_count_follows_the_size_of_entries_and_the_room() -> None:
    reader = Reader()
    for n in range(1, 3000):
        reader.wire.add(n, trades=2)

    async def counted(room: int) -> int:
        await reader.read(room)
        found: int = reader.wire.asked[-1][2]
        return found

    assert await counted(10_000) == 10  # Nothing is known of the entries yet.
    for _ in range(40):
        await counted(100)
    assert 40 <= await counted(100) <= 60
    assert await counted(10_000_000) == MAX_COUNT
    assert await counted(0) == 1


async def test_an_end_before_the_position_is_noticed_without_any_entry() -> None:
    reader = Reader(9, "a9", "9-0")
    reader.wire.exists = False
    await reader.source.start()
    assert reader.chain.rereading
    assert reader.breaks == ["the stream ends at 0-0, before 9-0"]
    # Read to its (empty) end, the stream is followed again.
    await reader.read()
    assert not reader.chain.rereading
    assert reader.wire.asked[-2][0] == "XREAD"
    assert "BLOCK" not in reader.wire.asked[-2]


async def test_a_break_reads_again_from_the_beginning() -> None:
    reader = Reader(2, "a2", "2-0")
    for n in (1, 2, 3):
        reader.wire.add(n)
    reader.wire.add(6)
    batches = await reader.batches()
    assert len(reader.breaks) == 1
    # What is gone is told by a batch of its own: what was before must be stored by then.
    assert [[entry.n for entry in batch.entries] for batch in batches] == [[3], [1, 2, 3], [6]]
    assert [batch.loss for batch in batches] == [
        None,
        Loss(4, -1, "3-0", "1-0", certain=False),
        Loss(4, 5, "3-0", "4-0"),
    ]
    assert (batches[-1].n, batches[-1].commit_id) == (6, "a6")
    assert [batch.notes is None for batch in batches] == [True, False, False]


async def test_other_errors_of_the_server_come_out() -> None:
    reader = Reader()

    async def fail(*_: Any) -> Any:
        raise WireError("WRONGTYPE Operation against a key holding the wrong kind of value")

    reader.wire.call = fail  # type: ignore[method-assign]
    with pytest.raises(WireError):
        await reader.source.start()


async def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    reader.wire.call = never  # type: ignore[method-assign]
    reader.source._block_ms = -4_990  # 10 ms in all.
    with pytest.raises(TimeoutError):
        await reader.source.fetch(10)


def test_an_entry_with_events_that_cannot_be_read() -> None:
    link = read_link(fields(4))
    entry, block, letter = parse_entry({b"e": b"\xc1"}, "4-0", link, 77)
    assert (len(block), entry.payload, len(entry.events())) == (0, b"", 0)
    assert letter is not None
    assert (letter.session, letter.batch, letter.index, letter.reason, letter.payload, letter.receive_ns) == (
        *("event:a4", 4, 0, "undecodable"),
        *(b"\xc1", 77),
    )
    entry, block, letter = parse_entry(fields(4, trades=3), "4-0", link, 77)
    assert letter is None
    assert len(block) == len(entry.events()) == 3


@pytest.mark.parametrize(
    "changed",
    [{b"n": b"x"}, {b"n": b"0"}, {b"n": b"-1"}, {b"n": b"9" * 30}, {b"id": b""}, {b"id": b"\xff"}, {b"p": None}],
)
def test_what_is_no_commit(changed: dict[bytes, bytes | None]) -> None:
    given = {key: value for key, value in {**fields(4), **changed}.items() if value is not None}
    with pytest.raises(NotACommit):
        read_link(given)
