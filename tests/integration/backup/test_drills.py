"""Drills: a backup is proven by restoring it into a scratch server, and what a drill finds is recorded."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feedmill.cli.migrate import migrate_sync
from feedmill.general.backup.choice import Picked
from feedmill.general.backup.content import ContentError
from feedmill.general.backup.scratch import PREFIX
from feedmill.general.backup.seal import ChunkDamaged
from feedmill.general.backup.stores.base import StoreAway
from feedmill.general.backup.verify import drill


async def migrate_to(url: str, to: str) -> None:
    await asyncio.to_thread(migrate_sync, url, to=to)


async def drilled(depot: Any, manifest: Any, folder: Path) -> Any:
    done = await drill(
        depot.picked(manifest), depot.store, depot.names, depot.url, migrate_to, folder=folder, log=depot.log
    )
    return done.drill


async def test_a_good_backup_is_proven(depot: Any, tmp_path: Path) -> None:
    manifest = await depot.back_up()
    made = await drilled(depot, manifest, tmp_path)
    assert made.passed
    assert made.row_counts == manifest.row_counts
    (entry,) = (await depot.catalogue()).entries
    assert entry.proven
    (row,) = await depot.fetch(depot.url, "SELECT id, backup_id, mode, state, row_counts FROM restores")
    assert row[:4] == (made.id, manifest.id, "verify", "succeeded")
    assert json.loads(row[4])["trades"] == 1000
    assert list(tmp_path.glob(f"{PREFIX}*")) == [], "the scratch server is gone"


async def test_contents_that_differ_are_found_also_where_the_rows_are_as_many(depot: Any, tmp_path: Path) -> None:
    manifest = await depot.back_up()
    other = msgspec.structs.replace(manifest, checksums=manifest.checksums | {"trades": "1"})
    with pytest.raises(ContentError, match="contents differ in 1 tables: trades"):
        await drilled(depot, other, tmp_path)
    (entry,) = (await depot.catalogue()).entries
    assert entry.whole
    assert not entry.good, "no restore takes it by itself any more"
    assert await depot.fetch(depot.url, "SELECT state FROM restores") == ["failed"]
    assert list(tmp_path.glob(f"{PREFIX}*")) == []


async def test_a_missing_index_is_found(depot: Any, tmp_path: Path) -> None:
    await depot.fetch(depot.url, "DROP INDEX gaps_by_time")
    with pytest.raises(ContentError, match=r"1 parts of schema \d+ are not in it: index .*gaps_by_time"):
        await drilled(depot, await depot.back_up(), tmp_path)


async def test_damage_fails_the_drill(depot: Any, tmp_path: Path) -> None:
    manifest = await depot.back_up()
    data = bytearray(depot.data(manifest).read_bytes())
    data[-20] ^= 1
    depot.data(manifest).write_bytes(data)
    with pytest.raises(ChunkDamaged):
        await drilled(depot, manifest, tmp_path)
    (entry,) = (await depot.catalogue()).entries
    assert entry.drill is not None
    assert "chunk" in entry.drill.error
    assert list(tmp_path.glob(f"{PREFIX}*")) == []


@pytest.mark.parametrize("error", [StoreAway("away"), OSError(28, "No space left on device")])
async def test_what_is_lacking_here_fails_the_drill_and_says_nothing_of_the_backup(
    depot: Any, tmp_path: Path, error: Exception
) -> None:
    manifest = await depot.back_up()

    def lacking() -> Any:
        raise error

    picked = Picked(manifest, lacking)
    with pytest.raises(type(error)):
        await drill(picked, depot.store, depot.names, depot.url, migrate_to, folder=tmp_path, log=depot.log)
    (entry,) = (await depot.catalogue()).entries
    assert entry.good
    assert entry.drill is None
