"""The database is destroyed under load and restored from a backup: what is stored and what gap rows name is, exactly,
what the exchanges emitted; and what they still offer is fetched."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from feedmill.accounts.keyring import parse_keyring
from feedmill.cli.migrate import migrate_sync
from feedmill.general.backup.content import logical_content
from feedmill.general.backup.logical import run_logical
from feedmill.general.backup.names import Names
from feedmill.general.backup.restore import restore
from feedmill.general.backup.stores.folder import FolderStore
from feedmill.processor.settings import processor_settings
from feedmill.resources.load import load_files
from feedmill.shared.log import get_logger

pytestmark = pytest.mark.slow
VENUES = ("binance/Spot", "deribit/Derivatives")
RATE = 1000.0


class Vault:
    """Backups of the bed's database in a folder."""

    def __init__(self, bed: Any, folder: Path) -> None:
        self.bed = bed
        self.store = FolderStore(folder)
        self.names = Names("default", "main")
        self.ring = parse_keyring(f"k1 {base64.b64encode(os.urandom(32)).decode()}\n", "test")

    async def back_up(self) -> Any:
        return await run_logical(self.store, self.names, self.ring, self.bed.database_url, log=get_logger())

    async def destroy(self) -> None:
        """The database is gone, with everybody's sessions, and an empty one takes its place."""
        parts = urlsplit(self.bed.database_url)
        connection = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")))
        try:
            name = parts.path.lstrip("/")
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()

    async def restore(self, manifest: Any) -> Any:
        resources = load_files([self.bed.folder / "feeds.yaml"], local=True)
        (pipeline,) = resources.pipelines.values()
        settings = processor_settings(pipeline, resources.feeds_of(pipeline), "")

        async def migrate(to: str) -> None:
            await asyncio.to_thread(migrate_sync, self.bed.database_url, to=to, down=to == "base", restoring=True)

        content = logical_content(self.store, self.ring, manifest)
        return await restore(
            content, self.bed.database_url, settings, destination=self.store.where, migrate=migrate, log=get_logger()
        )


@pytest.fixture
async def vault_of(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[Vault] = []

    def make(bed: Any) -> Vault:
        made.append(Vault(bed, tmp_path / "backups"))
        return made[-1]

    yield make
    for vault in made:
        await vault.store.close()


async def judged(bed: Any) -> None:
    report = await bed.repaired()
    # ok = stored and named missing make up what was emitted, and no gap row names what is stored.
    assert report.ok, bed.explain(report)
    for venue in report.venues:
        assert venue.trades.in_gaps == 0, f"all trades are offered still: {bed.explain(report)}"
        assert venue.tickers.in_gaps > 0, "quotes have no history"
        assert venue.dead_letters == 0
    found = await bed.rows("SELECT channel, state FROM gaps WHERE cause = 'restore' AND instrument_id IS NOT NULL")
    assert {row["channel"] for row in found} == {"Trades", "Ticker"}
    assert {row["state"] for row in found} == {"closed"}
    assert not await bed.rows("SELECT 1 FROM gaps WHERE channel = 'events' AND state = 'open'")


async def test_with_the_redis_that_is_there(start_bed: Any, kit: Any, vault_of: Any) -> None:
    """All else runs on: receivers capture, distributors emit, processors wait for their database."""
    bed = await start_bed(*VENUES, rate=RATE)
    vault = vault_of(bed)
    await bed.until_emitted(4000)
    manifest = await vault.back_up()
    await bed.until_emitted(4000)
    now = time.time_ns()

    async def stored() -> bool:
        """All that came until now is. Not until nothing waits: while so much comes there may be no such moment."""
        statement = """SELECT DISTINCT exchange FROM trades JOIN instruments i ON i.id = instrument_id
                       WHERE receive_ns > $1"""
        return len(await bed.rows(statement, now)) == len(VENUES)

    await kit.until(stored)
    await vault.destroy()
    await bed.until_emitted(2000)
    await vault.restore(manifest)
    await bed.until_emitted(2000)
    await judged(bed)


async def test_with_an_empty_redis(start_bed: Any, vault_of: Any) -> None:
    bed = await start_bed(*VENUES, rate=RATE)
    vault = vault_of(bed)
    await bed.until_emitted(4000)
    manifest = await vault.back_up()
    await bed.until_emitted(3000)
    await bed.manager.stop()
    await vault.destroy()
    bed.redis.stop()
    for path in bed.redis.aof_dir.iterdir():
        path.unlink()
    bed.redis.start()
    await vault.restore(manifest)
    await bed.restart()
    await bed.until_emitted(3000)
    await judged(bed)


async def at_rest(bed: Any) -> None:
    """Until the server has done what a held process had asked of it: a commit after the backup would be taken from
    Redis and be in no backup."""
    busy = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND pid <> $1"
    connection = await asyncpg.connect(bed.database_url)
    try:
        quiet = 0
        while quiet < 10:
            await asyncio.sleep(0.05)
            quiet = 0 if await connection.fetchval(busy, connection.get_server_pid()) else quiet + 1
    finally:
        await connection.close()


async def test_nothing_is_missing_where_the_backup_is_of_now(start_bed: Any, vault_of: Any) -> None:
    """Redis has every commit since: no gap row stays, nothing is fetched, the ledger is equal."""
    bed = await start_bed(*VENUES, rate=RATE)
    vault = vault_of(bed)
    await bed.until_emitted(3000)
    # The processor is held: what comes from here on waits in Redis.
    processor = bed.service("processor")
    assert processor.signal(signal.SIGSTOP)
    try:
        await at_rest(bed)
        manifest = await vault.back_up()
        await vault.destroy()
        await vault.restore(manifest)
        await bed.until_emitted(2000)
    finally:
        processor.signal(signal.SIGCONT)
    report = await bed.settled()
    assert report.ok, bed.explain(report)
    for venue in report.venues:
        assert venue.trades.emitted == venue.trades.stored, bed.explain(report)
        assert venue.trades.gap_rows == 0, bed.explain(report)
    assert not await bed.rows("SELECT 1 FROM gaps WHERE cause = 'restore'")
