"""What the database tells of backups, drills, maintenance and gaps, read from a real one and shown as metrics."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import asyncpg
import pytest
from prometheus_client import REGISTRY

from feedmill.cli.migrate import migrate_sync
from feedmill.local.embedded import EmbeddedPostgres
from feedmill.processor import records
from feedmill.processor.due import DRILL, Done, Plan
from feedmill.processor.records import Records
from feedmill.resources.types import Schedule
from feedmill.shared.breaker import Breaker
from feedmill.shared.clock import SECOND, now_ns
from feedmill.shared.log import get_logger

BACKUPS = """
INSERT INTO backups (id, kind, state, destination, object, started_ns, ended_ns, size_bytes, schema_version, error)
VALUES ('1', 'logical', 'succeeded', 'd', 'o', 100, 200, 5000, '0003', ''),
       ('2', 'logical', 'succeeded', 'd', 'o', 300, 500, 6000, '0003', ''),
       ('3', 'logical', 'failed', 'd', 'o', 600, 700, NULL, '0003', 'away'),
       ('4', 'logical', 'running', 'd', 'o', 800, NULL, NULL, '0003', ''),
       ('5', 'base', 'failed', 'd', 'o', 100, 110, NULL, '0003', 'away'),
       ('6', 'base', 'succeeded', 'd', 'o', 120, 190, 9000, '0003', '')
"""
RESTORES = """
INSERT INTO restores (id, backup_id, mode, state, started_ns, ended_ns)
VALUES ('1', '1', 'verify', 'failed', 10, 20), ('2', '2', 'verify', 'succeeded', 30, 60),
       ('3', '2', 'restore', 'failed', 70, 80)
"""
RUNS = """
INSERT INTO maintenance_runs (started_ns, ended_ns, outcome, report)
VALUES (1, 5, 'succeeded', '{"findings": [{"kind": "old"}]}'),
       (6, 9, 'partly', '{"findings": [{"kind": "bloat"}, {"kind": "bloat"}, {"kind": "unused"}]}'),
       (11, NULL, 'running', '{}'), (10, 12, 'failed', '{}')
"""
GAPS = """
INSERT INTO gaps (id, shard, channel, cause, state, revision, detected_ns)
SELECT n::text, 's', CASE WHEN n < 3 THEN 'Trades' ELSE 'Book' END, 'shed',
       CASE WHEN n = 4 THEN 'closed' ELSE 'open' END, 1, 1 FROM generate_series(1, 4) AS n
"""


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    await asyncio.to_thread(migrate_sync, database_url)
    found = await asyncpg.connect(database_url)
    yield found
    await found.close()
    records.forget()


async def test_an_empty_database_has_nothing_to_tell(connection: asyncpg.Connection) -> None:
    found = await records.read(connection)
    assert found.size_bytes > 1_000_000
    assert (found.good, found.failed, found.maintained_ns, found.since_ns) == ({}, {}, None, None)
    assert (found.findings, found.open_gaps, found.dead_letters) == ({}, {}, 0)


async def test_everything_is_found(connection: asyncpg.Connection) -> None:
    for statement in (BACKUPS, RESTORES, RUNS, GAPS):
        await connection.execute(statement)
    await connection.execute(
        "INSERT INTO dead_letters SELECT 's', 'x', n, 0, 0, 1, 'bad_json', '', '1', '' FROM generate_series(1, 7) AS n"
    )
    await connection.execute("INSERT INTO instruments (exchange, market, symbol, native) VALUES ('b', 'S', 'X', 'X')")
    found = await records.read(connection)
    assert found.good == {"logical": Done(300, 500, 6000), "base": Done(120, 190, 9000), DRILL: Done(30, 60)}
    assert found.failed == {"logical": True, "base": False, DRILL: False}
    assert found.maintained_ns == 9
    assert found.findings == {}, "of the run that ended last, which failed"
    assert found.open_gaps == {"Trades": 2, "Book": 1}
    assert found.dead_letters == 7
    assert found.since_ns is not None
    assert abs(found.since_ns - now_ns()) < 600 * SECOND
    await connection.execute("DELETE FROM maintenance_runs WHERE outcome = 'failed'")
    assert (await records.read(connection)).findings == {"bloat": 2, "unused": 1}


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"feedmill_database_{name}", labels)


async def until_shown(wanted: object, name: str, **labels: str) -> None:
    async with asyncio.timeout(60):
        while shown(name, **labels) != wanted:
            await asyncio.sleep(0.02)


async def test_it_is_shown_while_the_server_answers_and_forgotten_when_it_does_not(
    connection: asyncpg.Connection, database_url: str, postgres_server: EmbeddedPostgres
) -> None:
    breaker = Breaker("postgres", fail_max=5, reset_timeout=1.0, first_reset=1.0, on_change=lambda _: None)
    plan = Plan({"logical": Schedule("* * * * *")})
    looking = Records(database_url, plan, database=breaker, every=0.1, timeout=5.0, log=get_logger())
    assert shown("backup_failed", kind="logical") is None
    stop = asyncio.Event()
    task = asyncio.create_task(looking.run(stop))
    try:
        async with asyncio.timeout(60):
            while math.isnan(shown("size_bytes") or math.nan):
                await asyncio.sleep(0.02)
        assert shown("backup_overdue_seconds", kind="logical") is None, "nothing to back up yet"
        await connection.execute(BACKUPS)
        await until_shown(1.0, "backup_failed", kind="logical")
        assert (shown("backup_overdue_seconds", kind="logical") or 0) > 1e9, "since a minute after 1970 began"
        looking.plan = Plan()
        await until_shown(None, "backup_overdue_seconds", kind="logical")
        await until_shown(None, "backup_failed", kind="logical")
        looking.plan = plan
        await until_shown(1.0, "backup_failed", kind="logical")
        postgres_server.kill()
        await until_shown(None, "backup_failed", kind="logical")
        assert math.isnan(shown("size_bytes") or 0.0)
        postgres_server.start()
        await until_shown(1.0, "backup_failed", kind="logical")
    finally:
        stop.set()
        await task
        postgres_server.start()
