"""The database of accounts is destroyed and restored from a backup: what happened since is told again by the exchange.

The pool runs on, and so does Redis: who distributes remembers every fill, and would tell none of them twice.
"""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import redis.asyncio as redis_asyncio
from fault_stage import VENUES, Stage, staged

from feedmill.accounts.keyring import parse_keyring
from feedmill.cli.migrate import migrate_sync
from feedmill.general.backup.content import logical_content
from feedmill.general.backup.logical import run_logical
from feedmill.general.backup.names import Names
from feedmill.general.backup.restore import restore
from feedmill.general.backup.stores.folder import FolderStore
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.processor.settings import ProcessorSettings
from feedmill.shared.log import get_logger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def destroy(url: str) -> None:
    """The database is gone, with everybody's sessions, and an empty one takes its place."""
    parts = urlsplit(url)
    name = parts.path.lstrip("/")
    connection = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")))
    try:
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()


async def trim(stage: Stage) -> None:
    """What is stored goes from the streams at once, not only when a whole node of them can go."""
    client: Any = redis_asyncio.from_url(stage.redis.url)
    try:
        for account in stage.side.accounts:
            await client.xtrim(f"fm:{{default.@{account}.0}}:events", maxlen=0, approximate=False)
    finally:
        await client.aclose()


@pytest.mark.parametrize("name", VENUES)
async def test_fills_since_the_backup_are_told_again(
    redis_server: EmbeddedRedis, postgres_server: EmbeddedPostgres, database_url: str, tmp_path: Path, name: str
) -> None:
    ring = parse_keyring(f"k1 {base64.b64encode(os.urandom(32)).decode()}\n", "test")
    store = FolderStore(tmp_path / "backups")

    async def migrate(to: str) -> None:
        await asyncio.to_thread(migrate_sync, database_url, to=to, down=to == "base", restoring=True)

    try:
        async with staged(name, redis_server, postgres_server, database_url, tmp_path) as stage:
            before = await stage.happen()
            await stage.settled()
            manifest = await run_logical(store, Names("default", "main"), ring, database_url, log=get_logger())
            lost = await stage.happen()
            await stage.settled()
            await trim(stage)
            await destroy(database_url)
            meanwhile = await stage.happen()
            _, rejoined = await restore(
                logical_content(store, ring, manifest), database_url, ProcessorSettings(shards=()),
                destination=store.where, migrate=migrate, log=get_logger(),
            )  # fmt: skip
            assert rejoined.accounts == 2
            after = await stage.happen()
            await stage.settled()
            await stage.stored_once(before | meanwhile | after)
            # By the exchange; or by the receiver, of which Redis had confirmed them so lately that it still has them.
            await stage.stored_once(lost)
            assert "restore" in await stage.gaps()
    finally:
        await store.close()
