"""The maintenance service as a whole: waiting for the schema, for PostgreSQL and for Redis; one run and its record."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from feedmill.general.maintenance import checks, kinds, measures, record, service
from feedmill.general.maintenance.figures import look
from feedmill.general.maintenance.run import carry_out, run_once
from feedmill.general.maintenance.settings import Settings, settings_of
from feedmill.local.embedded import EmbeddedPostgres, EmbeddedRedis
from feedmill.resources.collection import Resources
from feedmill.resources.pipeline import FeedPipeline
from feedmill.shared import postgres
from feedmill.shared.clock import now_ns
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.health import Health
from feedmill.shared.log import get_logger
from feedmill.shared.partitions import DAY_NS, TRADES
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.service import ServiceContext

PIPELINE = FeedPipeline.model_validate({
    "apiVersion": "feedmill.dev/v1alpha1", "kind": "FeedPipeline", "metadata": {"name": "main"},
    "spec": {"redis": {"managed": {}}, "postgres": {"managed": {}}},
})  # fmt: skip


@pytest.fixture
def settings() -> Settings:
    return settings_of(PIPELINE, Resources(pipelines={PIPELINE.key: PIPELINE}))


async def test_the_service_waits_for_the_schema_and_for_the_server(
    database_url: str, postgres_server: EmbeddedPostgres, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feedmill.cli.migrate import upgrade

    monkeypatch.setattr(service, "EVERY", 0.05)
    monkeypatch.setattr(service, "Backoff", lambda *_: _NoWait())
    resources = Resources(pipelines={PIPELINE.key: PIPELINE})
    health = Health("maintenance")
    redis_url = RedisUrl.parse(redis_server.url)
    context = ServiceContext("maintenance", health, redis_url, DatabaseUrl(database_url), log=get_logger())
    task = asyncio.create_task(service.main(context, PIPELINE, resources))

    async def until(ready: bool, text: str) -> None:
        async with asyncio.timeout(120):
            while health.ready()[0] is not ready or text not in str(health.document()):
                assert not task.done()
                await asyncio.sleep(0.01)

    await until(False, "run feedmill migrate")
    await upgrade(database_url)
    await until(True, "'reachable': True")
    await asyncio.to_thread(postgres_server.stop)
    await until(True, "'reachable': False")  # The last good run is recent: nothing is wrong yet.
    await asyncio.to_thread(postgres_server.start)
    await until(True, "'reachable': True")
    # Without Redis all but the streams is done, and told.
    await asyncio.to_thread(redis_server.stop)
    await until(True, "'errors': {'streams'")
    assert measures.last_success._value.get() > 0
    await asyncio.to_thread(redis_server.start)
    await until(True, "'lastError': ''")
    context.stop.set()
    async with asyncio.timeout(60):
        await task


class _NoWait:
    def next(self) -> float:
        return 0.0

    def reset(self) -> None: ...


async def test_a_run_is_written_down(
    connection: asyncpg.Connection, migrated: str, redis_server: EmbeddedRedis, settings: Settings
) -> None:
    redis_url = RedisUrl.parse(redis_server.url)
    before = now_ns()
    # Of a process that was killed.
    await connection.execute("INSERT INTO maintenance_runs (started_ns) VALUES ($1)", before - 1)
    report = await run_once(connection, redis_url, settings, before, patience=0.1)
    last, killed = await record.last_runs(connection, 10)
    assert (last.outcome, last.report) == ("succeeded", report)
    assert before <= last.started_ns <= (last.ended_ns or 0)
    assert (killed.outcome, killed.report.errors) == ("failed", {"run": record.CUT_OFF})
    assert set(report.made) == {"trades", "tickers", "book_snapshots"}
    assert report.tables["trades"].partitions == 4
    assert report.tables["maintenance_runs"].size_bytes > 0
    # A second one at the same time waits, then says so; once the first is over it has its turn.
    other = await postgres.connect(migrated, name="other")
    try:
        run = await record.begin(other, 0.1)
        with pytest.raises(record.Busy, match="another run of maintenance"):
            await run_once(connection, redis_url, settings, now_ns(), patience=0.05)
        await record.end(other, run, report)
        assert (await run_once(connection, redis_url, settings, now_ns(), patience=5.0)).outcome == "succeeded"
    finally:
        await postgres.close(other)


async def test_a_part_that_fails_leaves_the_others_their_work(
    connection: asyncpg.Connection, settings: Settings
) -> None:
    nowhere = RedisUrl.parse("redis://127.0.0.1:1/0")
    report = await run_once(connection, nowhere, settings, now_ns(), patience=0.1)
    assert list(report.errors) == ["streams"]
    assert report.made
    assert report.tables
    [run] = await record.last_runs(connection, 1)
    assert (run.outcome, run.report) == ("partly", report)


async def test_a_run_that_loses_the_database_is_told_by_the_next(
    connection: asyncpg.Connection, migrated: str, redis_server: EmbeddedRedis, settings: Settings
) -> None:
    lost = await postgres.connect(migrated, name="lost")
    redis_url = RedisUrl.parse(redis_server.url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(run_once(lost, redis_url, settings, now_ns(), patience=0.1))
        pid = lost.get_server_pid()
        async with asyncio.timeout(60):
            while not await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'", pid
            ):
                await asyncio.sleep(0.01)
        await connection.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
            await task
    await run_once(connection, redis_url, settings, now_ns(), patience=5.0)
    last, cut = await record.last_runs(connection, 2)
    assert (last.outcome, cut.outcome, cut.report.errors) == ("succeeded", "failed", {"run": record.CUT_OFF})


async def test_what_is_older_than_is_kept_goes(
    connection: asyncpg.Connection, redis_server: EmbeddedRedis, settings: Settings
) -> None:
    now = now_ns()
    for number, age in enumerate((91, 89)):
        await connection.execute(
            "INSERT INTO dead_letters VALUES ('default.btc.0', 's', $1, 0, 0, $2, 'bad_json', '', '1', '')",
            *(number, now - age * DAY_NS),
        )
        await connection.execute(
            "INSERT INTO maintenance_runs (started_ns, ended_ns, outcome) VALUES ($1, $1, 'succeeded')",
            now - age * DAY_NS,
        )
    for age, outcome in ((31, "waiting"), (31, "sent"), (29, "waiting")):
        await connection.execute(
            "INSERT INTO notifications (pipeline, at_ns, severity, kind, subject, key, outcome)"
            " VALUES ('default/gone', $1, 'Info', 'Fill', '', '', $2)",
            *(now - age * DAY_NS, outcome),
        )
    for age in (366, 364):
        await connection.execute(
            "INSERT INTO audit_log (at, actor, place, action)"
            " VALUES (now() - $1::int * interval '1 day', $2, '', 'use')",
            *(age, str(age)),
        )
    redis_url = RedisUrl.parse(redis_server.url)
    would = await carry_out(connection, redis_url, settings, now, dry_run=True)
    wanted = {"dead_letters": 1, "maintenance_runs": 1, "audit_log": 1, "notifications": 2}
    assert would.aged == wanted
    assert (await carry_out(connection, redis_url, settings, now)).aged == wanted
    assert [row["batch"] for row in await connection.fetch("SELECT batch FROM dead_letters")] == [1]
    # The log says itself that it was aged.
    entries = await connection.fetch("SELECT actor, action, detail FROM audit_log ORDER BY id")
    assert [(row["actor"].partition(" ")[0], row["action"]) for row in entries] == [
        ("364", "use"),
        ("maintenance", "age"),
    ]
    assert json.loads(entries[1]["detail"])["rows"] == 1
    assert (await carry_out(connection, redis_url, settings, now)).aged == {}


async def test_statistics_of_the_whole_are_made(
    connection: asyncpg.Connection, redis_server: EmbeddedRedis, settings: Settings
) -> None:
    redis_url = RedisUrl.parse(redis_server.url)
    now = now_ns()
    assert (await carry_out(connection, redis_url, settings, now)).analyzed == []
    await connection.execute(
        "INSERT INTO trades SELECT 1, n, now(), 1, 1, 1, 1, 1, 0, 0, 0 FROM generate_series(1, 1000) n"
    )
    await connection.execute(f"ANALYZE {TRADES.partition(now // DAY_NS)}")
    assert (await carry_out(connection, redis_url, settings, now, dry_run=True)).analyzed == ["trades"]
    assert (await carry_out(connection, redis_url, settings, now)).analyzed == ["trades"]
    assert await connection.fetchval("SELECT reltuples FROM pg_class WHERE relname = 'trades'") == 1000
    assert (await carry_out(connection, redis_url, settings, now)).analyzed == []


async def test_a_database_of_ours_that_is_new_has_no_findings(
    connection: asyncpg.Connection, redis_server: EmbeddedRedis, settings: Settings
) -> None:
    report = await carry_out(connection, RedisUrl.parse(redis_server.url), settings, now_ns())
    assert (report.findings, report.errors) == ([], {})


async def test_real_figures_lead_to_findings(connection: asyncpg.Connection) -> None:
    await connection.execute("ALTER TABLE gaps SET (autovacuum_enabled = off)")
    await connection.execute("CREATE INDEX again ON gaps (detected_ns)")
    await connection.execute(
        "INSERT INTO gaps (id, shard, channel, cause, state, revision, detected_ns)"
        " SELECT n::text, '', '', '', 'closed', 1, n FROM generate_series(1, 40000) n"
    )
    await connection.execute("DELETE FROM gaps WHERE detected_ns > 100")
    await connection.execute("SELECT pg_create_physical_replication_slot('nobody', true)")
    try:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        figures = await look(connection)
        found = {(finding.kind, finding.subject) for finding in checks.judge(figures)}
        assert found >= {
            (kinds.AUTOVACUUM_OFF, "gaps"), (kinds.DEAD_ROWS, "gaps"), (kinds.DUPLICATE_INDEX, "again"),
        }  # fmt: skip
        gaps = next(table for table in figures.tables if table.name == "gaps")
        assert (gaps.dead, gaps.live, gaps.fill) == (39_900, 100, 100)
        assert next(table for table in figures.tables if table.name == "candles").fill == 70
        slot = next(holder for holder in figures.holders if holder.kind == "slot")
        assert (slot.name, slot.active, slot.holds_rows) == ("nobody", False, False)
    finally:
        await connection.execute("SELECT pg_drop_replication_slot('nobody')")


async def test_dead_rows_are_told_once_two_runs_saw_them(
    connection: asyncpg.Connection, redis_server: EmbeddedRedis, settings: Settings
) -> None:
    await connection.execute("ALTER TABLE dead_letters SET (autovacuum_enabled = off)")
    await connection.execute(
        "INSERT INTO dead_letters SELECT 'default.btc.0', 's', n, 0, 0, n, 'bad_json', '', '1', ''"
        " FROM generate_series(1, 20000) n"
    )
    await connection.execute("DELETE FROM dead_letters")
    await connection.execute("SELECT pg_stat_force_next_flush()")
    redis_url = RedisUrl.parse(redis_server.url)
    found = []
    for _ in range(2):
        report = await run_once(connection, redis_url, settings, now_ns(), patience=0.1)
        found.append([finding.kind for finding in report.findings if finding.subject == "dead_letters"])
    assert found == [[kinds.AUTOVACUUM_OFF], [kinds.AUTOVACUUM_OFF, kinds.DEAD_ROWS, kinds.STATISTICS]]
