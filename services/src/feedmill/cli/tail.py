"""``feedmill tail``: print events as they come, straight from the events streams."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from feedmill.cli.common import DATA_DIR, DataDir, fail, folder, told
from feedmill.local.embedded.files import password, remembered_port
from feedmill.shared.clock import iso
from feedmill.shared.config import read_setting
from feedmill.shared.events import (
    BookSnapshot,
    Candle,
    DeadLetter,
    EventBlock,
    Gap,
    Instrument,
    Side,
    Ticker,
    Trade,
    decode_events,
)
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.url import RedisUrl

Event = Trade | Ticker | BookSnapshot | Candle | Gap | DeadLetter | Instrument
KINDS: dict[type[Any], str] = {
    Trade: "trade",
    Ticker: "ticker",
    BookSnapshot: "book",
    Candle: "candle",
    Gap: "gap",
    DeadLetter: "deadletter",
    Instrument: "instrument",
}
CHANNELS = {"trades": "trade", "book": "book", "ticker": "ticker", "candles": "candle", "gaps": "gap"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are printed. Empty = all."""

    kinds: frozenset[str] = frozenset()
    symbols: frozenset[str] = frozenset()

    def takes(self, event: Event) -> bool:
        if self.kinds and KINDS[type(event)] not in self.kinds:
            return False
        return not self.symbols or getattr(event, "symbol", "") in self.symbols


def of_block(block: EventBlock) -> Iterator[Event]:
    """All events of a commit, kind by kind."""
    for events in (
        block.instruments,
        block.trades,
        block.tickers,
        block.books,
        block.candles,
        block.gaps,
        block.dead_letters,
    ):
        yield from events


def line(shard: ShardRef, event: Event) -> str:
    """One event for people."""
    head = f"{_time(event)}  {shard.feed:<16.16} {KINDS[type(event)]:<10} {getattr(event, 'symbol', ''):<18} "
    match event:
        case Trade():
            late = " late" if event.flags & 1 else ""
            return f"{head}{Side(event.side).name.lower():<4} {event.price} x {event.size}  id {event.id}{late}"
        case Ticker():
            return f"{head}{event.bid or '-'} x {event.bid_size or '-'} | {event.ask or '-'} x {event.ask_size or '-'}"
        case BookSnapshot():
            bid = event.bids[0] if event.bids else ("-", "-")
            ask = event.asks[0] if event.asks else ("-", "-")
            levels = f"{len(event.bids)}+{len(event.asks)} levels"
            return f"{head}{bid[0]} x {bid[1]} | {ask[0]} x {ask[1]}  {levels} at {iso(event.slot_ns)[11:19]}"
        case Candle():
            state = "closed" if event.closed else "open"
            values = f"o {event.open} h {event.high} l {event.low} c {event.close} v {event.volume}"
            return f"{head}{event.interval} {values} {state}"
        case Gap():
            extent = f"{event.from_seq}..{event.to_seq if event.to_seq >= 0 else '?'}"
            repaired = f", repaired by {event.repaired_by}" if event.repaired_by else ""
            return f"{head}{event.channel} {extent} {event.state}: {event.cause}{repaired}"
        case DeadLetter():
            return f"{head}{event.reason}: {event.detail[:120]} ({len(event.payload)} bytes kept)"
        case Instrument():
            return f"{head}{event.native} {event.type} {event.status} tick {event.tick} lot {event.lot}"


def _time(event: Event) -> str:
    ns = getattr(event, "exchange_ns", 0) or getattr(event, "receive_ns", 0) or getattr(event, "detected_ns", 0)
    return iso(ns)[11:23] if ns else "--:--:--.---"


def as_json(shard: ShardRef, event: Event) -> str:
    """One event as a JSON line; bytes as hex."""
    import msgspec

    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    if isinstance(event, DeadLetter):
        fields["payload"] = event.payload.hex()
    whole = {"feed": f"{shard.namespace}/{shard.feed}", "shard": shard.shard, "kind": KINDS[type(event)], **fields}
    return msgspec.json.encode(whole).decode()


