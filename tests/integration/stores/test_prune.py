"""What a destination holds, and deleting from it: in a folder, S3 and B2."""

from __future__ import annotations

import asyncio
import time

import pytest
from b2_server import B2Server
from faults_http import Fault
from store_helpers import bucket_of, remote

from feedmill.general.backup.catalogue import read_catalogue
from feedmill.general.backup.manifest import Drill, Manifest, encode
from feedmill.general.backup.names import Kind, Names
from feedmill.general.backup.prune import prune
from feedmill.general.backup.stores.base import ObjectStore, StoreAway, put_bytes
from feedmill.resources.backup_policy import BackupRetention
from feedmill.resources.types import KeepFor

DAY = 86_400 * 10**9
NOW = time.time_ns()
LATER = NOW + 10 * DAY
"""When what the tests store is older than any grace."""
NAMES = Names("default", "main")
KEEP = BackupRetention(max_age=KeepFor("30d"), max_count=2)
WALS = [f"0000000100000000000000{number:02X}" for number in range(8)]


def backup_id(number: int, kind: Kind) -> str:
    return f"20261126T03000{number}Z-{kind}-00000a"


async def make(store: ObjectStore, number: int, kind: Kind = "logical", *, wal_from: str = "") -> Manifest:
    """Larger numbers are older, a day each."""
    made, at = backup_id(number, kind), NOW - number * DAY
    manifest = Manifest(
        id=made, kind=kind, namespace="default", pipeline="main", object=NAMES.data(made), size_bytes=5, sha256="",
        plain_bytes=5, key_id="k1", started_ns=at, ended_ns=at, snapshot_ns=at, schema_version="0003",
        feedmill_version="0.1.0", server_version="18.6", system="7421" if wal_from else "", wal_from=wal_from,
        wal_to=wal_from,
    )  # fmt: skip
    await put_bytes(store, manifest.object, b"12345")
    await put_bytes(store, NAMES.manifest(made), encode(manifest))
    return manifest


async def names_in(store: ObjectStore) -> set[str]:
    return {found.name for found in await store.list("")}


async def test_the_catalogue_tells_whole_short_missing_moved_and_half_made_ones(store: ObjectStore) -> None:
    whole, short, missing = [await make(store, number) for number in (1, 2, 3)]
    await put_bytes(store, short.object, b"123")
    await store.delete(missing.object)
    half = NAMES.data(backup_id(4, "logical"))
    await put_bytes(store, half, b"12345")
    await put_bytes(store, NAMES.manifest(backup_id(5, "logical")), encode(whole))
    await put_bytes(store, NAMES.manifest(backup_id(6, "base")), b"{torn")
    drill = Drill(id="d1", backup_id=whole.id, passed=True, started_ns=1, ended_ns=2, feedmill_version="0.1.0")
    await put_bytes(store, NAMES.drill("d1"), encode(drill))
    await put_bytes(store, "default/other/logical/x/data", b"another pipeline's")

    found = await read_catalogue(store, NAMES)
    assert [entry.manifest for entry in found.entries] == [whole, short, missing]
    assert [entry.whole for entry in found.entries] == [True, False, False]
    assert [entry.proven for entry in found.entries] == [True, False, False]
    assert found.newest("logical") == found.entries[0]
    assert found.newest("base") is None
    assert found.find(short.id) == found.entries[1]
    assert [one.name for one in found.leftovers] == [half]
    torn, moved = found.unreadable
    assert "is not a backup's manifest" in torn
    assert f"is the manifest of {whole.object}: it was moved here" in moved


async def test_what_is_not_kept_is_deleted_and_nothing_else(store: ObjectStore) -> None:
    made = [await make(store, number) for number in range(5)]
    await put_bytes(store, "default/other/logical/x/data", b"another pipeline's")
    before = await names_in(store)

    told = await prune(store, NAMES, KEEP, NOW, dry_run=True)
    assert [decision.keep for decision in told.plan.backups] == [True, True, False, False, False]
    assert await names_in(store) == before

    assert (await prune(store, NAMES, KEEP, NOW)).deleted_bytes == 15
    kept = {name for one in made[:2] for name in (one.object, NAMES.manifest(one.id))}
    assert await names_in(store) == kept | {"default/other/logical/x/data"}
    again = await prune(store, NAMES, KEEP, NOW)
    assert (len(again.plan.backups), again.deleted_bytes) == (2, 0)


