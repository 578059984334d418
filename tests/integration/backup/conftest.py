"""A database with something in every kind of table, a folder for backups, and a second database to restore into."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from faults.files import files_below

from feedmill.accounts.keyring import Keyring, parse_keyring
from feedmill.cli.migrate import migrate_sync
from feedmill.general.backup.catalogue import Catalogue, read_catalogue
from feedmill.general.backup.choice import Picked
from feedmill.general.backup.content import Content, logical_content
from feedmill.general.backup.dump import AS_TEXT, Tally, tally
from feedmill.general.backup.logical import run_logical
from feedmill.general.backup.manifest import Manifest
from feedmill.general.backup.names import Names
from feedmill.general.backup.restore import restore
from feedmill.general.backup.stores.folder import FolderStore
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.processor.settings import ProcessorSettings, ShardSettings, VenueRules
from feedmill.shared import partitions, postgres
from feedmill.shared.clock import now_ns
from feedmill.shared.keys import ShardRef
from feedmill.shared.log import get_logger

REF = ShardRef("default", "spot", 0)
SHARD = ShardSettings(REF, "binance", "Spot", VenueRules(True, {}), {"BTC-USDT": "BTCUSDT", "ETH-USDT": "ETHUSDT"})
DAYS = 3
LAST_ENTRY_MS = now_ns() // 1_000_000

_ROWS = """
INSERT INTO instruments (exchange, market, symbol, native)
SELECT 'binance', 'Spot', s || '-USDT', s || 'USDT' FROM unnest(ARRAY['BTC', 'ETH']) AS s;
INSERT INTO trades SELECT i, n, date_trunc('day', now()) - ({days} - 1 - (n - 1) * {days} / {rows}) * interval '1 day'
    + n * interval '1 millisecond', 100 + n % 7 + 0.50, 0.25, 1 + n % 2, n, n, 0, 0, 0, NULL
    FROM generate_series(1, 2) i, generate_series(1, {rows}) n;
INSERT INTO tickers SELECT i, current_date, n, 1.10, 2.0, NULL, NULL, NULL, n, 0
    FROM generate_series(1, 2) i, generate_series(1, {rows}) n;
INSERT INTO book_snapshots SELECT 1, date_trunc('day', now()) + n * interval '1 second', n, n, n,
    '{{1.0,2}}', '{{3,4}}', '{{5}}', '{{6}}' FROM generate_series(1, 50) n;
INSERT INTO candles SELECT 1, '1m', date_trunc('day', now()) + n * interval '1 minute', 1, 2, 0.5, 1.50, 9, 9, 3, 1, 3
    FROM generate_series(1, 100) n;
