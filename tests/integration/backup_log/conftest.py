"""A PostgreSQL of its own whose log is received, a folder as the destination, and a second server to restore into."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from feedmill.cli.migrate import migrate_sync
from feedmill.general.backup import slot, watch
from feedmill.general.backup.choice import opened
from feedmill.general.backup.content import Content
from feedmill.general.backup.dump import AS_TEXT, Tally, tally
from feedmill.general.backup.progress import silent
from feedmill.general.backup.spool import Spool
from feedmill.general.backup.target import Target, open_target
from feedmill.general.backup.wal_plan import Log, logs_of
from feedmill.general.backup.watch import Watch
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.resources.load import load_files
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared.clock import now_ns
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.log import get_logger

WRITE = """
INSERT INTO dead_letters (shard, session, batch, idx, conn, receive_ns, reason, detail, code_version, payload)
SELECT 'default.spot.0', 's', $1::bigint, n, 1, n, 'test', 'x', '0',
       convert_to(repeat(md5(($1::bigint * n)::text), 30), 'utf8')
FROM generate_series(1, $2::int) n"""
"""Rows of about a kilobyte."""


class Stage:
    """Everything that a test of continuous backups needs."""

    def __init__(self, folder: Path, server: EmbeddedPostgres) -> None:
        self.folder = folder
        self.server = server
        self.backups = folder / "backups"
        self.secrets = folder / "secrets"
        self.manifest = folder / "pipeline.yaml"
        self.batch = 0
        self._targets: list[Target] = []

    @property
    def url(self) -> str:
        return self.server.url

    def write_manifest(self, **continuous: Any) -> None:
        key = self.secrets / "backup-key" / "key"
        if not key.exists():
            key.parent.mkdir(parents=True)
            key.write_text(f"k1 {base64.b64encode(os.urandom(32)).decode()}\n")
        pipeline = {
            "apiVersion": "feedmill.dev/v1alpha1",
            "kind": "FeedPipeline",
            "metadata": {"name": "main"},
            "spec": {
                "redis": {"managed": {"storage": "2Gi", "memory": "1Gi"}},
                "postgres": {"managed": {"storage": "20Gi"}},
                "backup": {
                    "schedule": "0 3 * * *",
                    "destination": {"folder": {"path": str(self.backups)}},
                    "encryption": {"keySecretRef": {"name": "backup-key", "key": "key"}},
                    "continuous": {"enabled": True, "baseSchedule": "0 2 1 1 *", **continuous},
                },
            },
        }
        self.manifest.write_text(json.dumps(pipeline))

    def pipeline(self) -> FeedPipeline:
        return load_files([self.manifest], local=True).pipelines["default", "main"]

    def target(self) -> Target:
        made = open_target(self.pipeline(), self.secrets)
        self._targets.append(made)
        return made

    async def close(self) -> None:
        for target in self._targets:
            await target.store.close()

    def watch(self, url: str | None = None, target: Target | None = None) -> Watch:
        return Watch(DatabaseUrl(url or self.url), target or self.target(), self.folder / "spool", get_logger())

    @contextlib.asynccontextmanager
    async def watching(self, watch: Watch) -> AsyncIterator[Watch]:
        """It runs, and is stopped in order at the end."""
        stop = asyncio.Event()
        running = asyncio.create_task(watch.run(stop))
        try:
            yield watch
        finally:
            stop.set()
            await running

    async def write(self, rows: int = 200) -> None:
        """One transaction."""
        self.batch += 1
        batch = self.batch  # Another writer may take the next one before we are connected.
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(WRITE, batch, rows)
        finally:
            await connection.close()

    async def keep(self, *, anew: bool = False) -> None:
        """Let the server keep its log from now on, as who receives it does."""
        name = slot.slot_name("default", "main")
        connection = await asyncpg.connect(self.url)
        try:
            if anew:
                await slot.drop(connection, name)
            await slot.create(connection, name)
        finally:
            await connection.close()

    async def sql(self, statement: str, *arguments: Any, url: str | None = None) -> Any:
        connection = await asyncpg.connect(url or self.url)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    async def tally(self, url: str | None = None) -> Tally:
        """Of all tables but those in which backups are written down, which go on while one is made."""
        connection = await asyncpg.connect(url or self.url)
        try:
            await connection.execute(AS_TEXT)
            return await tally(connection, "public")
        finally:
            await connection.close()

    async def received(self, watch: Watch) -> None:
        """``watch`` has told that all that is written by now was received."""
        wanted = await self.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")

        def is_received() -> bool:
            server = watch.receiver.server  # None while it connects anew.
            return server is not None and (server.received or 0) >= wanted

        await self.until(is_received)

    async def caught_up(self) -> None:
        """All that is written by now was received, and what is whole of it stored.

        Who is asked to end has a few seconds for that, which are too few for much on a busy machine.
        """
        written = await self.sql("SELECT pg_current_wal_lsn()::text")
        received = "SELECT max(write_lsn) >= $1::text::pg_lsn FROM pg_stat_replication WHERE application_name = $2"

        async def is_received() -> bool:
            return bool(await self.sql(received, written, slot.slot_name("default", "main")))

        await self.until(is_received)
        await self.until(lambda: not Spool(self.folder / "spool").waiting())

    async def log(self) -> Log:
        target = self.target()
        (log,) = logs_of(await target.store.list(target.names.wals)).values()
        return log

    @contextlib.asynccontextmanager
    async def restored(self, to_ns: int | None = None, target: Target | None = None) -> AsyncIterator[Content]:
        """The content that a restore would have."""
        target = target or self.target()
        async with opened(target, await target.ring(), None, to_ns, self.folder, silent) as content:
            yield content

    async def moment(self) -> int:
        """A time that nothing is committed at: ns since the epoch, whole microseconds as PostgreSQL has them."""
        at = now_ns() // 1000 * 1000
        await asyncio.sleep(0.01)
        return at

    def destroy(self) -> None:
        self.server.kill()
        shutil.rmtree(self.server.data_dir)

    async def command(self, *arguments: str, url: str | None = None) -> asyncio.subprocess.Process:
        """``feedmill ...`` as a user or a pod starts it."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_URL", "DATABASE_URL"))}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "feedmill.cli.main", *arguments, "-c", str(self.manifest), "--secrets-dir",
            str(self.secrets), env=own | {"DATABASE_URL": url or self.url}, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def until(self, holds: Callable[[], bool | Awaitable[bool]], seconds: float = 120.0) -> None:
        async with asyncio.timeout(seconds):
            while True:
                found = holds()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.05)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "pg", fsync=False)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
async def stage(tmp_path: Path, own_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    # What is stored at the end "if that can be done in a few seconds" is looked for here: a busy machine needs more.
    monkeypatch.setattr(watch, "CATCH_UP", 60.0)
    monkeypatch.setattr(watch, "LAST_UPLOAD", 120.0)
    await asyncio.to_thread(migrate_sync, own_server.url)
    made = Stage(tmp_path, own_server)
    made.write_manifest()
    try:
        yield made
    finally:
        await made.close()