async def test_what_was_cut_off_goes_after_its_grace(store: ObjectStore) -> None:
    half = NAMES.data(backup_id(1, "logical"))
    await put_bytes(store, half, b"12345")
    await prune(store, NAMES, KEEP, NOW)
    assert await names_in(store) == {half}
    await prune(store, NAMES, KEEP, LATER)
    assert await names_in(store) == set()


async def test_what_somebody_put_beside_the_backups_stays(store: ObjectStore) -> None:
    whole = await make(store, 0)
    folder = NAMES.data(whole.id).rpartition("/")[0]
    logical = NAMES.backups("logical")
    beside = {
        f"{folder}-copy/data", f"{folder}/notes.txt", f"{logical}README.txt", f"{logical}old/{whole.id}/data",
        f"{logical}{backup_id(1, 'base')}/data",
    }  # fmt: skip
    for name in beside:
        await put_bytes(store, name, b"x")
    found = await read_catalogue(store, NAMES)
    assert (len(found.entries), found.leftovers) == (1, ())
    await prune(store, NAMES, KEEP, LATER)
    assert await names_in(store) == {whole.object, NAMES.manifest(whole.id), *beside}


async def test_a_drill_that_cannot_be_read_holds_no_log_back(store: ObjectStore) -> None:
    await make(store, 0, "base", wal_from=WALS[6])
    for wal in WALS:
        await put_bytes(store, NAMES.wal("7421", wal), b"x")
    await put_bytes(store, NAMES.drill("torn"), b"\xff")
    found = await read_catalogue(store, NAMES)
    assert found.unreadable == ()
    assert [NAMES.drill("torn") in why for why in found.unreadable_drills] == [True]
    pruned = await prune(store, NAMES, KEEP, NOW)
    assert (pruned.wal_files, pruned.unreadable) == (6, ())


async def test_an_upload_taken_back_by_a_try_whose_answer_was_lost(b2: B2Server) -> None:
    store, bucket = remote(bucket_of(b2)), bucket_of(b2)
    await asyncio.to_thread(bucket.begin, bucket.prefix + NAMES.data(backup_id(0, "logical")))
    b2.faults.add(Fault("b2_cancel_large_file", unanswered=True))
    await prune(store, NAMES, KEEP, LATER)
    assert b2.faults.count("b2_cancel_large_file") == 2
    assert b2.versions() == []
    await store.close()


async def test_the_log_that_no_base_backup_needs_goes(store: ObjectStore) -> None:
    for number, at in ((0, 6), (1, 4), (2, 2)):
        await make(store, number, "base", wal_from=WALS[at])
    for wal in WALS:
        await put_bytes(store, NAMES.wal("7421", wal), b"x")
    await put_bytes(store, NAMES.wal("9999", WALS[0]), b"of a database that no backup is of")
    assert (await prune(store, NAMES, KEEP, NOW)).wal_files == 4
    left = {name.rsplit("/", 1)[1] for name in await names_in(store) if "/wal/7421/" in name}
    assert left == set(WALS[4:])
    assert NAMES.wal("9999", WALS[0]) in await names_in(store), "its first base backup may be under way"


async def test_the_log_stays_while_a_manifest_cannot_be_read(store: ObjectStore) -> None:
    await make(store, 0, "base", wal_from=WALS[6])
    await put_bytes(store, NAMES.manifest(backup_id(1, "base")), b'{"format": 2}')
    for wal in WALS:
        await put_bytes(store, NAMES.wal("7421", wal), b"x")
    pruned = await prune(store, NAMES, KEEP, LATER)
    assert pruned.wal_files == 0
    assert "has format 2, this version reads 1" in pruned.unreadable[0]
    assert len([name for name in await names_in(store) if "/wal/" in name]) == len(WALS)


async def test_cut_off_between_manifest_and_object_the_next_run_does_the_rest(b2: B2Server) -> None:
    store = remote(bucket_of(b2), patience=0.1)
    made = [await make(store, number) for number in range(3)]
    # The manifest's deletion goes through, its object's does not.
    b2.faults.add(Fault("b2_delete_file_version", spare=1, times=10**6, status=503))
    with pytest.raises(StoreAway):
        await prune(store, NAMES, KEEP, NOW)
    b2.faults.clear()
    found = await read_catalogue(store, NAMES)
    assert [entry.manifest for entry in found.entries] == made[:2]
    assert [one.name for one in found.leftovers] == [made[2].object]
    await prune(store, NAMES, KEEP, LATER)
    assert {found.name for found in await store.list("")} == {
        name for one in made[:2] for name in (one.object, NAMES.manifest(one.id))
    }
    await store.close()
