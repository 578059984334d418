"""verify: what the mappers make of the simulator's frames, stored by the test, is equal to the ledger; each kind of
damage is found and told apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from typer.testing import CliRunner

from feedmill.cli.migrate import migrate_sync
from feedmill.exchanges.base import BookUpdate
from feedmill.exchanges.binance_spot import VENUE as SPOT_VENUE
from feedmill.exchanges.binance_usdm import VENUE as USDM_VENUE
from feedmill.exchanges.deribit import VENUE as DERIBIT_VENUE
from feedmill.shared.events import Candle, Ticker, Trade
from feedmill.simulator.verify import VerifyError, verify

SPOT, USDM, DERIBIT = "binance/Spot", "binance/UsdM", "deribit/Derivatives"
VENUES = {SPOT: SPOT_VENUE, USDM: USDM_VENUE, DERIBIT: DERIBIT_VENUE}
MIX = {"Trades": 3.0, "Ticker": 3.0, "Book": 2.0}
MS = "timestamptz 'epoch' + {} * interval '1 millisecond'"


def plain(text: str) -> str:
    return format(Decimal(text), "f")


class Store:
    """Stores events as the processor does: natural keys, exact numbers."""

    def __init__(self, connection: asyncpg.Connection[Any], venue: str) -> None:
        self.db = connection
        self.exchange, _, self.market = venue.partition("/")
        self.ids: dict[str, int] = {}

    async def instrument(self, symbol: str) -> int:
        if symbol not in self.ids:
            self.ids[symbol] = await self.db.fetchval(
                "INSERT INTO instruments (exchange, market, symbol, native) VALUES ($1, $2, $3, $3) RETURNING id",
                self.exchange, self.market, symbol,
            )  # fmt: skip
        return self.ids[symbol]

    async def trade(self, x: Trade) -> None:
        await self.db.execute(
            f"INSERT INTO trades VALUES ($1, $2, {MS.format('$3::bigint')}, $4, $5, $6, $7, 1, 0, $8, $9, '')",
            await self.instrument(x.symbol), x.id, x.exchange_ns // 1_000_000, Decimal(x.price), Decimal(x.size),
            int(x.side), x.exchange_ns, x.first_id, x.last_id,
        )  # fmt: skip

    async def ticker(self, x: Ticker) -> None:
        sides = [Decimal(text) if text else None for text in (x.bid, x.bid_size, x.ask, x.ask_size)]
        await self.db.execute(
            "INSERT INTO tickers VALUES ($1, current_date, $2, $3, $4, $5, $6, $7, 1, 0) ON CONFLICT DO NOTHING",
            await self.instrument(x.symbol), x.seq, *sides, x.exchange_ns or None,
        )  # fmt: skip

    async def snapshot(self, symbol: str, slot: int, seq: int, bids: dict, asks: dict, depth: int = 20) -> None:
        sides = [sorted(bids.items(), reverse=True)[:depth], sorted(asks.items())[:depth]]
        arrays = [[level[at] for level in side] for side in sides for at in (0, 1)]
        await self.db.execute(
            f"INSERT INTO book_snapshots VALUES ($1, {MS.format('$2::bigint')}, $3, 1, 1, $4, $5, $6, $7)",
            await self.instrument(symbol), slot, seq, *arrays,
        )  # fmt: skip

    async def candles(self) -> None:
        await self.db.execute("""
            INSERT INTO candles SELECT instrument_id, '1m', date_trunc('minute', time),
                (array_agg(price ORDER BY trade_id))[1], max(price), min(price),
                (array_agg(price ORDER BY trade_id DESC))[1], sum(size), sum(price * size),
                count(*), min(trade_id), max(trade_id), false, NULL
            FROM trades GROUP BY 1, 3""")

    async def gap(
        self, symbol: str, channel: str, low: int, high: int, missing: str = "{}", cause: str = "sequence"
    ) -> None:
        await self.db.execute(
            "INSERT INTO gaps VALUES ($1, 's', $2, $3, $4, 'closed', $5, $6, $7::text::int8multirange, 1, 2, '', 1, 1)",
            f"{symbol}/{channel}/{low}", await self.instrument(symbol), channel, cause, low, high, missing,
        )  # fmt: skip


def apply(side: dict[Decimal, Decimal], levels: list[tuple[str, str]]) -> None:
    for price, size in levels:
        if Decimal(size):
            side[Decimal(price)] = Decimal(size)
        else:
            side.pop(Decimal(price), None)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    await asyncio.to_thread(migrate_sync, database_url)
    connection = await asyncpg.connect(database_url)
    for table in ("trades", "tickers", "book_snapshots"):
        await connection.execute(f"CREATE TABLE IF NOT EXISTS {table}_all PARTITION OF {table} DEFAULT")
    try:
        yield connection
    finally:
        await connection.close()


async def collect(sim, connect, venue: str, count: int) -> tuple[list[bytes], dict[str, bytes]]:
    """Frames of two instruments (all channels), and REST depth bodies taken in the middle."""
    stream, rest = sim.endpoints[venue]
    bodies: dict[str, bytes] = {}
    if venue == DERIBIT:
        names = ["BTC-PERPETUAL", "SOL_USDC-PERPETUAL"]
        channels = [
            form % name
            for name in names
            for form in ("trades.%s.100ms", "quote.%s", "book.%s.100ms", "chart.trades.%s.1")
        ]
        async with connect(stream + "/ws/api/v2") as client:
            await client.ask(
                {"jsonrpc": "2.0", "id": 1, "method": "public/subscribe", "params": {"channels": channels}}
            )
            await client.read(count)
            sim.stop_emitting()
            await sim.drained()
            await client.drain()
            return client.raw, bodies
    pairs = ["btcusdt", "ethusdt"]
    spot = venue == SPOT
    public = [f"{pair}@{kind}" for pair in pairs for kind in ("bookTicker", "depth@100ms")]
    market = [f"{pair}@{kind}" for pair in pairs for kind in ("trade" if spot else "aggTrade", "kline_1m")]
    urls = [f"{stream}/stream?streams={'/'.join(public + market)}"] if spot else [
        f"{stream}/public/stream?streams={'/'.join(public)}", f"{stream}/market/stream?streams={'/'.join(market)}",
    ]  # fmt: skip
    async with connect(urls[0]) as first, connect(urls[-1]) as last:
        clients = [first] if spot else [first, last]
        for client in clients:
            await client.read(count // 2)
        async with aiohttp.ClientSession() as session:
            for pair in pairs:
                path = f"{'/api/v3' if spot else '/fapi/v1'}/depth?symbol={pair.upper()}&limit=1000"
                async with session.get(rest + path) as answer:
                    bodies[pair.upper()] = await answer.read()
        for client in clients:
            await client.read(count // 2)
        sim.stop_emitting()
        await sim.drained()
        for client in clients:
            await client.drain()
        return [frame for client in clients for frame in client.raw], bodies


async def fill(store: Store, venue: str, frames: list[bytes], bodies: dict[str, bytes]) -> dict[str, list[Any]]:
    """Map and store; returns the events by class name."""
    symbols = {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT"}
    symbols |= {name: name for name in ("BTC-PERPETUAL", "SOL_USDC-PERPETUAL")}
    mapper = VENUES[venue].mapper(symbols)
    events: dict[str, list[Any]] = {"Trade": [], "Ticker": [], "BookUpdate": [], "Candle": []}
    for native, body in bodies.items():
        for event in mapper.map_rest("book_snapshot", symbols[native], 200, body, 1):
            events["BookUpdate"].append(event)
    for frame in frames:
        for event in mapper.map(frame, 1):
            events[type(event).__name__].append(event)
    for trade in events["Trade"]:
        await store.trade(trade)
    for ticker in events["Ticker"]:
        await store.ticker(ticker)
    books: dict[str, list[Any]] = {}
    for at, update in enumerate(events["BookUpdate"]):
        if update.snapshot:
            books[update.symbol] = [update.seq, {}, {}]
        book = books.get(update.symbol)
        if book is None or (not update.snapshot and update.seq <= book[0]):
            continue
        book[0] = update.seq
        apply(book[1], update.bids)
        apply(book[2], update.asks)
        if at % 5 == 0 or update.snapshot:
            await store.snapshot(update.symbol, at, book[0], book[1], book[2])
    await store.candles()
    assert all(isinstance(x, (Trade, Ticker, BookUpdate, Candle)) for found in events.values() for x in found)
    return events


@pytest.mark.parametrize("venue", [SPOT, USDM, DERIBIT])
async def test_a_faithful_store_is_equal_and_damage_is_found(
    simulate, connect, database, database_url: str, tmp_path: Path, venue: str
) -> None:
    async with simulate(venue, mix=MIX, rate=800) as sim:
        frames, bodies = await collect(sim, connect, venue, 800)
    store = Store(database, venue)
    events = await fill(store, venue, frames, bodies)
    report = await verify(tmp_path / "ledger", database_url)
    (found,) = report.venues
    assert report.ok, report.to_json()
    assert found.trades.emitted == found.trades.stored == len(events["Trade"]) > 100
    assert found.tickers.emitted == found.tickers.stored == len(events["Ticker"]) > 100
    assert found.books.checked > 20
    assert found.candles.stored > 0
    assert json.loads(report.to_json())["ok"] is True

    # Lost, then told by a gap row that names exactly these.
    victims = events["Trade"][20:23]
    symbol = victims[0].symbol
    ids = sorted(trade.id for trade in victims if trade.symbol == symbol)
    instrument = store.ids[symbol]
    kept = await database.fetch("SELECT * FROM trades WHERE instrument_id = $1 AND trade_id = ANY($2)", instrument, ids)
    await database.execute("DELETE FROM trades WHERE instrument_id = $1 AND trade_id = ANY($2)", instrument, ids)
    await database.execute("DELETE FROM candles")
    await store.candles()
    (found,) = (await verify(tmp_path / "ledger", database_url)).venues
    assert (found.trades.lost, found.trades.in_gaps, found.ok) == (len(ids), 0, False)
    assert any(f"{symbol} {ids[0]}" in note for note in found.notes)
    # What an account missed excuses no feed.
    await database.execute(
        "INSERT INTO gaps VALUES ('a', 'default.@a.0', NULL, 'Account', 'disconnected', 'open', NULL, NULL, '{}', 1, 0,"
        " '', 1, 1)"
    )
    (found,) = (await verify(tmp_path / "ledger", database_url)).venues
    assert (found.trades.lost, found.trades.in_gaps, found.causes) == (len(ids), 0, {})
    await database.execute("DELETE FROM gaps")
    ranges = "{" + ",".join(f"[{n},{n}]" for n in ids) + "}"
    await store.gap(symbol, "Trades", ids[0], ids[-1], ranges)
    (found,) = (await verify(tmp_path / "ledger", database_url)).venues
    assert (found.trades.lost, found.trades.in_gaps, found.trades.gap_rows, found.ok) == (0, len(ids), 1, True)
    assert found.causes == {"Trades sequence": 1}
    # A candle may not be called complete over that hole.
    await database.execute("UPDATE candles SET complete = true WHERE instrument_id = $1", instrument)
    (found,) = (await verify(tmp_path / "ledger", database_url)).venues
    assert found.candles.wrong >= 1
    await database.execute("UPDATE candles SET complete = false")
    # A gap row that names a stored number is wrong, too.
    await database.executemany(
        f"INSERT INTO trades VALUES ({','.join(f'${n}' for n in range(1, 13))})", [tuple(row) for row in kept[:1]]
    )
    await database.execute("DELETE FROM candles")
    await store.candles()
    (found,) = (await verify(tmp_path / "ledger", database_url)).venues
    assert (found.trades.gaps_wrong, found.ok) == (1, False)
    await database.executemany(
        f"INSERT INTO trades VALUES ({','.join(f'${n}' for n in range(1, 13))})", [tuple(row) for row in kept[1:]]
    )
    await database.execute("DELETE FROM gaps")
    await database.execute("DELETE FROM candles")
    await store.candles()
    assert (await verify(tmp_path / "ledger", database_url)).ok


@pytest.mark.parametrize("venue", [SPOT, DERIBIT])
async def test_missing_tickers_must_lie_in_a_gap(
    simulate, connect, database, database_url: str, tmp_path: Path, venue: str
) -> None:
    # So few tickers that a loop which was held up does not send all of these in one ms: Deribit's gaps go by time.
    async with simulate(venue, mix={"Trades": 8.0, "Ticker": 1.0, "Book": 1.0}) as sim:
        frames, bodies = await collect(sim, connect, venue, 600)
    store = Store(database, venue)
    events = await fill(store, venue, frames, bodies)
    first = events["Ticker"][0].symbol
    mine = [ticker for ticker in events["Ticker"] if ticker.symbol == first]
    victims = mine[10:15]
    await database.execute("DELETE FROM tickers WHERE seq = ANY($1)", [ticker.seq for ticker in victims])
    (found,) = (await verify(tmp_path / "ledger", database_url)).venues
    assert (found.tickers.lost, found.tickers.lost_before_first, found.tickers.lost_after_last) == (5, 0, 0)
    if venue == SPOT:
        low, high = mine[9].seq, mine[15].seq
        narrow = (mine[10].seq, high)
    else:
        low, high = (mine[at].exchange_ns // 1_000_000 for at in (9, 15))
        narrow = (mine[14].exchange_ns // 1_000_000 + 1, high)
    await store.gap(first, "Ticker", *narrow, cause="disconnected")
    (found,) = (await verify(tmp_path / "ledger", database_url)).venues
    assert found.tickers.lost == (1 if venue == SPOT else 5), "bounds are excluded for ids"
    await database.execute("DELETE FROM gaps")
    await store.gap(first, "Ticker", low, high, cause="disconnected")
    (found,) = (await verify(tmp_path / "ledger", database_url)).venues
    assert (found.tickers.lost, found.tickers.in_gaps, found.ok) == (0, 5, True)
    # A gap row that covers what is stored is wrong: it says that nothing between its ends was seen.
    last = mine[17].seq if venue == SPOT else mine[17].exchange_ns // 1_000_000
    await database.execute("UPDATE gaps SET to_seq = $1", last + 1)
    (found,) = (await verify(tmp_path / "ledger", database_url)).venues
    assert found.tickers.gaps_wrong >= 2
    assert not found.ok
    # An open gap reaches to the end.
    await database.execute("UPDATE gaps SET to_seq = NULL, state = 'open'")
    await database.execute("DELETE FROM tickers WHERE seq = ANY($1)", [ticker.seq for ticker in mine[15:]])
    (found,) = (await verify(tmp_path / "ledger", database_url)).venues
    assert (found.tickers.lost, found.tickers.in_gaps) == (0, len(mine) - 10)
    assert found.tickers.gaps_wrong == 0


async def test_doubled_phantom_and_wrong(simulate, connect, database, database_url: str, tmp_path: Path) -> None:
    async with simulate(SPOT, mix=MIX) as sim:
        frames, bodies = await collect(sim, connect, SPOT, 400)
    store = Store(database, SPOT)
    events = await fill(store, SPOT, frames, bodies)
    trade, ticker = events["Trade"][5], events["Ticker"][5]
    await database.execute(
        "INSERT INTO trades SELECT instrument_id, trade_id, time + interval '1 ms', price, size, side, exchange_ns,"
        " receive_ns, flags, first_id, last_id, venue_id FROM trades WHERE trade_id = $1 AND instrument_id = $2",
        trade.id, store.ids[trade.symbol],
    )  # fmt: skip
    await database.execute("UPDATE trades SET size = size + 1 WHERE trade_id = $1", events["Trade"][9].id)
    await database.execute("UPDATE trades SET trade_id = 5 WHERE trade_id = (SELECT max(trade_id) FROM trades)")
    await database.execute("UPDATE tickers SET ask = ask + 1 WHERE seq = $1", ticker.seq)
    await database.execute(
        "UPDATE book_snapshots SET bid_sizes[3] = 7 WHERE seq = (SELECT max(seq) FROM book_snapshots)"
    )
    await database.execute("UPDATE book_snapshots SET seq = 3 WHERE seq = (SELECT min(seq) FROM book_snapshots)")
    (found,) = (await verify(tmp_path / "ledger", database_url)).venues
    assert found.trades.doubled == 1
    assert found.trades.phantom >= 1
    assert found.trades.wrong >= 2
    assert found.trades.lost_after_last >= 1
    assert found.tickers.wrong == 1
    assert found.books.wrong == 1
    assert found.books.phantom == 1
    assert found.candles.wrong >= 1
    assert any("level 2" in note for note in found.notes)


async def test_what_cannot_be_compared_says_so(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no ledger"):
        await verify(tmp_path, database_url)
    (tmp_path / "binance-Spot.trades.tsv").write_text("BTC-USDT\t1\t1.0\t1.0\t1\t1000000\t0\t0\n")
    with pytest.raises(VerifyError, match="feedmill migrate"):
        await verify(tmp_path, database_url)


def test_the_command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from feedmill.cli.verify import verify as command

    app = typer.Typer()
    app.command()(command)
    migrate_sync(database_url)
    runner = CliRunner()
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert runner.invoke(app, [str(tmp_path)]).exit_code == 2
    monkeypatch.setenv("DATABASE_URL", database_url)
    missing = runner.invoke(app, [str(tmp_path)])
    assert missing.exit_code == 2
    (tmp_path / "binance-Spot.trades.tsv").write_text("")
    equal = runner.invoke(app, [str(tmp_path)])
    assert equal.exit_code == 0, equal.output
    assert "equal" in equal.output
    # The last line is still being written: it does not count yet.
    (tmp_path / "binance-Spot.trades.tsv").write_text("BTC-USDT\t1\t1.0\t1.0\t1\t1000000\t0\t0\nBTC-USDT\t2\t1")
    lost = runner.invoke(app, [str(tmp_path), "--json"])
    assert lost.exit_code == 1
    assert json.loads(lost.output)["venues"][0]["trades"]["lost"] == 1
