"""A restore: all of it or nothing. What is wrong with a backup has its own error, and the target is untouched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from feedmill.cli.migrate import MigrateError, migrate_sync
from feedmill.general.backup import restore as restoring
from feedmill.general.backup.choice import choose
from feedmill.general.backup.content import Content, ContentError, SchemaNewer
from feedmill.general.backup.dump import Snapshot, dump
from feedmill.general.backup.restore import RestoreError, TargetNotEmpty, require_empty
from feedmill.general.backup.seal import (
    CHUNK_BYTES,
    ChunkDamaged,
    ChunkForeign,
    ChunkMissing,
    KeyMissing,
    MoreThanWhole,
    NotSealed,
    ObjectCut,
    ObjectMoved,
    SealedError,
    WrongKey,
)
from feedmill.general.backup.stores.base import ObjectMissing
from feedmill.processor.settings import ProcessorSettings
from feedmill.shared import postgres

FRAME = 16
TAG = 16
CHUNK = FRAME + CHUNK_BYTES + TAG


def header_size(content: bytes) -> int:
    return 14 + int.from_bytes(content[10:14], "big") + 4


def chunks(content: bytes) -> list[bytes]:
    """The header, then each chunk as it is stored."""
    at = header_size(content)
    return [content[:at], *(content[start : start + CHUNK] for start in range(at, len(content), CHUNK))]


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, tuple[Damage, type[Exception]]] = {
    "a byte of the header flipped": (lambda b: flipped(b, 40), NotSealed),
    "a byte of the first chunk flipped": (lambda b: flipped(b, header_size(b) + 100), ChunkDamaged),
    "a byte in the middle flipped": (lambda b: flipped(b, len(b) // 2), ChunkDamaged),
    "the last byte flipped": (lambda b: flipped(b, len(b) - 1), ChunkDamaged),
    "a chunk missing": (lambda b: b"".join([*chunks(b)[:2], *chunks(b)[3:]]), ChunkMissing),
    "two chunks swapped": (
        lambda b: b"".join([chunks(b)[0], chunks(b)[2], chunks(b)[1], *chunks(b)[3:]]),
        ChunkMissing,
    ),
    "the last chunk missing": (lambda b: b"".join(chunks(b)[:-1]), ObjectCut),
    "half of it uploaded": (lambda b: b[: len(b) // 2], ObjectCut),
    "nothing but its header": (lambda b: b[: header_size(b)], ObjectCut),
    "something behind its end": (lambda b: b + b"more", MoreThanWhole),
    "something else altogether": (lambda b: b"PGDMP" + b"\0" * 5000, NotSealed),
}


@pytest.fixture
async def large(depot: Any) -> Any:
    """A backup of several chunks, most of which do not compress."""
    connection = await asyncpg.connect(depot.url)
    try:
        await connection.execute(
            "INSERT INTO dead_letters SELECT 's', 'x', n, 0, 0, 1, 'r', 'd', 'v', decode((SELECT"
            " string_agg(md5(random()::text || n || i), '') FROM generate_series(1, 250) i), 'hex')"
            " FROM generate_series(1, 1000) n"
        )
    finally:
        await connection.close()
    manifest = await depot.back_up()
    assert depot.data(manifest).stat().st_size > 3 * CHUNK
    return manifest


async def test_damage_is_told_by_its_kind_and_touches_nothing(depot: Any, large: Any) -> None:
    """One restore after another into the same target: each finds it empty."""
    data = depot.data(large)
    whole = data.read_bytes()
    for what, (damage, expected) in DAMAGES.items():
        data.write_bytes(damage(whole))
        with pytest.raises(expected) as caught:
            await depot.restore(depot.content(large))
        assert type(caught.value) is expected, what
        assert large.object in str(caught.value), what
        assert await depot.target_tables() == [], what
    data.write_bytes(whole)
    await depot.restore(depot.content(large))


async def test_a_chunk_of_another_backup_and_another_backups_object(depot: Any, large: Any) -> None:
    other = await depot.back_up()
    data = depot.data(large)
    mine, foreign = data.read_bytes(), depot.data(other).read_bytes()
    data.write_bytes(b"".join([*chunks(mine)[:2], chunks(foreign)[2], *chunks(mine)[3:]]))
    with pytest.raises(ChunkForeign):
        await depot.restore(depot.content(large))
    data.write_bytes(foreign)
    with pytest.raises(ObjectMoved):
        await depot.restore(depot.content(large))
    assert await depot.target_tables() == []


async def test_what_is_whole_but_not_what_the_manifest_describes(depot: Any, large: Any) -> None:
    """Found out at the very end, when pg_restore has everything but its last piece: it has committed nothing."""
    other = msgspec.structs.replace(large, sha256="0" * 64)
    with pytest.raises(SealedError, match="not the object that its manifest describes"):
        await depot.restore(depot.content(other))
    assert await depot.target_tables() == []


async def test_rows_that_are_not_as_many_as_were_backed_up(depot: Any) -> None:
    manifest = await depot.back_up()
    other = msgspec.structs.replace(manifest, row_counts=manifest.row_counts | {"trades": 999})
    with pytest.raises(ContentError, match="trades: 999 backed up, 1000 restored"):
        await depot.restore(depot.content(other))
    assert await depot.target_tables() == []


async def test_keys_that_do_not_open_it(depot: Any, kit: Any) -> None:
    manifest = await depot.back_up()
    with pytest.raises(KeyMissing, match=r"'k1'.* holds k9: put that key back"):
        depot.content(manifest, kit.keyring("k9"))
    with pytest.raises(WrongKey):
        await depot.restore(depot.content(manifest, kit.keyring("k1")))
    assert await depot.target_tables() == []


async def test_a_newer_schema_and_a_missing_object(depot: Any) -> None:
    manifest = await depot.back_up()
    newer = msgspec.structs.replace(manifest, schema_version="9999")
    with pytest.raises(SchemaNewer, match=rf"schema 9999 .*knows {postgres.HEAD}"):
        depot.content(newer)
    depot.data(manifest).unlink()
    with pytest.raises(ObjectMissing):
        await depot.restore(depot.content(manifest))
    with pytest.raises(ContentError, match="nothing of"):
        choose(await depot.catalogue(), manifest.id, "here")
    assert await depot.target_tables() == []


async def test_what_is_not_empty_is_refused_and_left_alone(depot: Any) -> None:
    content = depot.content(await depot.back_up())
    await asyncio.to_thread(migrate_sync, depot.target_url)
    await depot.fetch(
        depot.target_url, "INSERT INTO instruments (exchange, market, symbol, native) VALUES ('a', 'b', 'c', 'd')"
    )
    before = await depot.target_tables()
    with pytest.raises(TargetNotEmpty, match="instruments has rows"):
        await require_empty(depot.target_url)
    with pytest.raises(TargetNotEmpty, match="instruments has rows"):
        await depot.restore(content)
    assert await depot.target_tables() == before
    assert await depot.fetch(depot.target_url, "SELECT symbol FROM instruments") == ["c"]


async def test_a_database_that_was_only_migrated_is_empty(depot: Any) -> None:
    await asyncio.to_thread(migrate_sync, depot.target_url)
    await require_empty(depot.target_url)
    await depot.restore(depot.content(await depot.back_up()))
    assert await depot.fetch(depot.target_url, "SELECT count(*) FROM trades") == [1000]


async def test_tables_of_somebody_else_stay(depot: Any) -> None:
    await depot.fetch(depot.target_url, "CREATE TABLE theirs (a int)")
    manifest = await depot.back_up()
    with pytest.raises(ContentError):
        await depot.restore(depot.content(msgspec.structs.replace(manifest, row_counts={"trades": 1})))
    assert await depot.target_tables() == ["theirs"]


async def test_a_backup_of_an_older_schema_is_brought_up_to_date(depot: Any, database_url: str) -> None:
    """As made by the version before: its dump has no tables of this one."""
    manifest = await depot.back_up()
    await asyncio.to_thread(migrate_sync, depot.url, to="0002", down=True)
    connection = await asyncpg.connect(depot.url)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        name = await connection.fetchval("SELECT pg_export_snapshot()")
        version = await connection.fetchval("SHOW server_version")
        snapshot = Snapshot(name, 1, "public", "0002", version, 0)
        older = msgspec.structs.replace(manifest, schema_version="0002")
        content = Content(older, 1_000, "public", "0002", lambda: dump(depot.url, snapshot))
        await depot.restore(content)
    finally:
        await connection.close()
    checked = await postgres.connect(depot.target_url, name="test")
    try:
        assert await postgres.require_schema(checked) == postgres.HEAD
        assert await checked.fetchval("SELECT count(*) FROM trades") == 1000
    finally:
        checked.terminate()


async def test_two_at_once(depot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from feedmill.general.backup import locks

    monkeypatch.setattr(locks, "PATIENCE", 0.2)
    manifest = await depot.back_up()
    connection = await asyncpg.connect(depot.target_url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", locks.RESTORE)
        with pytest.raises(RestoreError, match="another restore"):
            await depot.restore(depot.content(manifest))
    finally:
        await connection.close()
    assert await depot.target_tables() == []


async def refuses_everything(url: str) -> None:
    connection = await postgres.connect(url, name="test")
    try:
        with pytest.raises(postgres.RestoreUnfinished):
            await postgres.require_schema(connection)
    finally:
        connection.terminate()
    with pytest.raises(MigrateError, match="restore of this database is not finished"):
        await asyncio.to_thread(migrate_sync, url)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_kill_9_at_any_point_is_redone(depot: Any, kit: Any, tmp_path: Path, large: Any) -> None:
    """Killed as soon as this or that is seen of it: the target is empty, or marked and nobody's, or whole."""
    manifests = depot.manifest_file(tmp_path)
    options = ("-c", str(manifests), "--secrets-dir", str(tmp_path / "secrets"))

    async def is_marked() -> bool:
        return postgres.RESTORING in await depot.target_tables()

    async def restores() -> bool:
        """pg_restore works: in its transaction the tables are there, for nobody else."""
        found = "SELECT 1 FROM pg_locks l JOIN pg_stat_activity USING (pid) WHERE application_name = 'feedmill restore'"
        return bool(await depot.fetch(depot.target_url, found + " AND l.mode = 'AccessExclusiveLock'"))

    async def is_stored() -> bool:
        return "trades" in await depot.target_tables()

    begun = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'feedmill restore'"

    async def nobody_restores() -> None:
        """The server notices a little later that a process was killed: what it was to do last is done by then."""
        async with asyncio.timeout(60):
            while await depot.fetch(depot.target_url, begun):
                await asyncio.sleep(0.05)

    seen: list[str] = []
    whole = False
    for wanted in (is_marked, restores, is_stored, is_marked, restores):
        process = await kit.command("restore", *options, url=depot.target_url)
        talking = asyncio.ensure_future(process.communicate())
        # A mark or tables that the one before left count only once this one has begun.
        while not talking.done() and not await depot.fetch(depot.target_url, begun):
            await asyncio.sleep(0)
        while not talking.done() and not await wanted():
            await asyncio.sleep(0)
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
        await talking
        await nobody_restores()
        tables = await depot.target_tables()
        if postgres.RESTORING in tables:
            seen.append("marked")
            await refuses_everything(depot.target_url)
        elif tables:
            seen.append("whole")
            if whole := "marked" in seen:
                break
            # It was at its end before it was looked at: the next one begins with nothing again.
            await depot.fetch(depot.target_url, "DROP SCHEMA public CASCADE")
            await depot.fetch(depot.target_url, "CREATE SCHEMA public")
        else:
            seen.append("empty")
    assert "marked" in seen
    if not whole:
        await depot.restore(depot.content(large))
    assert await depot.fetch(depot.target_url, "SELECT count(*) FROM dead_letters") == [1001]
    assert await depot.fetch(depot.target_url, "SELECT state FROM restores WHERE mode = 'restore'") == ["succeeded"]
    connection = await postgres.connect(depot.target_url, name="test")
    try:
        await postgres.require_schema(connection)
    finally:
        connection.terminate()


