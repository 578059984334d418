"""``feedmill backup run``, ``verify`` and ``restore`` of a database of 5 GB: throughput, and memory over time.

Memory is that of the command with the PostgreSQL programs it runs; the servers are not in it. The exit code is 1 when a
command failed, what was restored differs, or more memory was taken than the goal, never for being slow.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
from rich.console import Console
from rich.table import Table

from bench import machine
from feedmill.cli.migrate import migrate_sync
from feedmill.general.backup.dump import AS_TEXT, Tally, tally
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.shared import partitions
from feedmill.shared.clock import now_ns

GOAL = 200 << 20
"""Bytes."""
EVERY = 0.1
"""Seconds between two looks at the memory."""
STEP = 500_000
DAYS = 8
REJOINED = {"gaps", "backups", "restores", "audit_log", "applied", "notifications", "notify_state"}

_TRADES = """
INSERT INTO trades SELECT 1 + n % 20, n, date_trunc('day', now()) - n % {days} * interval '1 day'
    + (n / {days}) % 86400000 * interval '1 millisecond', round((60000 + 500 * sin(n / 1e4))::numeric, 2) ,
    round((random() * 3)::numeric, 6), 1 + n % 2, {base} + n, {base} + n + 1234567, 0, 0, 0, NULL
FROM generate_series({first}::bigint, {last}::bigint) n
"""
_TICKERS = """
INSERT INTO tickers SELECT 1 + n % 20, current_date - (n % {days})::int, n, round((60000 + random() * 10)::numeric, 2),
    round((random() * 3)::numeric, 5), round((60001 + random() * 10)::numeric, 2), round((random() * 3)::numeric, 5),
    {base} + n, {base} + n + 1234567, 0
