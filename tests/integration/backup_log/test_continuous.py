"""The log is received, uploaded, and replayed to any moment; what can go wrong meanwhile costs nothing, or is told."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from feedmill.cli.migrate import migrate_sync
from feedmill.general.backup import upload
from feedmill.general.backup.choice import NoSuchBackup, opened
from feedmill.general.backup.content import ContentError
from feedmill.general.backup.progress import silent
from feedmill.general.backup.stores.base import StoreAway
from feedmill.general.backup.wal_plan import segment_of
from feedmill.local.embedded import EmbeddedPostgres, files
from feedmill.local.managed.passwords import Passwords
from feedmill.local.managed.postgres import ManagedPostgres


def based(watch: Any) -> Any:
    return lambda: bool(watch.bases.state.last_id)


def can_be_away(target: Any, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """While its first element is true, the destination takes nothing."""
    away = [False]
    real = target.store.put

    async def put(name: str, source: Any) -> Any:
        if away[0]:
            raise StoreAway("the destination is away")
        return await real(name, source)

    monkeypatch.setattr(target.store, "put", put)
    return away


LETTERS = "dead_letters"


async def test_to_the_last_moment_and_to_any_other(stage: Any) -> None:
    watch = stage.watch()
    await stage.write()
    async with stage.watching(watch):
        await stage.until(based(watch))
        base = watch.bases.state.last_id
        await stage.write()
        moment = await stage.moment()
        then = await stage.tally()
        for _ in range(30):
            await stage.write(1000)
        at_last = await stage.tally()
        await stage.until(lambda: watch.uploader.state.files >= 2 and watch.ready()[0])
        await stage.caught_up()
    document = watch.document()
    assert document["problem"] == ""
    assert document["allowed"] is True
    assert await stage.sql("SELECT state FROM backups WHERE id = $1", base) == "succeeded"
    stage.destroy()
    async with stage.restored() as content:
        assert content.backup.id == base
        assert (content.row_counts[LETTERS], content.hashes) == (30_400, at_last.hashes)
        assert moment < content.content_ns
    async with stage.restored(moment) as content:
        assert content.content_ns == moment
        assert (content.row_counts[LETTERS], content.hashes) == (400, then.hashes)


async def test_a_server_that_is_lost_costs_nothing_that_was_committed(stage: Any) -> None:
    watch = stage.watch()
    async with stage.watching(watch):
        await stage.until(based(watch))
        await stage.write()
        for _ in range(10):
            await stage.write(50)
        at_last = await stage.tally()
        await stage.received(watch)
        system = watch.receiver.server.system

        async def all_stored() -> bool:
            return not await watch.uploader.pending(system)

        stage.destroy()
        await stage.until(lambda: watch.receiver.state.phase == "away")
        # Not that something is stored now: the last of it may have been a moment ago, when its ten seconds were over.
        await stage.until(all_stored)
        assert not watch.ready()[0]
    async with stage.restored() as content:
        assert content.hashes == at_last.hashes


async def test_a_server_that_restarts_goes_on(stage: Any) -> None:
    watch = stage.watch()
    async with stage.watching(watch):
        await stage.until(based(watch))
        for _ in range(3):
            await stage.write(5000)
            await asyncio.to_thread(stage.server.stop)
            await stage.until(lambda: watch.receiver.state.phase == "away")
            await asyncio.to_thread(stage.server.start)
            await stage.until(lambda: watch.ready()[0])
        await stage.write(5000)
        at_last = await stage.tally()
    assert watch.receiver.state.begun_anew == 0
    async with stage.restored() as content:
        assert content.row_counts[LETTERS] == 20_000
        assert content.hashes == at_last.hashes


@pytest.mark.parametrize("what", ["role", "pg_hba"])
async def test_a_server_that_allows_no_replication_says_so(stage: Any, what: str) -> None:
    admin = await asyncpg.connect(stage.url)
    await admin.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    if what == "pg_hba":
        await admin.execute("ALTER ROLE plain REPLICATION")
        hba = stage.server.cluster / "pg_hba.conf"
        hba.write_text("host replication plain all reject\n" + hba.read_text())
        loaded = await admin.fetchval("SELECT pg_conf_load_time()")
        await admin.execute("SELECT pg_reload_conf()")

        async def is_read() -> bool:
            """As a new session has it: before that, one that replicates would still be let in."""
            return bool(await stage.sql("SELECT pg_conf_load_time() > $1", loaded))

        await stage.until(is_read)
    await admin.close()
    url = stage.url.replace("feedmill:", "plain:", 1)
    url = f"postgresql://plain:plain@{url.rpartition('@')[2]}"
    watch = stage.watch(url)
    async with stage.watching(watch):
        await stage.until(lambda: watch.receiver.state.phase == "refused")
        document = watch.document()
    assert document["allowed"] is False
    expected = {"role": "the role plain may not replicate: ALTER ROLE", "pg_hba": "pg_hba.conf lets no replication"}
    assert expected[what] in document["problem"]
    made = await stage.command("backup", "run", "--kind", "base", url=url)
    output, said = await made.communicate()
    assert made.returncode == 1, (output, said)
    if what == "role":
        assert b"may not replicate" in said
    assert not list(stage.backups.rglob("data"))


async def test_a_destination_that_is_away_is_bounded_and_told(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.write_manifest(spool={"size": "64Mi"})
    target = stage.target()
    away = can_be_away(target, monkeypatch)
    watch = stage.watch(target=target)
    async with stage.watching(watch):
        await stage.until(based(watch))
        first = watch.bases.state.last_id
        await stage.write()
        away[0] = True

        async def fill(times: int) -> None:
            """32 MiB of log each time."""
            for _ in range(times):
                await stage.write(20_000)
                await stage.sql("SELECT pg_switch_wal()")

        await fill(3)
        await stage.until(lambda: watch.receiver.state.phase == "waiting")
        assert "spool is full" in watch.document()["problem"]
        assert watch.uploader.state.spool_bytes <= (64 + 48) << 20
        assert watch.receiver.state.begun_anew == 0
        await fill(3)
        await stage.until(lambda: watch.receiver.state.phase == "cut")
        assert await stage.sql("SELECT count(*) FROM pg_replication_slots") == 0, "the disk of the database comes first"
        assert "128 MiB may" in watch.document()["problem"]
        away[0] = False
        await stage.until(lambda: watch.ready()[0])
        await stage.until(lambda: watch.bases.state.last_id != first)
        assert watch.bases.state.why == "the log that is stored does not go on from the last one without a gap"
        await stage.write()
        at_last = await stage.tally()
    async with stage.restored() as content:
        assert content.backup.id == watch.bases.state.last_id
        assert content.hashes == at_last.hashes


async def test_a_spool_that_is_lost_loses_nothing(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    target = stage.target()
    away = can_be_away(target, monkeypatch)
    watch = stage.watch(target=target)
    async with stage.watching(watch):
        await stage.until(based(watch))
        away[0] = True
        for _ in range(3):
            await stage.write(20_000)
        await stage.until(lambda: watch.uploader.state.waiting_files >= 2)
        stop = watch.uploader
        monkeypatch.setattr(stop, "finish", lambda seconds: asyncio.sleep(0, True))
    shutil.rmtree(stage.folder / "spool")
    other = stage.watch()
    async with stage.watching(other):
        await stage.until(lambda: other.ready()[0])
        at_last = await stage.tally()
        await stage.caught_up()  # All of it is received once more.
    assert not other.bases.state.why, "the log goes on, no base backup is needed"
    async with stage.restored() as content:
        assert content.hashes == at_last.hashes


async def test_what_is_restored_while_the_log_goes_on(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As every drill is: the file that is being written is replaced again and again while the others are replayed."""
    monkeypatch.setattr(upload, "PARTIAL_EVERY", 0.05)
    watch = stage.watch()
    async with stage.watching(watch):
        await stage.until(based(watch))
        await stage.write()
        segment = await stage.sql("SELECT pg_walfile_name(pg_switch_wal())")
        await stage.until(lambda: watch.uploader.state.last_file >= segment)
        written = asyncio.Event()

        async def load() -> None:
            while True:
                await stage.write(10)
                written.set()

        loading = asyncio.create_task(load())
        await written.wait()
        before = stage.batch
        async with stage.restored() as content:
            assert content.row_counts[LETTERS] >= 200
        await stage.until(lambda: stage.batch > before + 20)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)


