"""The demonstration under load is backed up continuously; its database is destroyed and restored, to the last moment
and to a chosen one; every table is compared, and the trades with the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from faults.files import files_below

from feedmill.general.backup.dump import AS_TEXT, Tally, tally
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.local.embedded.files import password, remembered_port
from feedmill.simulator.verify import verify

SECONDS, MOST, RATE = 40, 150, 3000
SLOW = 25
"""The demonstration lasts so many times as long as a command that only shows its help."""
OWN = {"backups", "restores", "gaps", "audit_log", "notifications", "notify_state", "maintenance_runs"}
"""Tables that a restore itself writes to, or that tell of it."""


async def _feedmill(*arguments: str) -> tuple[int, str, str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("REDIS_URL", "DATABASE_URL"))
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "feedmill.cli.main", *arguments, env=environment, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, said = await process.communicate()
    return process.returncode or 0, output.decode(), said.decode()


def _bad(output: str) -> str:
    """What the demonstration's own verdict is about; all of what it wrote where there is none."""
    try:
        found = json.loads(output)
    except ValueError:
        return output[-3000:]
    told = {name: found[name] for name in ("drained", "notes", "deadLetters")}
    return json.dumps(
        [told, *({name: each[name] for name in ("venue", "ok", "notes", "causes")} for each in found["venues"])]
    )


async def _tally(connection: asyncpg.Connection) -> Tally:
    await connection.execute(AS_TEXT)
    return await tally(connection, "public")


async def _still(url: str) -> tuple[int, Tally]:
    """A moment and all tables as of it: nobody writes while they are read."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                                        "AND relkind IN ('r', 'p') AND NOT relispartition")  # fmt: skip
        while True:
            # Who writes takes its tables in an order of its own: we may be the one that a deadlock ends.
            with contextlib.suppress(asyncpg.DeadlockDetectedError):
                async with connection.transaction():
                    names = ", ".join(row["relname"] for row in tables)
                    await connection.execute(f"LOCK TABLE {names} IN SHARE MODE")
                    found = await _tally(connection)
                    at: datetime = await connection.fetchval("SELECT clock_timestamp()")
                    await asyncio.sleep(0.01)
                return int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1000, found
    finally:
        await connection.close()


async def _while_it_flows(home: Path) -> tuple[int, Tally]:
    """Once a base backup is whole and much was stored after it."""
    while not files_below(home / "backups", "*/base/*/manifest.json"):
        await asyncio.sleep(0.2)
    await asyncio.sleep(6)
    server = EmbeddedPostgres(home / "postgres")
    server.attach(remembered_port(home / "postgres") or 0, password(home / "postgres"))
    return await _still(server.url)


async def _restored(home: Path, target: Path, *more: str) -> tuple[Tally, dict[str, Any], Any]:
    of = ("-c", str(home / "demo.yaml"), "--secrets-dir", str(home / "secrets"))
    code, output, said = await _feedmill("backup", "restore", *of, "--data-dir", str(target), "-o", "json", *more)
    assert code == 0, said
    with EmbeddedPostgres(target / "postgres") as server:
        connection = await asyncpg.connect(server.url)
        try:
            found = await _tally(connection)
            gaps = await connection.fetchval("SELECT count(*) FROM gaps WHERE cause = 'restore' AND state = 'open'")
        finally:
            await connection.close()
        # Only to be read: the ledger is compared with what was restored.
        report = await verify(home / "ledger", server.url)
    assert gaps > 0, "what happened since then is told"
    return found, json.loads(output), report


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_the_demonstration_is_lost_and_had_back(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    # It is looked at while it flows, which has to last longer where all takes longer.
    began = time.monotonic()
    await _feedmill("demo", "--help")
    seconds = min(MOST, max(SECONDS, round(SLOW * (time.monotonic() - began))))
    rate = RATE * SECONDS // seconds  # As many messages in all: a machine that is slower takes fewer in a second.
    arguments = ("demo", "--backup", "--json", "--seconds", str(seconds), "--rate", str(rate), "--data-dir", str(home))
    running = asyncio.create_task(_feedmill(*arguments))
    looking = asyncio.create_task(_while_it_flows(home))
    await asyncio.wait({running, looking}, return_when=asyncio.FIRST_COMPLETED)
    assert looking.done(), running.result()
    moment, then = looking.result()
    code, output, said = await running
    if code:
        pytest.fail(f"exit code {code}\n{_bad(output)}\n{said[-3000:]}")
    assert json.loads(output)["ok"]
    with EmbeddedPostgres(home / "postgres") as server:
        connection = await asyncpg.connect(server.url)
        at_last = await _tally(connection)
        await connection.close()
    assert list((home / "backups").rglob("logical/*/manifest.json")), "what is due by schedule is made here too"
    shutil.rmtree(home / "postgres")

    last, told, report = await _restored(home, home)
    assert {name: value for name, value in last.hashes.items() if name not in OWN} == {
        name: value for name, value in at_last.hashes.items() if name not in OWN
    }
    for venue in report.venues:
        assert (venue.trades.lost, venue.trades.doubled, venue.trades.phantom, venue.trades.wrong) == (0, 0, 0, 0)
        assert venue.trades.stored == venue.trades.emitted > 0

    to = datetime.fromtimestamp(moment / 1e9, UTC).isoformat(timespec="microseconds")
    early, told, report = await _restored(home, tmp_path / "other", "--to", to)
    assert told["backupId"].split("-")[1] == "base"
    assert {name: value for name, value in early.hashes.items() if name not in OWN} == {
        name: value for name, value in then.hashes.items() if name not in OWN
    }
    assert 0 < early.rows["trades"] < at_last.rows["trades"]
    for venue in report.venues:
        assert (venue.trades.doubled, venue.trades.phantom, venue.trades.wrong) == (0, 0, 0)
