"""The recorded source: every recorded frame goes out once, unaltered, to those who subscribed; REST from the bodies."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from feedmill.simulator import ConfigError, Simulator, SimulatorConfig, VenueConfig, recorded_feeds

RECORDINGS = Path(os.environ.get("FEEDMILL_RECORDINGS", Path(__file__).resolve().parents[4] / "shared" / "recordings"))
SPOT, USDM, DERIBIT = "binance/Spot", "binance/UsdM", "deribit/Derivatives"
needs_recordings = pytest.mark.skipif(
    not (RECORDINGS / "binance.jsonl.gz").is_file(),
    reason="no captured frames there: set FEEDMILL_RECORDINGS to their folder",
)


def received(name: str) -> list[str]:
    with gzip.open(RECORDINGS / name, "rt") as file:
        lines = [json.loads(line) for line in file]
    return [line["data"] for line in lines if line["kind"] == "recv" and '"id"' not in line["data"][:40]]


def start(tmp_path: Path, venue: str, **fields: Any) -> Simulator:
    fields = {"speed": 0.0, "grace": 60.0, "recordings": RECORDINGS} | fields
    return Simulator(SimulatorConfig((VenueConfig(venue),), ledger=tmp_path / "ledger", **fields))


async def played(sim: Simulator, venue: str) -> None:
    source: Any = sim.venues[venue].source
    async with asyncio.timeout(60):
        while not source.finished:
            await asyncio.sleep(0.01)
    await sim.drained()


@needs_recordings
def test_what_the_recordings_can_feed() -> None:
    feeds = {f"{feed['exchange']}/{feed['market']}": feed for feed in recorded_feeds(RECORDINGS)}
    assert feeds[SPOT]["symbols"] == ["NKN-USDT", "BLZ-ETH", "LRC-BTC", "RUNE-EUR"]
    assert feeds[USDM]["symbols"][0] == "SUSHI-USDT"
    assert len(feeds[DERIBIT]["symbols"]) == 10
    assert set(feeds[SPOT]["channels"]) == {"Trades", "Book", "Ticker", "Candles"}
    assert feeds[SPOT]["interval"] == "1m"
    assert feeds[DERIBIT]["interval"] == ""


@needs_recordings
@pytest.mark.parametrize(
    ("venue", "file", "roots"), [(SPOT, "binance", [""]), (USDM, "binance_futures", ["/public", "/market"])]
)
async def test_binance_frames_go_out_as_recorded(
    connect, ledger, tmp_path: Path, venue: str, file: str, roots: list[str]
) -> None:
    frames = received(f"{file}.jsonl.gz")
    names = sorted({json.loads(frame)["stream"] for frame in frames})
    async with start(tmp_path, venue) as sim:
        urls = [sim.endpoints[venue][0] + root + "/stream?streams=" + "/".join(names) for root in roots]
        async with connect(urls[0]) as first, connect(urls[-1]) as last:
            await played(sim, venue)
            await first.drain()
            await last.drain()
            clients = [first] if len(roots) == 1 else [first, last]
            got = [raw.decode() for client in clients for raw in client.raw]
    assert sorted(got) == sorted(frames)
    count = {kind: len(ledger(venue, kind)) for kind in ("tickers", "books", "trades")}
    assert count["tickers"] == sum("@bookTicker" in frame[:60] for frame in frames)
    assert count["books"] == sum("@depth" in frame[:60] for frame in frames) + 4, "and one image a symbol"
    assert count["trades"] == sum("@aggTrade" in frame[:60] for frame in frames)


@needs_recordings
async def test_a_single_aggregate_is_a_trade_on_spot(connect, ledger, tmp_path: Path) -> None:
    async with (
        start(tmp_path, SPOT, grace=0.2) as sim,
        connect(sim.endpoints[SPOT][0] + "/ws/nknusdt@trade") as client,
    ):
        await played(sim, SPOT)
        await client.drain()
    assert client.got == [
        {"e": "trade", "E": 1633998523963, "s": "NKNUSDT", "t": 19862790, "p": "0.35280000", "q": "58.00000000",
         "T": 1633998523963, "m": False, "M": True}
    ]  # fmt: skip
    assert ledger(SPOT, "trades")[0][:5] == ["NKN-USDT", "19862790", "0.35280000", "58.00000000", "1"]


@needs_recordings
async def test_it_waits_for_all_subscriptions(connect, tmp_path: Path) -> None:
    names = sorted({json.loads(frame)["stream"] for frame in received("binance.jsonl.gz")})
    async with start(tmp_path, SPOT) as sim, connect(sim.endpoints[SPOT][0] + "/stream") as client:
        source: Any = sim.venues[SPOT].source
        await client.ask({"method": "SUBSCRIBE", "params": names[1:], "id": 1})
        await asyncio.sleep(0.2)
        assert not source.started
        await client.ask({"method": "SUBSCRIBE", "params": names[:1], "id": 2})
        await played(sim, SPOT)


@needs_recordings
async def test_deribit_raw_frames_reach_other_intervals(connect, ledger, tmp_path: Path) -> None:
    frames = [json.loads(frame)["params"] for frame in received("deribit.jsonl.gz")]
    natives = sorted({frame["channel"].split(".")[1] for frame in frames})
    async with start(tmp_path, DERIBIT) as sim:
        channels = [form % native for native in natives for form in ("book.%s.100ms", "quote.%s", "trades.%s.100ms")]
        async with connect(sim.endpoints[DERIBIT][0] + "/ws/api/v2") as client:
            request = {"jsonrpc": "2.0", "id": 1, "method": "public/subscribe", "params": {"channels": channels}}
            assert set((await client.ask(request))["result"]) == set(channels)
            await played(sim, DERIBIT)
            await client.drain()
            # A subscriber that comes late gets the book as it stands.
            busiest = "BTC-24SEP21-8000-P"
            async with connect(sim.endpoints[DERIBIT][0] + "/ws/api/v2") as late:
                await late.ask(request | {"params": {"channels": [f"book.{busiest}.100ms"]}})
                snapshot = (await late.next())["params"]["data"]
    got = [message["params"] for message in client.got if "params" in message]
    assert [item["data"] for item in got] == [frame["data"] for frame in frames]
    for item, frame in zip(got, frames, strict=True):
        kind, native, _ = frame["channel"].split(".")
        assert item["channel"] == {"book": f"book.{native}.100ms", "ticker": f"quote.{native}"}[kind]
    last = [frame["data"] for frame in frames if frame["channel"] == f"book.{busiest}.raw"][-1]
    assert snapshot["type"] == "snapshot"
    assert snapshot["change_id"] == last["change_id"]
    assert len(ledger(DERIBIT, "tickers")) == 89
    assert len(ledger(DERIBIT, "books")) == 46


@needs_recordings
async def test_rest_comes_from_the_recorded_bodies(connect, tmp_path: Path) -> None:
    async with start(tmp_path, SPOT, grace=0.1) as sim, aiohttp.ClientSession() as session:

        async def get(path: str) -> Any:
            async with session.get(sim.endpoints[SPOT][1] + path) as answer:
                return answer.status, await answer.json()

        _, before = await get("/api/v3/depth?symbol=NKNUSDT&limit=1000")
        assert before["lastUpdateId"] == 499869752
        async with connect(sim.endpoints[SPOT][0] + "/ws/nknusdt@depth@100ms") as client:
            await played(sim, SPOT)
            await client.drain()
        _, after = await get("/api/v3/depth?symbol=NKNUSDT&limit=5000")
        assert after["lastUpdateId"] == client.got[-1]["u"]
        sides = [{Decimal(p): Decimal(q) for p, q in before[side]} for side in ("bids", "asks")]
        for event in client.got:
            if event["u"] > before["lastUpdateId"]:
                for side, changes in zip(sides, (event["b"], event["a"]), strict=True):
                    for price, size in changes:
                        side[Decimal(price)] = Decimal(size)
        for side, levels in zip(sides, (after["bids"], after["asks"]), strict=True):
            assert {p: q for p, q in side.items() if q} == {Decimal(p): Decimal(q) for p, q in levels}
        _, info = await get("/api/v3/exchangeInfo?symbol=RUNEEUR")
        assert info["symbols"][0]["baseAsset"] == "RUNE"
        assert (await get("/api/v3/depth?symbol=NOPE"))[0] == 400


async def test_a_missing_or_broken_recording_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"binance\.jsonl\.gz"):
        async with start(tmp_path, SPOT, recordings=tmp_path):
            pass
    (tmp_path / "binance.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(ConfigError, match="cannot be read"):
        async with start(tmp_path, SPOT, recordings=tmp_path):
            pass
    assert recorded_feeds(tmp_path / "nowhere") == []


async def test_the_pace_is_that_of_the_recording(connect, tmp_path: Path) -> None:
    """Times scale with the speed; frames of one moment come together. With a small recording made here."""
    info = {"symbols": [{"symbol": "AB", "baseAsset": "A", "quoteAsset": "B"}]}
    lines = [{"t_ns": 0, "kind": "http", "conn": "x", "url": "https://h/api/v3/exchangeInfo", "data": json.dumps(info)}]
    for number, at in enumerate((0.0, 10.0, 10.0, 20.0)):
        data = {"stream": "ab@bookTicker", "data": {"u": number, "s": "AB", "b": "1", "B": "1", "a": "2", "A": "1"}}
        lines.append({"t_ns": int(1e18 + at * 1e9), "kind": "recv", "conn": "x", "url": None, "data": json.dumps(data)})
    with gzip.open(tmp_path / "binance.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    async with start(tmp_path, SPOT, recordings=tmp_path, speed=10.0) as sim:
        loop = asyncio.get_running_loop()
        source: Any = sim.venues[SPOT].source
        play, times = source.play, []

        def timed(name: str, data: str) -> None:
            times.append(loop.time())
            play(name, data)

        source.play = timed
        async with connect(sim.endpoints[SPOT][0] + "/ws/ab@bookTicker") as client:
            await client.read(4)
    # When they were sent: a client may be late in reading them. Who was held up makes up for it, so from the first on.
    assert times[1] - times[0] >= 0.999
    assert times[2] - times[1] < 0.5
    assert times[3] - times[0] >= 1.999
    assert [message["u"] for message in client.got] == [0, 1, 2, 3]