async def test_a_file_that_was_cut_off_while_it_was_made_is_received_anew(stage: Any) -> None:
    """As a full disk or a machine that stopped leaves it: shorter than a file of the log ever is."""
    watch = stage.watch()
    async with stage.watching(watch):
        await stage.until(based(watch))
        await stage.write()
    (unfinished,) = (stage.folder / "spool").rglob("*.partial")
    os.truncate(unfinished, 1 << 20)
    other = stage.watch()
    async with stage.watching(other):
        await stage.until(lambda: other.ready()[0])
        await stage.write()
        at_last = await stage.tally()
    async with stage.restored() as content:
        assert content.hashes == at_last.hashes


async def test_a_server_that_was_made_anew_begins_its_own_log(stage: Any) -> None:
    """The same names of files, another system: nothing of the destroyed one is written over."""
    watch = stage.watch()
    async with stage.watching(watch):
        await stage.until(based(watch))
        await stage.write()
        first, old = watch.bases.state.last_id, watch.receiver.server.system
        last = await stage.tally()
        await stage.received(watch)
        port = stage.server.port
        stage.destroy()
        stage.server = EmbeddedPostgres(stage.server.data_dir, fsync=False, port=port)
        files.private_folder(stage.server.data_dir)
        files.write_private(stage.server.data_dir / "password", watch_password(watch))
        try:
            await asyncio.to_thread(stage.server.start)
            await asyncio.to_thread(migrate_sync, stage.url)
            await stage.until(lambda: watch.bases.state.last_id not in ("", first))
            await stage.until(lambda: not (stage.folder / "spool" / old).exists())
        finally:
            await asyncio.to_thread(stage.server.kill)
    target = stage.target()
    async with opened(target, await target.ring(), first, None, stage.folder, silent) as content:
        assert content.hashes == last.hashes


