"""The log and its base backup in B2 and S3 over HTTP while they fail, and restores to a moment from there.

Each batch is one transaction, so what is restored is a set of whole batches: those that were committed by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

from b2_server import B2Server
from faults_http import Fault
from s3_server import S3Server
from store_helpers import bucket_of, remote

from feedmill.cli.migrate import migrate_sync
from feedmill.general.backup import log_server
from feedmill.general.backup.restore import restore
from feedmill.general.backup.spool import Spool
from feedmill.general.backup.stores.base import StoreAway
from feedmill.general.backup.target import Target
from feedmill.general.backup.wal_plan import logs_of
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.processor.settings import ProcessorSettings
from feedmill.shared.log import get_logger

PART = 1 << 20
"""A base backup has some of them, a file of the log that is full of noise too."""
SENT = r"PUT .*partNumber=|POST /upload/"
LOG_SENT = r"PUT .*/wal/|POST /upload/"
READ_BASE = r"GET (/file)?/feedmill-test/home.*/base/.*/data"
READ_LOG = r"GET (/file)?/feedmill-test/home.*/wal/"
NOISE = """
INSERT INTO dead_letters (shard, session, batch, idx, conn, receive_ns, reason, detail, code_version, payload)
SELECT 'default.spot.0', 's', $1::bigint, n, 1, n, 'test', 'x', '0', payload FROM unnest($2::bytea[])
WITH ORDINALITY AS row(payload, n)"""
BATCHES = "SELECT batch, count(*) FROM dead_letters GROUP BY 1 ORDER BY 1"


@pytest.fixture(params=["s3", "b2"])
def server(request: pytest.FixtureRequest) -> Iterator[S3Server | B2Server]:
    found = S3Server() if request.param == "s3" else B2Server()
    yield found
    found.stop()


@contextlib.asynccontextmanager
async def bucket(server: S3Server | B2Server, stage: Any, patience: float = 60.0) -> AsyncIterator[Target]:
    store = remote(bucket_of(server), part_bytes=PART, patience=patience)
    try:
        yield dataclasses.replace(stage.target(), store=store)
    finally:
        await store.close()


class Ledger:
    """Writes batches, and knows how many rows of each were committed."""

    def __init__(self, stage: Any) -> None:
        self._stage = stage
        self._dice = random.Random(5)
        self.rows: dict[int, int] = {}

    async def write(self, rows: int, *, row_bytes: int = 1000, connection: asyncpg.Connection | None = None) -> int:
        """One transaction, or one statement of the one that ``connection`` is in; its number."""
        number = len(self.rows) + 1
        self.rows[number] = rows
        own = connection or await asyncpg.connect(self._stage.url)
        try:
            await own.execute(NOISE, number, [self._dice.randbytes(row_bytes) for _ in range(rows)])
        finally:
            if connection is None:
                await own.close()
        return number


def bad_day(server: S3Server | B2Server) -> None:
    """Uploads that are refused, not answered, or come with a token that has ended."""
    server.faults.add(
        Fault(SENT, spare=2, times=2, status=503),
        Fault(SENT, spare=1, times=1, unanswered=True),
        Fault(LOG_SENT, spare=3, times=2, status=503),
    )
    if isinstance(server, B2Server):
        server.faults.add(Fault(SENT, spare=2, times=2, status=401, code="expired_auth_token"))


def bad_night(server: S3Server | B2Server) -> None:
    """Downloads that are cut or refused."""
    server.faults.add(
        Fault(READ_BASE, times=1, cut_after=700_000),
        Fault(READ_BASE, times=1, status=503),
        Fault(READ_LOG, spare=1, times=2, cut_after=1000),
        Fault(READ_LOG, times=2, status=503),
    )


async def restored(stage: Any, target: Target, url: str, to_ns: int | None) -> list[tuple[int, int]]:
    """A whole restore into an empty database; the batches that are there afterwards, with their rows."""

    async def migrate(to: str) -> None:
        await asyncio.to_thread(migrate_sync, url, to=to, down=to == "base", restoring=True)

    async with stage.restored(to_ns, target) as content:
        await restore(
            content, url, ProcessorSettings(shards=()), destination=target.store.where, migrate=migrate, to_ns=to_ns,
            log=get_logger(),
        )  # fmt: skip
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(BATCHES)]
    finally:
        await connection.close()


async def empty_again(url: str) -> None:
    await asyncio.to_thread(migrate_sync, url, to="base", down=True)


async def test_on_a_bad_day_to_a_moment_and_to_the_last(
    server: S3Server | B2Server, stage: Any, tmp_path: Path
) -> None:
    ledger = Ledger(stage)
    async with bucket(server, stage) as target:
        bad_day(server)
        watch = stage.watch(target=target)
        async with stage.watching(watch):
            await ledger.write(100)
            await stage.until(lambda: bool(watch.bases.state.last_id))
            for _ in range(3):
                await ledger.write(200)
            if isinstance(server, B2Server):
                server.expire_tokens()
            # More than a part of what does not shrink, in a file that is whole.
            await ledger.write(400, row_bytes=4000)
            await stage.sql("SELECT pg_switch_wal()")
            late = await asyncpg.connect(stage.url)
            await late.execute("BEGIN")
            open_then = await ledger.write(50, connection=late)
            files = watch.uploader.state.files
            moment = await stage.moment()
            wanted = [(number, rows) for number, rows in ledger.rows.items() if number != open_then]
            await late.execute("COMMIT")
            await late.close()
            for _ in range(3):
                await ledger.write(300)
            await stage.sql("SELECT pg_switch_wal()")
            await stage.until(lambda: watch.uploader.state.files > files)
            await stage.caught_up()
        assert watch.document()["problem"] == ""
        assert server.faults.count(SENT) > 5
        stage.destroy()
        bad_night(server)
        if isinstance(server, B2Server):
            server.expire_tokens()
        with EmbeddedPostgres(tmp_path / "other", fsync=False) as other:
            assert await restored(stage, target, other.url, moment) == wanted
            await empty_again(other.url)
            assert await restored(stage, target, other.url, None) == list(ledger.rows.items())
        assert server.faults.count(READ_LOG) > 4
        assert {action for _, action in server.versions()} == {"upload"}, "no upload is left half-way"


async def test_slow_uploads_hold_the_log_and_a_process_that_ends_meanwhile_loses_none(
    server: S3Server | B2Server, stage: Any, tmp_path: Path
) -> None:
    ledger, hold = Ledger(stage), threading.Event()
    try:
        async with bucket(server, stage) as target:
            watch = stage.watch(target=target)
            running = asyncio.create_task(watch.run(asyncio.Event()))
            await stage.until(lambda: bool(watch.bases.state.last_id))
            await stage.until(lambda: watch.uploader.state.waiting_files == 0)
            server.faults.add(Fault(LOG_SENT, times=10**6, hold=hold))
            kept_from = "SELECT restart_lsn::text FROM pg_replication_slots"
            before = await stage.sql(kept_from)
            asked = server.faults.count(LOG_SENT)
            for _ in range(3):
                await ledger.write(100)
                await stage.sql("SELECT pg_switch_wal()")
            await stage.until(lambda: server.faults.count(LOG_SENT) > asked)
            # In the spool itself: the uploader looks there anew only when what it sends now was answered.
            await stage.until(lambda: bool(Spool(stage.folder / "spool").waiting()))
            assert await stage.sql(kept_from) == before, "the server keeps what is still on its way"
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        server.faults.clear()
        hold.set()
        async with bucket(server, stage) as target:
            async with stage.watching(stage.watch(target=target)) as again:
                await stage.until(lambda: again.ready()[0])
                await ledger.write(100)
                await stage.caught_up()
            assert not again.bases.state.why, "the log goes on"
            stage.destroy()
            with EmbeddedPostgres(tmp_path / "other", fsync=False) as other:
                assert await restored(stage, target, other.url, None) == list(ledger.rows.items())
    finally:
        hold.set()


async def test_a_store_that_goes_away_in_the_middle_is_no_end_of_the_log(
    server: S3Server | B2Server, stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_server, "_TRIES", 2)
    monkeypatch.setattr(log_server, "_PAUSE", 0.01)
    ledger = Ledger(stage)
    async with bucket(server, stage) as target, stage.watching(stage.watch(target=target)) as watch:
        await stage.until(lambda: bool(watch.bases.state.last_id))
        for _ in range(3):
            await ledger.write(100)
            await stage.sql("SELECT pg_switch_wal()")
        await stage.until(lambda: watch.uploader.state.files >= 4)
    stage.destroy()
    with EmbeddedPostgres(tmp_path / "other", fsync=False) as other:
        async with bucket(server, stage, patience=0.2) as target:
            (log,) = logs_of(await target.store.list(target.names.wals)).values()
            last = max(log.files)
            server.faults.add(Fault(f"GET .*{last}", times=10**6, status=503))
            with pytest.raises(StoreAway):
                await restored(stage, target, other.url, None)
            tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            assert await stage.sql(tables, url=other.url) == 0, "the target is untouched"
            assert not list(stage.folder.glob("feedmill-replay-*"))
            server.faults.clear()
            assert await restored(stage, target, other.url, None) == list(ledger.rows.items())
