"""The measuring side: another process that sees a message arrive and notes when.

``python -m bench.observe KIND --arrivals FILE --symbols A,B`` with the server's URL in BENCH_TARGET; KIND:

- ``cryptofeed-redis``: blocking XREAD on cryptofeed's streams (one entry a trade)
- ``raw``: blocking XREAD on the raw stream; an entry's frames arrived when the entry did
- ``events``: blocking XREAD on the events stream
- ``cryptofeed-rows`` / ``rows``: asks PostgreSQL every ms for the newest committed row of the first symbol

It notes CLOCK_MONOTONIC as soon as the answer is in, before it reads it, and prints ``{"event": "watching"}`` when it
is ready. It ends at the end of its stdin, printing what it saw and its own CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hiredis

from bench.frames import native
from bench.stamps import BASE_ID, Stamps, number_of

POLL_SECONDS = 0.001
_TRADE = re.compile(rb'"s":"(\w+)","[ta]":(\d+),')
Entry = tuple[bytes, list[bytes]]


class Redis:
    """A blocking connection, no more than is needed here."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._sock = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        if parts.password:
            self.call("AUTH", *([parts.username] if parts.username else []), parts.password)

    def call(self, *args: str | bytes | int) -> Any:
        self._sock.sendall(hiredis.pack_command(args))  # type: ignore[arg-type]  # its stub knows one item only
        while (reply := self._reader.gets()) is False:
            data = self._sock.recv(1 << 20)
            if not data:
                raise EOFError("Redis closed the connection")
            self._reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply


class Arrivals:
    """Notes the first arrival of each message; a second one counts as doubled."""

    def __init__(self, path: Path, symbols: list[str]) -> None:
        self._stamps = Stamps(path)
        self._times = self._stamps.times
        self._symbols = len(symbols)
        self.by_native = {native(symbol).encode(): index for index, symbol in enumerate(symbols)}
        self.by_symbol = {symbol: index for index, symbol in enumerate(symbols)}
        self.doubled = 0

    def note(self, trade_id: int, symbol: int, now: int) -> None:
        number = number_of(trade_id, symbol, self._symbols)
        if self._times[number]:
            self.doubled += 1
        else:
            self._times[number] = now


def stream_trades_cryptofeed(arrivals: Arrivals, key: bytes, entries: list[Entry], now: int) -> None:
    index = arrivals.by_symbol[key.decode().removeprefix("trades-BINANCE-")]
    for _, fields in entries:
        arrivals.note(int(fields[fields.index(b"id") + 1]), index, now)


def raw_frames(entry: Entry) -> Iterator[tuple[bytes, int]]:
    """(native symbol, trade id) of the trades in one raw entry."""
    from feedmill.shared.frames import RunKind, decode_batch

    fields = entry[1]
    for run in decode_batch(fields[fields.index(b"b") + 1]).runs:
        if run.kind == RunKind.FRAMES:
            for frame in run.frames:
                if match := _TRADE.search(frame):
                    yield match[1], int(match[2])


def stream_trades_raw(arrivals: Arrivals, key: bytes, entries: list[Entry], now: int) -> None:
    for entry in entries:
        for name, trade_id in raw_frames(entry):
            arrivals.note(trade_id, arrivals.by_native[name], now)


def event_trades(entry: Entry) -> Iterable[Any]:
    from feedmill.shared.events import decode_events

    fields = entry[1]
    return decode_events(fields[fields.index(b"e") + 1]).trades


def stream_trades_events(arrivals: Arrivals, key: bytes, entries: list[Entry], now: int) -> None:
    for entry in entries:
        for trade in event_trades(entry):
            arrivals.note(trade.id, arrivals.by_symbol[trade.symbol], now)


Reader = Callable[[Arrivals, bytes, list[Entry], int], None]
READERS: dict[str, Reader] = {
    "cryptofeed-redis": stream_trades_cryptofeed,
    "raw": stream_trades_raw,
    "events": stream_trades_events,
}


def watch_redis(kind: str, url: str, keys: list[str], arrivals: Arrivals, over: threading.Event) -> None:
    redis, read, clock = Redis(url), READERS[kind], time.monotonic_ns
    last = {key.encode(): b"0-0" for key in keys}
    print(json.dumps({"event": "watching"}), flush=True)
    while not over.is_set():
        answer = redis.call("XREAD", "COUNT", 20000, "BLOCK", 500, "STREAMS", *last, *last.values())
        now = clock()
        for key, entries in answer or ():
            last[key] = entries[-1][0]
            read(arrivals, key, entries, now)


ROW_QUERIES = {
    "cryptofeed-rows": "SELECT trade_id::bigint FROM trades WHERE symbol = '{symbol}' ORDER BY id DESC LIMIT 1",
    "rows": (
        "SELECT trade_id FROM trades WHERE instrument_id = "
        "(SELECT id FROM instruments WHERE exchange = 'binance' AND market = 'Spot' AND symbol = '{symbol}') "
        "AND time >= current_date - 1 ORDER BY trade_id DESC LIMIT 1"
    ),
}


async def watch_rows(kind: str, url: str, symbol: str, arrivals: Arrivals, over: threading.Event) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    statement = await connection.prepare(ROW_QUERIES[kind].format(symbol=symbol))
    print(json.dumps({"event": "watching"}), flush=True)
    seen = BASE_ID - 1
    while not over.is_set():
        newest = await statement.fetchval()
        now = time.monotonic_ns()
        if newest is not None and newest > seen:
            for trade_id in range(seen + 1, newest + 1):
                arrivals.note(trade_id, 0, now)
            seen = newest
        await asyncio.sleep(POLL_SECONDS)
    await connection.close()


def _wait_for_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def main() -> None:
    parser = argparse.ArgumentParser(description="Note when messages arrive in Redis or PostgreSQL.")
    parser.add_argument("kind", choices=[*READERS, *ROW_QUERIES])
    parser.add_argument("--arrivals", type=Path, required=True)
    parser.add_argument("--symbols", required=True)
    parser.add_argument("--keys", default="")
    options = parser.parse_args()
    symbols = options.symbols.split(",")
    arrivals = Arrivals(options.arrivals, symbols)
    over = threading.Event()
    threading.Thread(target=_wait_for_end, args=(over,), daemon=True).start()
    if options.kind in READERS:
        watch_redis(options.kind, os.environ["BENCH_TARGET"], options.keys.split(","), arrivals, over)
    else:
        asyncio.run(watch_rows(options.kind, os.environ["BENCH_TARGET"], symbols[0], arrivals, over))
    print(json.dumps({"event": "seen", "doubled": arrivals.doubled, "cpu": time.process_time()}), flush=True)


if __name__ == "__main__":
    main()