INSERT INTO gaps (id, shard, instrument_id, channel, cause, state, from_seq, to_seq, missing, revision, detected_ns)
VALUES ('default.spot.0/BTC-USDT/Trades/7', 'default.spot.0', 1, 'Trades', 'sequence', 'open', 7, 9, '{{[7,9]}}', 1, 5);
INSERT INTO dead_letters VALUES ('default.spot.0', 'r0-1', 1, 0, 1, 5, 'bad_json', 'x', '0.1.0', '\\x00ff0a0d');
INSERT INTO applied (shard, n, commit_id, stream_id) VALUES ('default.spot.0', 42, 'abc', '{last_ms}-0');
INSERT INTO accounts (namespace, name, exchange, market, environment, origin)
VALUES ('default', 'main', 'binance', 'Spot', 'Production', 'store');
INSERT INTO credentials (account_id, field, version, format, key_id, wrapped_key, ciphertext)
VALUES (1, 'apiKey', 1, 1, '2026-11', '\\x01', '\\x02');
INSERT INTO audit_log (actor, place, action, detail) VALUES ('me', 'here', 'add', '{{"a": "\\u00e9\\n"}}');
"""


def keyring(key_id: str = "k1") -> Keyring:
    return parse_keyring(f"{key_id} {base64.b64encode(os.urandom(32)).decode()}\n", "test")


@dataclass
class Depot:
    """Everything that a test of backups needs."""

    url: str
    target_url: str
    folder: Path
    ring: Keyring
    store: FolderStore
    settings: ProcessorSettings
    names: Names = field(default_factory=lambda: Names("default", "main"))
    log: Any = field(default_factory=get_logger)

    async def back_up(self, **more: Any) -> Manifest:
        return await run_logical(self.store, self.names, self.ring, self.url, log=self.log, **more)

    def content(self, manifest: Manifest, ring: Keyring | None = None) -> Content:
        return logical_content(self.store, ring or self.ring, manifest)

    def picked(self, manifest: Manifest) -> Picked:
        content = self.content(manifest)
        return Picked(manifest, lambda: contextlib.nullcontext(content))

    async def restore(self, content: Content) -> Any:
        return await restore(
            content, self.target_url, self.settings, destination=self.store.where, migrate=self.migrate, log=self.log
        )

    async def migrate(self, to: str) -> None:
        await asyncio.to_thread(migrate_sync, self.target_url, to=to, down=to == "base", restoring=True)

    async def catalogue(self) -> Catalogue:
        return await read_catalogue(self.store, self.names)

    def files(self) -> list[str]:
        """What is at the destination, unfinished things included."""
        return [str(path.relative_to(self.folder)) for path in files_below(self.folder)]

    def data(self, manifest: Manifest) -> Path:
        return self.folder / manifest.object

    async def fetch(self, url: str, statement: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch(statement, *arguments)
            return [row[0] if len(row) == 1 else tuple(row) for row in rows]
        finally:
            await connection.close()

    async def tally(self, url: str) -> Tally:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(AS_TEXT)
            return await tally(connection, "public")
        finally:
            await connection.close()

    async def target_tables(self) -> list[str]:
        """What a restore left in the target: empty when it is untouched."""
        found = await self.fetch(
            self.target_url,
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
        )
        return sorted(found)

    def manifest_file(self, folder: Path) -> Path:
        """A FeedPipeline with these backups, for the commands; its Secrets lie in ``folder``/secrets."""
        (folder / "secrets" / "backup-key").mkdir(parents=True)
        key = base64.b64encode(self.ring.key(self.ring.current)).decode()
        (folder / "secrets" / "backup-key" / "key").write_text(f"{self.ring.current} {key}\n")
        pipeline = {
            "apiVersion": "feedmill.dev/v1alpha1",
            "kind": "FeedPipeline",
            "metadata": {"name": "main"},
            "spec": {
                "redis": {"managed": {"storage": "2Gi", "memory": "1Gi"}},
                "postgres": {"managed": {"storage": "20Gi"}},
                "backup": {
                    "schedule": "0 3 * * *",
                    "destination": {"folder": {"path": str(self.folder)}},
                    "encryption": {"keySecretRef": {"name": "backup-key", "key": "key"}},
                },
            },
        }
        path = folder / "pipeline.yaml"
        path.write_text(json.dumps(pipeline))
        return path


async def fill(url: str, rows: int = 500) -> None:
    """Rows in every kind of table, in partitions of a few days."""
    connection = await postgres.connect(url, name="test", command_timeout=None)
    try:
        today = now_ns() // partitions.DAY_NS
        for table in partitions.ALL:
            for day in range(today - DAYS, today + 2):
                await partitions.ensure(connection, table, day)
        await connection.execute(_ROWS.format(days=DAYS, rows=rows, last_ms=LAST_ENTRY_MS))
    finally:
        await postgres.close(connection)


async def command(*arguments: str, url: str) -> asyncio.subprocess.Process:
    """``feedmill backup ...`` as a user or a pod starts it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_URL", "DATABASE_URL"))}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "feedmill.cli.main", "backup", *arguments, env=own | {"DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


@dataclass
class Kit:
    """Helpers for tests, as importlib mode has no shared modules."""

    fill: Any = fill
    command: Any = command
    keyring: Any = keyring
    shard: ShardSettings = SHARD


@pytest.fixture
def kit() -> Kit:
    return Kit()


@pytest.fixture
def target_url(postgres_server: EmbeddedPostgres, database_url: str) -> Iterator[str]:
    """A second, empty database."""
    name = f"target_{secrets.token_hex(6)}"

    async def admin(statement: str) -> None:
        connection = await asyncpg.connect(postgres_server.url_for("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(admin(f'CREATE DATABASE "{name}"'))
    try:
        yield postgres_server.url_for(name)
    finally:
        asyncio.run(admin(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


@pytest.fixture
async def depot(tmp_path: Path, database_url: str, target_url: str) -> AsyncIterator[Depot]:
    await asyncio.to_thread(migrate_sync, database_url)
    await fill(database_url)
    folder = tmp_path / "backups"
    store = FolderStore(folder)
    try:
        yield Depot(database_url, target_url, folder, keyring(), store, ProcessorSettings(shards=(SHARD,)))
    finally:
        await store.close()
