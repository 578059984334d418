"""``feedmill import sqlite`` of a bot's database with a million rows: how long, what for, and whether all of it came.

The exit code is 1 when a count or checksum differs or the second run changed anything, never for being slow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from rich.console import Console
from rich.table import Table

from bench import machine
from feedmill.cli.migrate import migrate_sync
from feedmill.local.embedded import EmbeddedPostgres

GOAL = 60.0
T0 = 1_769_860_800_000
PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT")
SHARES = {"trades": 0.6, "orders": 0.2, "ohlc_1m": 0.15, "balances": 0.05}
STORED = ("accounts", "instruments", "fills", "orders", "order_history", "balances", "balance_history", "venue_candles")


def _trades(rows: int) -> Iterator[tuple[Any, ...]]:
    for n in range(rows):
        yield (
            *(7_000_000 + n, 3_000_000 + n // 3, PAIRS[n % 5], "buy" if n % 7 < 4 else "sell", 100 + n / 7),
            *(0.001 * (n % 1000 + 1), 0.0001 * n if n % 4 else None, "BNB", n % 2, T0 / 1000 + n / 8),
        )


def _orders(rows: int) -> Iterator[tuple[Any, ...]]:
    for n in range(rows):
        step = n % 3
        body = {
            "symbol": PAIRS[n // 3 % 5].replace("/", ""), "side": "BUY", "type": "LIMIT", "price": 100 + n // 3 / 8,
            "origQty": "1.0", "executedQty": step / 2, "status": ("NEW", "PARTIALLY_FILLED", "FILLED")[step],
            "updateTime": T0 + n,
        }  # fmt: skip
        yield f"o{n // 3}", json.dumps(body)


def _candles(rows: int) -> Iterator[tuple[Any, ...]]:
    for n in range(rows):
        yield PAIRS[n % 5], T0 - n // 5 * 60_000, 100 + n / 9, 101 + n / 9, 99 + n / 9, 100.5 + n / 9, n / 16


def _balances(rows: int) -> Iterator[tuple[Any, ...]]:
    for n in range(rows):
        yield ("USDT", "BNB", "BTC")[n % 3], n / 3 + 1, n / 3, 1.0, T0 + n


TABLES = {
    "trades": ("id INTEGER, order_id INTEGER, pair TEXT, side TEXT, price REAL, amount REAL, fee REAL, "
               "fee_currency TEXT, is_maker INTEGER, ts REAL", _trades),
    "orders": ("id TEXT, data TEXT", _orders),
    "ohlc_1m": ("symbol TEXT, open_time INTEGER, open REAL, high REAL, low REAL, close REAL, volume REAL", _candles),
    "balances": ("currency TEXT, total REAL, free REAL, used REAL, timestamp INTEGER", _balances),
}  # fmt: skip


def make(path: Path, rows: int, shares: dict[str, float]) -> None:
    """A file in the shape people have: floats, a JSON text column, names of other programs."""
    with sqlite3.connect(path) as db:
        for name, share in shares.items():
            columns, made = TABLES[name]
            db.execute(f"CREATE TABLE {name} ({columns})")
            places = ", ".join("?" * (columns.count(",") + 1))
            db.executemany(f"INSERT INTO {name} VALUES ({places})", made(round(rows * share)))
    db.close()


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the command."""

    seconds: float
    cpu: float
    """Of the command, not of PostgreSQL."""
    postgres_cpu: float
    memory: int
    told: dict[str, Any]


def _cpu(pid: int) -> float:
    """Of a server and all its helpers, those that have ended included."""
    server = psutil.Process(pid)
    used = server.cpu_times()
    total = used.user + used.system + used.children_user + used.children_system
    for child in server.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:2])
    return total


def run(file: Path, server: EmbeddedPostgres) -> Run:
    """Raises SystemExit with what the command said when it could not import."""
    assert server.pid is not None
    before = _cpu(server.pid)
    command = [sys.executable, "-m", "feedmill.cli.main", "import", "sqlite", str(file)]
    command += ["--account", "main", "--exchange", "binance", "--market", "Spot", "-o", "json"]
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env={**os.environ, "DATABASE_URL": server.url}, stdout=output)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        output.seek(0)
        text = output.read().decode()
    if process.returncode not in (0, 1):
        raise SystemExit(f"bench-import: the command ended with {process.returncode}: {text}")
    own = used.ru_utime + used.ru_stime
    return Run(seconds, own, _cpu(server.pid) - before, used.ru_maxrss * 1024, json.loads(text))


async def stored(url: str) -> dict[str, tuple[int, int]]:
    """Table -> number of rows, and a sum that changes with any of them."""
    connection = await asyncpg.connect(url)
    try:
        statement = "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::numeric FROM {} t"
        found = {table: await connection.fetchrow(statement.format(table)) for table in STORED}
        return {table: (int(row[0]), int(row[1])) for table, row in found.items() if row is not None}
    finally:
        await connection.close()


def shown(first: Run, second: Run) -> Table:
    table = Table()
    for name in ("table", "target", "rows", "new", "new, 2nd run", "checksum of the file", "of the database", "equal"):
        table.add_column(name)
    for one, two in zip(first.told["tables"], second.told["tables"], strict=True):
        numbers = (one["rows"], one["inserted"], two["inserted"])
        equal = "yes" if one["equal"] and two["equal"] else "NO"
        table.add_row(*(one["table"], one["target"]), *(f"{number:,}" for number in numbers),
                      *(one["fileChecksum"], one["storedChecksum"], equal))  # fmt: skip
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.imports", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=list(TABLES), help="one table with all rows, instead of four")
    options = parser.parse_args()
    shares = {options.only: 1.0} if options.only else SHARES
    console = Console(highlight=False, width=max(Console().width, 140))
    busy = machine.busy_share()
    with tempfile.TemporaryDirectory(prefix="bench-import-") as folder:
        file = Path(folder) / "bot.db"
        make(file, options.rows, shares)
        console.print(f"{options.rows:,} rows, {file.stat().st_size / 2**20:.0f} MiB; others use {busy:.0%} of the CPU")
        server = EmbeddedPostgres(Path(folder) / "postgres")
        server.start()
        try:
            migrate_sync(server.url)
            first = run(file, server)
            before = asyncio.run(stored(server.url))
            second = run(file, server)
            same = asyncio.run(stored(server.url)) == before
        finally:
            server.stop()
    console.print(shown(first, second))
    for name, each in (("first run", first), ("second run", second)):
        console.print(
            f"{name}: {each.seconds:.1f} s, {options.rows / each.seconds:,.0f} rows/s; CPU: the command "
            f"{each.cpu:.1f} s, PostgreSQL {each.postgres_cpu:.1f} s; memory {each.memory / 2**20:.0f} MiB"
        )
    goal = f"goal {GOAL:.0f} s: {'met' if first.seconds <= GOAL else 'NOT met'}"
    console.print(f"{goal}; the second run {'changed nothing' if same else 'CHANGED WHAT IS STORED'}")
    new = sum(table["inserted"] for table in second.told["tables"])
    return 0 if same and not new and first.told["equal"] and second.told["equal"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