def watch_password(watch: Any) -> str:
    return unquote(urlsplit(watch.bases._database.get()).password or "")


async def test_only_one_receives(stage: Any) -> None:
    first, second = stage.watch(), stage.watch()
    async with stage.watching(first):
        await stage.until(lambda: first.ready()[0])
        async with stage.watching(second):
            await stage.until(lambda: second.receiver.state.phase == "standby")
            assert "another process" in second.document()["problem"]


async def test_a_time_that_nothing_reaches(stage: Any) -> None:
    watch = stage.watch()
    before = await stage.moment()
    async with stage.watching(watch):
        await stage.until(based(watch))
        await stage.write()
    after = await stage.moment()
    with pytest.raises(NoSuchBackup, match="first moment that can be restored is"):
        async with stage.restored(before):
            pass
    with pytest.raises(ContentError, match="nothing was committed after that time"):
        async with stage.restored(after):
            pass
    assert not list(stage.folder.glob("feedmill-replay-*"))


async def test_a_server_that_was_promoted_goes_on(stage: Any) -> None:
    """As a standby that takes over, or a server that was recovered: another timeline, the same system."""
    watch = stage.watch()
    async with stage.watching(watch):
        await stage.until(based(watch))
        first = watch.bases.state.last_id
        await stage.write()
        await asyncio.to_thread(stage.server.stop)
        await stage.until(lambda: watch.receiver.state.phase == "away")
        (stage.server.cluster / "recovery.signal").touch()
        (stage.server.cluster / "postgresql.auto.conf").write_text("restore_command = 'false'\n")
        await asyncio.to_thread(stage.server.start)
        await stage.until(lambda: watch.ready()[0])
        assert watch.receiver.server.timeline == 2
        await stage.write(20_000)
        at_last = await stage.tally()
        await stage.caught_up()
        assert await watch.bases._due() == "", "nothing is missing: the log goes on"
    log = await stage.log()
    assert "00000002.history" in log.files
    async with stage.restored() as content:
        assert content.backup.id == first
        assert content.hashes == at_last.hashes


async def test_a_slot_that_is_dropped_while_the_destination_is_away_costs_nothing_that_was_received(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = stage.target()
    away = can_be_away(target, monkeypatch)
    watch = stage.watch(target=target)
    async with stage.watching(watch):
        await stage.until(based(watch))
        first = watch.bases.state.last_id
        await stage.until(lambda: watch.uploader.state.waiting_files == 0)
        away[0] = True
        for _ in range(2):
            await stage.write(1000)
            await stage.sql("SELECT pg_switch_wal()")
        await stage.write(100)
        moment, then = await stage.moment(), await stage.tally()
        await stage.write(100)
        await stage.received(watch)
        await stage.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        await stage.until(lambda: watch.receiver.state.phase == "waiting")
        assert "stored first" in watch.document()["problem"]
        # As of its last look, which is made anew only when the next upload is tried.
        await stage.until(lambda: watch.uploader.state.waiting_files >= 2)
        # What is written while nobody receives it is kept by the new slot.
        await stage.until(lambda: bool(watch.receiver._anew))
        await stage.sql("SELECT pg_switch_wal()")
        await stage.write(100)
        away[0] = False
        await stage.until(lambda: watch.ready()[0])
        at_last = await stage.tally()
    assert watch.receiver.state.begun_anew == 1
    async with stage.restored(moment) as content:
        assert content.backup.id == first
        assert content.hashes == then.hashes
    async with stage.restored() as content:
        assert content.hashes == at_last.hashes


async def test_a_managed_server_allows_it(stage: Any, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("a password")
    passwords = Passwords(password, tmp_path)
    passwords.load()
    stage.server.stop()
    (tmp_path / "managed").mkdir()
    files.write_private(tmp_path / "managed" / "password", "a password")
    port = files.choose_port(tmp_path)
    managed = ManagedPostgres(tmp_path / "managed", port=port, start_timeout=60)
    try:
        await asyncio.to_thread(managed.start)
        url = f"postgresql://feedmill:a%20password@127.0.0.1:{port}/feedmill"
        await asyncio.to_thread(migrate_sync, url)
        watch = stage.watch(url)
        async with stage.watching(watch):
            await stage.until(based(watch))
        assert watch.document()["problem"] == ""
    finally:
        await asyncio.to_thread(managed.stop)
        managed.clean()


async def test_the_server_forgets_only_what_is_stored(stage: Any) -> None:
    watch = stage.watch()
    async with stage.watching(watch):
        await stage.until(based(watch))
        for _ in range(4):
            await stage.write(20_000)
        stored = "SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots"
        await stage.until(lambda: watch.uploader.state.waiting_files == 0 and watch.uploader.state.files >= 3)
        needed = segment_of(await stage.sql(stored))
    assert needed is not None
    log = await stage.log()
    assert needed.number - 1 in log.finished(16 << 20)
    assert max(log.finished(16 << 20)) >= needed.number - 1
