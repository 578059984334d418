"""Drills, restores and base backups that fail or are cancelled: what is recorded, and what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from feedmill.cli.migrate import migrate_sync
from feedmill.general.backup import log_server
from feedmill.general.backup.base import run_base
from feedmill.general.backup.catalogue import read_catalogue
from feedmill.general.backup.choice import pick
from feedmill.general.backup.logical import run_logical
from feedmill.general.backup.progress import silent
from feedmill.general.backup.seal import ChunkDamaged
from feedmill.general.backup.verify import drill
from feedmill.local.embedded.server import descendants
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.log import get_logger


def based(watch: Any) -> Any:
    return lambda: bool(watch.bases.state.last_id)


async def test_a_drill_of_a_base_backup_that_is_damaged_is_recorded_and_the_next_takes_another(stage: Any) -> None:
    watch = stage.watch()
    async with stage.watching(watch):
        await stage.until(based(watch))
        await stage.write()
    target = stage.target()
    ring, base = await target.ring(), watch.bases.state.last_id
    made = await run_logical(target.store, target.names, ring, stage.url, log=get_logger())
    data = stage.backups / target.names.data(base)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)

    async def migrate_to(url: str, to: str) -> None:
        await asyncio.to_thread(migrate_sync, url, to=to)

    async def drilled() -> Any:
        picked = await pick(target, ring, None, None, stage.folder, silent, drill=True)
        return await drill(
            picked, target.store, target.names, stage.url, migrate_to, folder=stage.folder, log=get_logger()
        )

    assert (await drilled()).drill.backup_id == made.id
    with pytest.raises(ChunkDamaged):
        await drilled()
    assert await stage.sql("SELECT state FROM restores WHERE backup_id = $1", base) == "failed"
    entry = (await read_catalogue(target.store, target.names)).find(base)
    assert entry is not None
    assert not entry.good
    assert (await drilled()).drill.backup_id == made.id, "the others are still proven"
    async with stage.restored() as found:
        assert found.backup.id == made.id, "nor does a restore take it by itself"


def programs(*names: str) -> set[int]:
    """Process ids of those of ours that run now."""
    found = set()
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() in names:
                found.add(pid)
    return found


def replaying() -> set[int]:
    """Process ids of scratch servers and what they started. Those of other servers come and go (autovacuum's)."""
    found: set[int] = set()
    for pid in programs("postgres"):
        with contextlib.suppress(OSError):
            if b"feedmill-replay-" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found |= {pid, *descendants(pid)}
    return found


async def test_a_restore_that_is_cancelled_while_it_replays_leaves_no_server_and_no_folder(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = stage.watch()
    async with stage.watching(watch):
        await stage.until(based(watch))
        await stage.write()
    assert programs("pg_receivewal", "pg_basebackup") == set()
    stage.destroy()
    asked = asyncio.Event()

    async def stuck(*_: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(log_server, "fetch_file", stuck)

    async def restore() -> None:
        async with stage.restored():
            pass

    restoring = asyncio.create_task(restore())
    async with asyncio.timeout(120):
        await asked.wait()
    began = replaying()
    assert began & programs("postgres")
    assert list(stage.folder.glob("feedmill-replay-*"))
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert replaying() == set()
    assert began & programs("postgres") == set()
    assert not list(stage.folder.glob("feedmill-replay-*"))


async def test_a_base_backup_that_is_cancelled_ends_its_program_and_leaves_nothing(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.keep()
    target = stage.target()
    begun = asyncio.Event()

    async def put(name: str, source: Any) -> Any:
        async for _ in source:
            begun.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(target.store, "put", put)
    making = asyncio.create_task(
        run_base(DatabaseUrl(stage.url), target.store, await target.ring(), target.names), name="base backup"
    )
    async with asyncio.timeout(60):
        await begun.wait()
    await stage.until(lambda: bool(programs("pg_basebackup")))
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert programs("pg_basebackup") == set()
    assert await stage.sql("SELECT error FROM backups WHERE state = 'failed'") == "asked to stop"
    assert not [path for path in stage.backups.rglob("*") if path.is_file()]