@pytest.mark.parametrize("point", ["load", "counted_as", "rejoin"])
async def test_a_death_between_two_steps_is_redone(depot: Any, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As kill -9 does: nothing is tidied up."""

    class Killed(BaseException):
        pass

    original = getattr(restoring, point)
    content = depot.content(await depot.back_up())

    async def die(*arguments: Any, **more: Any) -> None:
        if point == "load":
            await original(*arguments, **more)  # Right after it.
        raise Killed

    async def nothing(*_: Any) -> None:
        return

    monkeypatch.setattr(restoring, point, die)
    monkeypatch.setattr(restoring, "_undo", nothing)
    with pytest.raises(Killed):
        await depot.restore(content)
    monkeypatch.undo()
    await refuses_everything(depot.target_url)
    await depot.restore(content)
    assert await depot.fetch(depot.target_url, "SELECT count(*) FROM trades") == [1000]
    assert postgres.RESTORING not in await depot.target_tables()


async def test_the_database_begins_with_what_is_missing(depot: Any) -> None:
    manifest = await depot.back_up()
    made, rejoined = await depot.restore(depot.content(manifest))
    rows = {
        row[0]: row[1:]
        for row in await depot.fetch(
            depot.target_url,
            "SELECT coalesce(channel || coalesce(' ' || instrument_id, ''), ''), state, cause, from_seq, to_seq,"
            " missing::text FROM gaps WHERE cause = 'restore' OR state = 'open' ORDER BY 1",
        )
    }
    assert rejoined.gaps == len(rows) == 6
    assert rows["events"] == ("open", "restore", 43, None, "{}")
    assert rows["Account"] == ("open", "restore", None, None, "{}")
    assert rows["Trades 2"] == ("open", "restore", 501, None, "{}")
    assert rows["Ticker 1"] == ("open", "restore", 500, None, "{}")
    assert rejoined.accounts == 1
    assert rejoined.key_ids == ("2026-11",)
    (entry,) = await depot.fetch(depot.target_url, "SELECT detail FROM audit_log WHERE action = 'restore'")
    assert json.loads(entry)["backup"] == manifest.id
    assert await depot.fetch(depot.target_url, "SELECT id, backup_id, state FROM restores") == [
        (made.id, manifest.id, "succeeded")
    ]


async def test_shards_that_no_manifest_names_are_told(depot: Any) -> None:
    """Somebody restored with the pipeline's manifest and forgot the feed's."""
    depot.settings = ProcessorSettings(shards=())
    _, rejoined = await depot.restore(depot.content(await depot.back_up()))
    assert rejoined.others == ("default.spot.0",)
    rows = await depot.fetch(
        depot.target_url, "SELECT channel, state, from_seq FROM gaps WHERE cause = 'restore' ORDER BY 1"
    )
    assert rows == [("Account", "open", None), ("events", "closed", 43)]


async def test_another_schema_than_public_is_named(depot: Any) -> None:
    manifest = msgspec.structs.replace(await depot.back_up(), schema_name="elsewhere")
    with pytest.raises(RestoreError, match="of schema 'elsewhere', the target's search path leads to 'public'"):
        await depot.restore(depot.content(manifest))