@told
def tail(
    data_dir: DataDir = DATA_DIR,
    feed: Annotated[
        list[str] | None,
        typer.Option("--feed", "-f", metavar="NAMESPACE/NAME", help="Only this feed (repeat for more)."),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            "--channel", "-c", metavar="CHANNEL", help="Trades, Book, Ticker, Candles or Gaps (repeat for more)."
        ),
    ] = None,
    symbol: Annotated[
        list[str] | None,
        typer.Option("--symbol", "-s", metavar="SYMBOL", help="Only this instrument, e.g. BTC-USDT (repeat for more)."),
    ] = None,
    as_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    count: Annotated[
        int, typer.Option("--count", "-n", min=0, metavar="NUMBER", help="End after so many events; 0 = never.")
    ] = 0,
) -> None:
    """Print events as they come, until Ctrl-C.

    Reads the Redis of a running feedmill up (or REDIS_URL), from now on; nothing is taken away from anybody.

    \b
    feedmill tail
    feedmill tail --channel Trades --symbol BTC-USDT
    feedmill tail --channel Gaps
    feedmill tail --json | jq .price
    """
    unknown = [name for name in channel or [] if name.lower() not in CHANNELS]
    if unknown:
        fail(f"--channel {unknown[0]}: there is Trades, Book, Ticker, Candles and Gaps", 2)
    kinds = frozenset(CHANNELS[name.lower()] for name in channel or [])
    wanted = Wanted(kinds, frozenset(symbol or []))
    asyncio.run(_follow(redis_url(data_dir), feed or [], wanted, as_lines, count))


def redis_url(data_dir: Path) -> RedisUrl:
    """REDIS_URL, else the Redis of the manager that runs on the folder."""
    given = read_setting(os.environ, "REDIS_URL")
    if given is not None:
        return RedisUrl.parse(given.get_secret_value())
    home = folder(data_dir) / "redis"
    port = remembered_port(home)
    if port is None:
        fail(f"{data_dir} holds no Redis: start feedmill up, name another folder with --data-dir, or set REDIS_URL", 2)
    return RedisUrl("127.0.0.1", port, password=password(home))


async def find_shards(client: Any, feeds: Sequence[str]) -> list[ShardRef]:
    """Shards that have an events stream; ``feeds``: names or namespace/name, empty = all."""
    found: set[ShardRef] = set()
    async for key in client.scan_iter(match="fm:{*}:events", count=1000):
        text = key.decode() if isinstance(key, bytes) else key
        try:
            shard = ShardRef.parse(text[4 : text.index("}")])
        except ValueError:
            continue
        if not feeds or shard.feed in feeds or f"{shard.namespace}/{shard.feed}" in feeds:
            found.add(shard)
    return sorted(found)


async def _follow(url: RedisUrl, feeds: Sequence[str], wanted: Wanted, as_lines: bool, count: int) -> None:
    from redis.exceptions import RedisError

    from feedmill.shared.redis.pool import make_client

    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    client = make_client(url, name="feedmill-tail", max_connections=2, timeout=10.0)
    try:
        await _print_forever(client, feeds, wanted, as_lines, count)
    except BrokenPipeError:
        raise  # Whoever read our output has enough; a broken connection to Redis is redis-py's own error.
    except (RedisError, OSError) as error:
        fail(f"the Redis at {url} does not answer ({error}): is feedmill up running?")
    except asyncio.CancelledError:
        pass
    finally:
        await client.aclose()


async def _print_forever(client: Any, feeds: Sequence[str], wanted: Wanted, as_lines: bool, count: int) -> None:
    positions: dict[str, tuple[ShardRef, str]] = {}
    told_waiting = False
    looked = 0.0
    loop = asyncio.get_running_loop()
    left = count
    while True:
        if loop.time() - looked > 2.0:
            looked = loop.time()
            for shard in await find_shards(client, feeds):
                if shard.events not in positions:
                    positions[shard.events] = (shard, await _tip(client, shard.events))
        if not positions:
            if not told_waiting:
                typer.echo("no events stream yet: waiting", err=True)
                told_waiting = True
            await asyncio.sleep(0.5)
            continue
        answer = await client.xread({key: last for key, (_, last) in positions.items()}, count=100, block=1000)
        for key, entries in answer or []:
            name = key.decode()
            shard = positions[name][0]
            for entry, fields in entries:
                positions[name] = (shard, entry.decode())
                for event in of_block(decode_events(fields[b"e"])) if b"e" in fields else ():
                    if not wanted.takes(event):
                        continue
                    typer.echo(as_json(shard, event) if as_lines else line(shard, event))
                    left -= 1
                    if left == 0:
                        return


async def _tip(client: Any, stream: str) -> str:
    info = await client.xinfo_stream(stream)
    last = info.get("last-generated-id", b"0-0")
    return last.decode() if isinstance(last, bytes) else str(last)