FROM generate_series({first}::bigint, {last}::bigint) n
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One command."""

    seconds: float
    peak: int
    own_peak: int
    """Without the programs."""
    thirds: tuple[int, int, int]
    """Highest memory in each third of the time."""


async def fill(url: str, size: int) -> int:
    """Rows like those of a market until the database has ``size`` bytes; answers how many bytes it has."""
    connection = await asyncpg.connect(url)
    try:
        today = now_ns() // partitions.DAY_NS
        for table in partitions.ALL:
            for day in range(today - DAYS, today + 2):
                await partitions.ensure(connection, table, day)
        await connection.execute(
            "INSERT INTO instruments (exchange, market, symbol, native)"
            " SELECT 'binance', 'Spot', 'X' || n || '-USDT', 'X' || n || 'USDT' FROM generate_series(1, 20) n"
        )
    finally:
        await connection.close()
    return await more(url, size)


async def more(url: str, size: int) -> int:
    """More of such rows until it has ``size`` bytes."""
    connection = await asyncpg.connect(url)
    try:
        first = 1 + int(await connection.fetchval("SELECT coalesce(max(seq), 0) FROM tickers"))
        while (found := await connection.fetchval("SELECT pg_database_size(current_database())")) < size:
            for statement in (_TRADES, _TICKERS):
                await connection.execute(
                    statement.format(days=DAYS, base=now_ns(), first=first, last=first + STEP - 1), timeout=600
                )
            first += STEP
        return int(found)
    finally:
        await connection.close()


async def tallied(url: str) -> Tally:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(AS_TEXT)
        return await tally(connection, "public")
    finally:
        await connection.close()


def run(*arguments: str, url: str, folder: Path, programs: Collection[str] = ("pg_dump", "pg_restore")) -> Run:
    """Raises SystemExit with what the command said when it failed."""
    command = [sys.executable, "-m", "feedmill.cli.main", "backup", *arguments, "-c", str(folder / "pipeline.yaml")]
    command += ["--secrets-dir", str(folder / "secrets")]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_URL", "DATABASE_URL"))}
    memory: list[tuple[int, int]] = []
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env={**own, "DATABASE_URL": url, "TMPDIR": str(folder)}, stdout=output, stderr=output
        )
        seen = psutil.Process(process.pid)
        while process.poll() is None:
            memory.append(_memory(seen, programs))
            time.sleep(EVERY)
        seconds = time.monotonic() - started
        output.seek(0)
        text = output.read().decode()
    if process.returncode != 0:
        raise SystemExit(f"bench-backup: the command ended with {process.returncode}: {text}")
    size = max(1, len(memory) // 3)
    thirds = tuple(max((both for both, _ in memory[at : at + size]), default=0) for at in (0, size, 2 * size))
    return Run(
        seconds, max(both for both, _ in memory), max(alone for _, alone in memory),
        (thirds[0], thirds[1], thirds[2]),
    )  # fmt: skip


def _memory(process: psutil.Process, programs: Collection[str]) -> tuple[int, int]:
    """(with the programs that it runs, alone). A scratch server is none of them."""
    try:
        alone = process.memory_info().rss
        both = alone
        for child in process.children():
            if child.name() in programs:
                both += child.memory_info().rss
    except psutil.NoSuchProcess:
        return 0, 0
    return both, alone


def declare(folder: Path) -> None:
    """A pipeline with backups into the folder, and its key."""
    (folder / "secrets" / "backup-key").mkdir(parents=True)
    key = base64.b64encode(os.urandom(32)).decode()
    (folder / "secrets" / "backup-key" / "key").write_text(f"bench {key}\n")
    spec = {
        "redis": {"managed": {"storage": "2Gi", "memory": "1Gi"}},
        "postgres": {"managed": {"storage": "20Gi"}},
        "backup": {
            "schedule": "0 3 * * *",
            "destination": {"folder": {"path": str(folder / "backups")}},
            "encryption": {"keySecretRef": {"name": "backup-key", "key": "key"}},
        },
    }
    (folder / "pipeline.yaml").write_text(
        json.dumps(
            {"apiVersion": "feedmill.dev/v1alpha1", "kind": "FeedPipeline", "metadata": {"name": "main"}, "spec": spec}
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.backup", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--no-verify", action="store_true", help="leave the drill out")
    parser.add_argument("--continuous", action="store_true", help="base backup, log, and a restore of both")
    options = parser.parse_args()
    if options.continuous:
        from bench import backup_log

        return backup_log.main(options.gigabytes)
    console = Console(highlight=False, width=max(Console().width, 120))
    busy = machine.busy_share()
    with tempfile.TemporaryDirectory(prefix="bench-backup-") as name:
        folder = Path(name)
        declare(folder)
        server = EmbeddedPostgres(folder / "postgres", options={"max_wal_size": "4GB"})
        server.start()
        try:
            migrate_sync(server.url)
            size = asyncio.run(fill(server.url, int(options.gigabytes * 1e9)))
            console.print(f"database: {size / 1e9:.2f} GB on disk; others use {busy:.0%} of the CPU")
            runs: dict[str, Run] = {"backup": run("run", url=server.url, folder=folder)}
            (data,) = (folder / "backups").rglob("data")
            stored = data.stat().st_size
            if not options.no_verify:
                runs["verify"] = run("verify", url=server.url, folder=folder)
            asyncio.run(_create(server))
            other = server.url_for("restored")
            runs["restore"] = run("restore", url=other, folder=folder)
            before, after = asyncio.run(tallied(server.url)), asyncio.run(tallied(other))
        finally:
            server.stop()
    same = all(
        (after.rows[each], after.hashes[each]) == (before.rows[each], before.hashes[each])
        for each in before.rows
        if each not in REJOINED
    )
    table = Table()
    for column in ("", "seconds", "database MB/s", "stored MB/s", "memory peak", "of the command alone", "by thirds"):
        table.add_column(column, justify="right")
    for what, each in runs.items():
        table.add_row(
            what, f"{each.seconds:.1f}", f"{size / 1e6 / each.seconds:.1f}", f"{stored / 1e6 / each.seconds:.1f}",
            _mib(each.peak), _mib(each.own_peak), " / ".join(_mib(third) for third in each.thirds),
        )  # fmt: skip
    console.print(table)
    most = max(each.peak for each in runs.values())
    console.print(
        f"{sum(before.rows.values()):,} rows, stored in {stored / 1e9:.2f} GB; restored "
        f"{'equal' if same else 'NOT EQUAL'}; memory goal {_mib(GOAL)}: {'met' if most <= GOAL else 'NOT met'}"
    )
    return 0 if same and most <= GOAL else 1


async def _create(server: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(server.url)
    try:
        await connection.execute("CREATE DATABASE restored")
    finally:
        await connection.close()


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


if __name__ == "__main__":
    raise SystemExit(main())
