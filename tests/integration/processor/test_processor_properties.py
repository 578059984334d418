"""Properties of what is stored, on a real PostgreSQL: order, split and repetition of events change nothing.

Small examples and few of them: each stores the same events in two ways, as the processor does, and compares the tables.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import asyncpg
import msgspec
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedmill.processor.batch import Batch, Entry
from feedmill.processor.finisher import CandleFinisher
from feedmill.processor.settings import ShardSettings
from feedmill.processor.store import Store
from feedmill.shared.breaker import Breaker
from feedmill.shared.clock import SECOND
from feedmill.shared.events import (
    BookSnapshot,
    Candle,
    DeadLetter,
    EventBlock,
    Gap,
    Instrument,
    Ticker,
    Trade,
    encode,
)
from feedmill.shared.keys import ShardRef
from feedmill.shared.log import get_logger

from .conftest import BASE, MINUTE, shard_settings

RETENTION = dict.fromkeys(("trades", "tickers", "book_snapshots"), 30 * 86400 * SECOND)
INTERVALS = ("1m", "5m", "15m")
numbers = itertools.count(1)
T = TypeVar("T")


class Tables:
    """One database for all examples. What an example stores is of an instrument of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        self._runner.close()


@pytest.fixture
def tables(migrated: str) -> Iterator[Tables]:
    made = Tables(migrated)
    yield made
    made.close()


