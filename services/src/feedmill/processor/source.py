"""Reading one shard's events stream, from a position, over a bare connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from feedmill import __version__
from feedmill.processor.batch import Batch, Entry
from feedmill.processor.chain import Break, Chain, Link
from feedmill.processor.losses import Watch
from feedmill.processor.rows import STRANGER, Letter, Windows, event_session
from feedmill.processor.spans import Traced
from feedmill.shared.clock import now_ns
from feedmill.shared.events import EventBlock, decode_events
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.ids import id_of
from feedmill.shared.redis.wire import Wire, WireError
from feedmill.shared.tracing import TRACES

CHECK_EVERY = 5.0
"""Seconds between two looks at the stream's end."""
MAX_COUNT = 512


@dataclass(slots=True)
class Tip:
    """The end of the stream when last looked at."""

    stream_id: str = "0-0"
    n: int = 0


class NotACommit(ValueError):
    """The entry has not the fields of a commit."""


def read_link(fields: dict[bytes, bytes]) -> Link:
    """Raises NotACommit, also for what PostgreSQL could not keep as a position."""
    try:
        link = Link(int(fields[b"n"]), fields[b"id"].decode(), fields[b"p"].decode())
    except (KeyError, ValueError) as error:
        raise NotACommit(f"{type(error).__name__}: {error}") from None
    if not 0 < link.n < 2**63 or not link.commit_id or "\x00" in link.commit_id:
        raise NotACommit("its number or id cannot be one")
    return link


def parse_entry(
    fields: dict[bytes, bytes], stream_id: str, link: Link, received_ns: int
) -> tuple[Entry, EventBlock, Letter | None]:
    """An entry as commit; one whose events cannot be read has none, and a dead letter with what was there."""
    payload = fields.get(b"e", b"")
    letter, readable = None, payload
    try:
        block = decode_events(payload)
    except (msgspec.DecodeError, ValueError) as error:
        block, readable = EventBlock(), b""
        detail = str(error)[:300]
        letter = Letter(
            event_session(link.commit_id), link.n, 0, 0, received_ns, "undecodable", detail, __version__, payload
        )
    return Entry(stream_id, link.n, link.commit_id, link.before, readable), block, letter


class Source:
    """Reads entries after the chain's cursor and adds them to a batch."""

    def __init__(
        self,
        wire: Wire,
        shard: ShardRef,
        chain: Chain,
        *,
        watch: Watch | None = None,
        block_ms: int = 1000,
        on_break: Callable[[str], None] | None = None,
    ) -> None:
        self.wire = wire
        self.shard = shard
        self.chain = chain
        self.tip = Tip()
        self.watch = watch or Watch(by_time=False)
        self.held = False
        """What comes next must begin a batch, as commits are gone before it: add to one that is empty."""
        self._block_ms = block_ms
        self._on_break = on_break or (lambda _: None)
        self._rows_per_entry = 1000.0  # Not known yet: few entries first.

    async def start(self) -> None:
        """Look whether the server still has what the position says was read; if not, read again."""
        await self.look()

    async def _call(self, *args: str | bytes | int) -> Any:
        async with asyncio.timeout(self._block_ms / 1000 + 5.0):
            return await self.wire.call(*args)

    async def look(self) -> None:
        """See where the stream ends; one that ends before the cursor has forgotten what was read."""
        try:
            answer = await self._call("XINFO", "STREAM", self.shard.events)
        except WireError as error:
            if "no such key" not in str(error).lower():
                raise
            answer = []
        info = dict(zip(answer[::2], answer[1::2], strict=True))
        self.tip.stream_id = info.get(b"last-generated-id", b"0-0").decode()
        last = info.get(b"last-entry")
        if last:
            fields = dict(zip(last[1][::2], last[1][1::2], strict=True))
            try:
                self.tip.n = read_link(fields).n
            except NotACommit:
                pass
        if id_of(self.tip.stream_id) < id_of(self.chain.cursor):
            self._on_break(f"the stream ends at {self.tip.stream_id}, before {self.chain.cursor}")
            self.chain.reread()

    async def fetch(self, room: int) -> list[Any]:
        """Wait up to ``block_ms`` for entries; ``room`` is how many rows are wanted at most.

        Raises WireClosed, WireError, TimeoutError. An empty answer means that all was read.
        """
        chain = self.chain
        count = max(1, min(MAX_COUNT, int(room / self._rows_per_entry)))
        wait = () if chain.rereading else ("BLOCK", self._block_ms)
        answer = await self._call("XREAD", "COUNT", count, *wait, "STREAMS", self.shard.events, chain.cursor)
        if answer:
            entries: list[Any] = answer[0][1]
            return entries
        if chain.rereading:
            chain.tip_reached()
        await self.look()
        return []

    def add(self, entries: list[Any], batch: Batch, ids: dict[str, int], windows: Windows) -> int:
        """Add what was fetched to the batch; answers how many events came."""
        events = 0
        received_ns = now_ns()
        self.held = False
        for raw_id, values in entries:
            stream_id = raw_id.decode()
            fields = dict(zip(values[::2], values[1::2], strict=True)) if values else {}
            try:
                link = read_link(fields)
            except NotACommit as error:
                self._not_a_commit(batch, stream_id, fields, str(error), received_ns)
                continue
            try:
                loss = self.chain.judge(link, stream_id)
            except Break as broken:
                self._on_break(str(broken))
                self.chain.reread()
                break
            if loss is not None:
                if not batch.empty:
                    self.held = True
                    break
                batch.loss, self.watch.on = loss, True
            self.chain.follow(link, stream_id)
            entry, block, letter = parse_entry(fields, stream_id, link, received_ns)
            if letter is not None:
                batch.made.append(letter)
            batch.entries.append(entry)
            batch.size += len(entry.payload)
            count = batch.rows.add_block(entry.key, block, ids, windows, batch.deferred)
            batch.count += count
            batch.add_samples(block)
            if block.traces and TRACES.on:
                batch.traces += [
                    Traced(ref, link.n, link.commit_id, stream_id, count, received_ns) for ref in block.traces
                ]
            if self.watch.on or self.watch.late:
                batch.notes = self.watch.note(block, batch.notes)
            batch.stand(link.n, link.commit_id, stream_id)
            events += count
        if entries:
            self._rows_per_entry += 0.2 * (max(1.0, events / len(entries)) - self._rows_per_entry)
        return events

    def _not_a_commit(
        self, batch: Batch, stream_id: str, fields: dict[bytes, bytes], detail: str, received_ns: int
    ) -> None:
        """Keep a stranger's entry as a dead letter under its own entry id and pass over it."""
        ms, seq = id_of(stream_id)
        payload = msgspec.msgpack.encode(fields)
        place = seq & 0x7FFFFFFF
        batch.made.append(
            Letter(STRANGER, ms, place, 0, received_ns, "not_a_commit", detail[:300], __version__, payload)
        )
        self.chain.skip(stream_id)
        batch.stand(self.chain.n, self.chain.commit_id, stream_id)
