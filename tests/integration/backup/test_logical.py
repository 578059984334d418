"""A logical backup: one snapshot, restored equal; nothing half-done stays whatever ends it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from feedmill.general.backup.dump import DumpError
from feedmill.general.backup.stores.base import StoreAway, Stored
from feedmill.general.backup.stores.folder import FolderStore
from feedmill.shared import partitions, postgres
from feedmill.shared.clock import now_ns

REJOINED = {"gaps", "backups", "restores", "audit_log", "notifications", "notify_state"}
"""Tables in which a restored database tells that it is one."""


async def test_what_is_restored_is_what_was_there(depot: Any) -> None:
    before = await depot.tally(depot.url)
    manifest = await depot.back_up()
    assert manifest.row_counts["trades"] == 1000
    assert manifest.row_counts | {"backups": 0} == before.rows | {"backups": 0}
    data = depot.data(manifest)
    assert manifest.size_bytes == data.stat().st_size
    assert manifest.sha256 == hashlib.sha256(data.read_bytes()).hexdigest()
    await depot.restore(depot.content(manifest))
    after = await depot.tally(depot.target_url)
    kept = [table for table in before.rows if table not in REJOINED]
    assert len(kept) > 15
    assert {table: after.rows[table] for table in kept} == {table: before.rows[table] for table in kept}
    assert {table: after.hashes[table] for table in kept} == {table: before.hashes[table] for table in kept}
    (row,) = await depot.fetch(depot.url, "SELECT state, size_bytes, row_counts FROM backups")
    assert (row[0], row[1], json.loads(row[2])) == ("succeeded", manifest.size_bytes, manifest.row_counts)
    assert await depot.fetch(depot.target_url, "SELECT id, state FROM backups") == [(manifest.id, "succeeded")]


async def test_the_restored_database_works_as_the_other_did(depot: Any) -> None:
    """Partitions take rows, numbers go on, the audit log is still guarded."""
    await depot.restore(depot.content(await depot.back_up()))
    connection = await postgres.connect(depot.target_url, name="test")
    try:
        await postgres.require_schema(connection)
        today = now_ns() // partitions.DAY_NS
        assert today in await partitions.existing(connection, partitions.TRADES)
        await connection.execute("INSERT INTO trades SELECT 1, 99999, now(), 1, 1, 1, 1, 1, 0, 0, 0, NULL")
        created = await connection.fetchval(
            "INSERT INTO instruments (exchange, market, symbol, native) VALUES ('x', 'y', 'z', 'z') RETURNING id"
        )
        assert created == 3
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM audit_log")
    finally:
        connection.terminate()


async def test_rows_written_meanwhile_are_in_it_all_or_not_at_all(depot: Any) -> None:
    """Each transaction writes one row into each of two tables: as many of either are in the backup."""
    stop = asyncio.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        connection = await asyncpg.connect(depot.url)
        try:
            while not stop.is_set():
                async with connection.transaction():
                    key = f"p{written}"
                    await connection.execute("INSERT INTO applied VALUES ($1, 1, 'x', '1-0')", key)
                    await connection.execute(
                        "INSERT INTO dead_letters VALUES ($1, 's', 1, 0, 1, 1, 'r', 'd', 'v', '')", key
                    )
                written += 1
        finally:
            await connection.close()

    writing = asyncio.create_task(write())
    try:
        while written < 20:
            await asyncio.sleep(0)
        manifest = await depot.back_up()
    finally:
        stop.set()
        await writing
    counts = manifest.row_counts
    assert counts["applied"] == counts["dead_letters"] >= 20
    assert written > counts["applied"]
    await depot.restore(depot.content(manifest))


async def test_no_partition_is_dropped_while_it_is_dumped(depot: Any) -> None:
    held, go_on = asyncio.Event(), asyncio.Event()

    class Slow(FolderStore):
        async def put(self, name: str, source: AsyncIterable[bytes]) -> Stored:
            async def paused() -> Any:
                async for piece in source:
                    held.set()
                    await go_on.wait()
                    yield piece

            return await super().put(name, paused() if name.endswith("/data") else source)

    depot.store = Slow(depot.folder)
    making = asyncio.create_task(depot.back_up())
    await held.wait()
    connection = await postgres.connect(depot.url, name="test")
    try:
        locked = await connection.fetchval("SELECT pg_try_advisory_lock($1)", postgres.DUMP_LOCK)
        assert locked is False, "maintenance asks in this way, and puts off what it would drop"
        with pytest.raises(DumpError, match="another backup"):
            await depot.back_up()
        go_on.set()
        await making
        async with asyncio.timeout(60):  # The server notices a little later that the session has ended.
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", postgres.DUMP_LOCK):
                await asyncio.sleep(0.01)
    finally:
        connection.terminate()
        await depot.store.close()


async def test_a_store_that_fails_leaves_nothing_but_a_row_that_says_so(depot: Any) -> None:
    class Failing(FolderStore):
        async def put(self, name: str, source: AsyncIterable[bytes]) -> Stored:
            async for _ in source:
                raise StoreAway("the test's store is away")
            raise AssertionError("unreachable")

    good, depot.store = depot.store, Failing(depot.folder)
    with pytest.raises(StoreAway):
        await depot.back_up()
    await depot.store.close()
    depot.store = good
    assert depot.files() == []
    assert await depot.fetch(depot.url, "SELECT state, error FROM backups") == [("failed", "the test's store is away")]


@pytest.mark.parametrize("end", [StoreAway("no answer"), asyncio.CancelledError()], ids=["no answer", "stopped"])
async def test_a_manifest_whose_answer_was_lost_is_taken_back_with_its_object(depot: Any, end: BaseException) -> None:
    class Mute(FolderStore):
        """Stores a manifest, and does not say so."""

        async def put(self, name: str, source: AsyncIterable[bytes]) -> Stored:
            stored = await super().put(name, source)
            if name.endswith("/manifest.json"):
                raise end
            return stored

    depot.store = Mute(depot.folder)
    with pytest.raises(type(end)):
        await depot.back_up()
    await depot.store.close()
    assert depot.files() == []
    assert await depot.fetch(depot.url, "SELECT state FROM backups") == ["failed"]


async def test_a_failed_program_is_told_with_what_it_said(depot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from feedmill.general.backup import dump
    from feedmill.general.backup.programs import ProgramError

    monkeypatch.setattr(dump, "COMPRESSION", "no-such-method")
    with pytest.raises(ProgramError, match=r"pg_dump failed \(exit code 1\): .*compression"):
        await depot.back_up()
    assert depot.files() == []


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_kill_9_at_any_point_leaves_no_backup_and_no_trace_that_lasts(
    depot: Any, kit: Any, tmp_path: Path
) -> None:
    """Killed as soon as this or that is seen of it; one that was quicker has made a whole backup."""
    manifests = depot.manifest_file(tmp_path)
    options = ("-c", str(manifests), "--secrets-dir", str(tmp_path / "secrets"))

    async def has_row() -> bool:
        found = "SELECT 1 FROM backups WHERE state = 'running' AND id <> ALL($1)"
        return bool(await depot.fetch(depot.url, found, rows))

    async def dumps() -> bool:
        found = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'feedmill backup' AND pid <> pg_backend_pid()"
        return bool(await depot.fetch(depot.url, found))

    async def has_files() -> bool:
        return not known.issuperset(depot.files())

    async def has_data() -> bool:
        return any(name.endswith("/data") for name in depot.files() if name not in known)

    async def nobody_dumps() -> None:
        """Nor holds the lock of who does: the server notices a little later that a process was killed."""
        found = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'feedmill backup%'"
        async with asyncio.timeout(60):
            while await depot.fetch(depot.url, found):
                await asyncio.sleep(0.05)

    caught = whole = 0
    for seen in (has_row, dumps, has_files, has_data, has_row, dumps):
        # What is seen below is of the next one: sessions, a row and files that the last one left do not count.
        await nobody_dumps()
        rows = await depot.fetch(depot.url, "SELECT id FROM backups")
        known = set(depot.files())
        process = await kit.command("run", *options, url=depot.url)
        talking = asyncio.ensure_future(process.communicate())
        while not talking.done() and not await seen():
            await asyncio.sleep(0)
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
        await talking
        entries = (await depot.catalogue()).entries
        assert all(entry.whole for entry in entries), "what has a manifest is whole, whenever the process was killed"
        caught += len(entries) == whole
        whole = len(entries)
    assert caught > 2
    # Nobody is left who dumps, and the next run tells what became of them.
    await nobody_dumps()
    manifest = await depot.back_up()
    states = await depot.fetch(depot.url, "SELECT state FROM backups")
    assert states.count("failed") >= caught - 1
    assert "running" not in states
    await depot.restore(depot.content(manifest))


async def test_sigterm_ends_it_in_order(depot: Any, kit: Any, tmp_path: Path) -> None:
    manifests = depot.manifest_file(tmp_path)
    status = tmp_path / "status.json"
    blocker = await asyncpg.connect(depot.url)
    try:
        # pg_dump waits for the table's lock: the backup is under way for as long as this transaction.
        await blocker.execute("BEGIN; LOCK TABLE candles IN ACCESS EXCLUSIVE MODE")
        process = await kit.command(
            "run", "-c", str(manifests), "--secrets-dir", str(tmp_path / "secrets"), "--status-file", str(status),
            url=depot.url,
        )  # fmt: skip
        async with asyncio.timeout(60):
            while not await depot.fetch(depot.url, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    finally:
        await blocker.close()
    assert process.returncode == 1, errors
    assert json.loads(status.read_text())["phase"] == "Failed"
    assert await depot.fetch(depot.url, "SELECT state, error FROM backups") == [("failed", "stopped before its end")]
    assert depot.files() == []


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_the_commands_make_list_prove_and_restore(depot: Any, kit: Any, tmp_path: Path) -> None:
    manifests = depot.manifest_file(tmp_path)
    options = ("-c", str(manifests), "--secrets-dir", str(tmp_path / "secrets"))
    status = tmp_path / "status.json"

    async def run(*arguments: str, url: str = depot.url) -> str:
        process = await kit.command(*arguments, *options, url=url)
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return str(output.decode())

    said = await run("run", "--status-file", str(status))
    told = json.loads(status.read_text())
    assert told["phase"] == "Succeeded"
    assert told["progress"] == 100
    assert told["backupId"] in said
    assert told["rows"] > 2000
    listed = json.loads(await run("list", "-o", "json"))["backups"]
    assert [(each["id"], each["state"]) for each in listed] == [(told["backupId"], "whole")]
    assert "is proven" in await run("verify")
    assert json.loads(await run("list", "-o", "json"))["backups"][0]["state"] == "proven"
    assert await depot.fetch(depot.url, "SELECT mode, state FROM restores") == [("verify", "succeeded")]
    assert "gap rows" in await run("restore", "--status-file", str(status), url=depot.target_url)
    told = json.loads(status.read_text())
    assert (told["phase"], told["backupId"]) == ("Succeeded", listed[0]["id"])
    assert told["gaps"] > 0