class Way:
    """One way to store events: a shard and an instrument of its own."""

    def __init__(self, tables: Tables, *, dense: bool = True) -> None:
        number = next(numbers)
        self.symbol = f"S{number}-USDT"
        natives = {self.symbol: self.symbol}
        self.shard: ShardSettings = shard_settings(ShardRef("test", f"way{number}", 0), dense=dense, natives=natives)
        self._tables = tables
        self._store: Any = None
        self._finisher = CandleFinisher(
            tables.url, INTERVALS, database=Breaker("postgres"), every=1.0, timeout=20.0, log=get_logger()
        )

    async def commit(self, *blocks: EventBlock) -> None:
        """These commits in one transaction; the candles they touch are noted."""
        store: Store = self._store or await Store.open(self._tables.url, self.shard, RETENTION)
        self._store = store
        batch = Batch()
        for block in blocks:
            n = (batch.n or store.position.n) + 1
            entry = Entry(f"{n}-0", n, f"{n:016x}", f"{n - 1:016x}", encode(block))
            batch.entries.append(entry)
            batch.count += batch.rows.add_block(entry.key, entry.events(), store.ids, store.windows, batch.deferred)
            batch.stand(n, entry.commit_id, entry.stream_id)
        outcome = await store.commit(batch)
        minutes = list(outcome.stored.minutes)
        minutes += [(key[0], key[2] // SECOND) for key, candle in batch.rows.candles.items() if candle.closed]
        self._finisher.touch(self.shard, minutes)

    async def finish(self) -> None:
        await self._finisher.finish()

    async def end(self) -> None:
        await self._finisher.close()
        if self._store is not None:
            await self._store.close()

    def trades(self, trades: Sequence[Trade]) -> EventBlock:
        return EventBlock(trades=[msgspec.structs.replace(trade, symbol=self.symbol) for trade in trades])

    async def rows(self, table: str) -> list[tuple[Any, ...]]:
        """All of the instrument, without its id and without when they were written."""
        connection = await asyncpg.connect(self._tables.url)
        try:
            found = await connection.fetch(
                f"SELECT t.* FROM {table} t JOIN instruments i ON i.id = t.instrument_id WHERE i.symbol = $1",
                self.symbol,
            )
        finally:
            await connection.close()
        unequal = {"instrument_id", "updated_at", "created_at", "inserted_at"}
        return sorted(tuple((key, str(row[key])) for key in row.keys() if key not in unequal) for row in found)  # noqa: SIM118


@st.composite
def tape(draw: st.DrawFn) -> list[Trade]:
    """Trades of an instrument as the venue numbered them: ids rise with time, some are missing."""
    made: list[Trade] = []
    number, at = 0, BASE
    for _ in range(draw(st.integers(1, 12))):
        number += draw(st.sampled_from([1, 1, 1, 1, 2]))
        at += draw(st.sampled_from([0, 1, 20, 60, 130])) * SECOND
        price = draw(st.sampled_from(["9.5", "10", "10.25", "11"]))
        size = draw(st.sampled_from(["0.1", "1", "2.5"]))
        made.append(Trade("", number, price, size, 1 + number % 2, at, at + 1))
    return made


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trades=tape(), dense=st.booleans(), data=st.data())
def test_candles_and_their_completeness_do_not_depend_on_order_or_split(
    tables: Tables, trades: list[Trade], dense: bool, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(trades))
    shuffled += data.draw(st.lists(st.sampled_from(trades), max_size=4))  # Some come twice.
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=5)))
    parts = [shuffled[low:high] for low, high in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
    finishes = data.draw(st.lists(st.booleans(), min_size=len(parts), max_size=len(parts)))
    together = data.draw(st.booleans())

    async def stored() -> None:
        straight, mixed = Way(tables, dense=dense), Way(tables, dense=dense)
        try:
            await straight.commit(straight.trades(trades))
            await straight.finish()
            blocks = [mixed.trades(part) for part in parts]
            if together:
                await mixed.commit(*blocks)
            else:
                for block, finish in zip(blocks, finishes, strict=True):
                    await mixed.commit(block)
                    if finish:
                        await mixed.finish()
            await mixed.finish()
            candles = await straight.rows("candles")
            assert len(candles) >= len(INTERVALS)
            assert await mixed.rows("candles") == candles
            assert await mixed.rows("trades") == await straight.rows("trades")
            counted = [dict(row) for row in candles if dict(row)["interval"] == "1m"]
            assert sum(int(row["trades"]) for row in counted) == len(trades)
            if dense:
                _check_complete(trades, counted)
        finally:
            await straight.end()
            await mixed.end()

    tables.run(stored())


def _check_complete(trades: Sequence[Trade], candles: Sequence[dict[str, str]]) -> None:
    """By the definition: dense, joined to the candle before and to the one after, and a later trade was seen."""
    ids = {trade.id for trade in trades}
    minutes: dict[int, list[int]] = {}
    for trade in trades:
        minutes.setdefault(trade.exchange_ns // MINUTE, []).append(trade.id)
    complete = 0
    for members in minutes.values():
        low, high = min(members), max(members)
        complete += set(range(low - 1, high + 2)) <= ids
    found = [row["complete"] == "True" for row in candles if int(row["trades"])]
    assert sum(found) == complete


texts = st.sampled_from(["1", "2.5", "0.001", "100"])
sides = st.lists(st.tuples(texts, texts), max_size=3)
few = st.integers(1, 4)


@st.composite
def block_of(draw: st.DrawFn) -> EventBlock:
    """A few events of every kind, with keys that come again. The content of a key is always the same."""

    def some(kind: st.SearchStrategy[T]) -> list[T]:
        return draw(st.lists(kind, max_size=2))

    def at(number: int) -> int:
        return BASE + number * 20 * SECOND

    return EventBlock(
        trades=some(few.map(lambda n: Trade("", n, f"1{n}", "2", 1, at(n), at(n) + 1))),
        tickers=some(few.map(lambda n: Ticker("", n, f"1{n}", "1", "20", "", at(n), at(n) + 1))),
        books=some(st.builds(lambda n: BookSnapshot("", at(n), n, at(n), at(n), [(f"1{n}", "1")], []), few)),
        candles=some(
            st.builds(
                lambda n, closed: Candle(
                    "", "1m", BASE + n * MINUTE, "1", "3", "1", f"{2 + closed}", "5", "", n, -1, -1, closed,
                    at(n) + closed, at(n) + closed,
                ),
                few, st.booleans(),
            )
        ),
        gaps=some(
            st.builds(
                lambda n, r: Gap(
                    f"g{n}", "", "Trades", "sequence", "open" if r < 3 else "closed", n, n + r, [(n, n + r)], at(n),
                    at(n) + r, "", r, at(n),
                ),
                few, st.integers(1, 3),
            )
        ),
        dead_letters=some(few.map(lambda n: DeadLetter("s", n, 0, 1, at(n), "bad", "x", "v", b"p"))),
        instruments=some(
            st.builds(
                lambda t: Instrument("", "N", "Spot", "S", "USDT", "USDT", "open", t, "1", "1", 0, "", "", BASE), texts
            )
        ),
    )  # fmt: skip


def of(way: Way, block: EventBlock) -> EventBlock:
    """The block with the way's own symbol and keys."""
    lists: dict[str, list[Any]] = {}
    for name in ("trades", "tickers", "books", "candles", "gaps", "instruments"):
        lists[name] = [msgspec.structs.replace(event, symbol=way.symbol) for event in getattr(block, name)]
    lists["gaps"] = [msgspec.structs.replace(gap, id=f"{way.symbol}/{gap.id}") for gap in lists["gaps"]]
    lists["dead_letters"] = [msgspec.structs.replace(letter, session=way.symbol) for letter in block.dead_letters]
    return EventBlock(**lists)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=st.lists(block_of(), min_size=1, max_size=3), data=st.data())
def test_the_same_events_again_give_the_same_rows(
    tables: Tables, blocks: list[EventBlock], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(blocks), max_size=4))
    names = ("trades", "tickers", "book_snapshots", "venue_candles", "gaps", "candles")

    async def stored() -> None:
        once, twice = Way(tables), Way(tables)
        try:
            for block in blocks:
                await once.commit(of(once, block))
            await twice.commit(*(of(twice, block) for block in blocks))
            for block in again:
                await twice.commit(of(twice, block))
            await once.finish()
            await twice.finish()
            for name in names:
                found = [_plain(row, twice) for row in await twice.rows(name)]
                assert found == [_plain(row, once) for row in await once.rows(name)]
            assert await letters(twice) == await letters(once)
            keys = {name: {_key(event) for block in blocks for event in getattr(block, name)} for name in _KEYS}
            assert len(await once.rows("trades")) == len(keys["trades"])
            assert len(await once.rows("tickers")) == len(keys["tickers"])
            assert len(await once.rows("book_snapshots")) == len(keys["books"])
            assert len(await once.rows("venue_candles")) == len(keys["candles"])
            assert len(await once.rows("gaps")) == len(keys["gaps"])
            assert len(await letters(once)) == len({letter.batch for block in blocks for letter in block.dead_letters})
        finally:
            await once.end()
            await twice.end()

    tables.run(stored())


_KEYS = ("trades", "tickers", "books", "candles", "gaps")


def _key(event: Any) -> Any:
    if isinstance(event, Trade):
        return event.id
    if isinstance(event, Ticker):
        return event.seq
    if isinstance(event, BookSnapshot):
        return event.slot_ns
    return event.open_ns if isinstance(event, Candle) else event.id


def _plain(row: tuple[Any, ...], way: Way) -> tuple[Any, ...]:
    """Without the names that are the way's own."""
    return tuple((key, text.replace(way.symbol, "S").replace(way.shard.ref.feed, "way")) for key, text in row)


async def letters(way: Way) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(way._tables.url)
    try:
        found = await connection.fetch(
            "SELECT batch, idx, reason, detail, payload FROM dead_letters WHERE session = $1 ORDER BY 1, 2",
            way.symbol,
        )
    finally:
        await connection.close()
    return [tuple(row) for row in found]
