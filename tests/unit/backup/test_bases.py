"""When a base backup is due, and what is told of one that failed."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from feedmill.accounts.keyring import parse_keyring
from feedmill.general.backup import bases, record
from feedmill.general.backup.bases import Bases
from feedmill.general.backup.manifest import Manifest, encode
from feedmill.general.backup.names import Names
from feedmill.general.backup.slot import Server
from feedmill.general.backup.stores.base import StoreAway, put_bytes
from feedmill.general.backup.stores.folder import FolderStore
from feedmill.general.backup.wal import store_file
from feedmill.general.backup.wal_plan import Segment
from feedmill.resources.backup_policy import Backup
from feedmill.shared import postgres
from feedmill.shared.clock import now_ns
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.log import get_logger

NAMES = Names("default", "main")
SYSTEM = "7301234567890123456"
SIZE = 1 << 20
BASE = "20261126T030000Z-base-000001"
GAP = "the log that is stored does not go on from the last one without a gap"


def server(segment: int, timeline: int = 1) -> Server:
    return Server(SYSTEM, timeline, SIZE, segment * SIZE + 5, segment * SIZE, False, None)


class Stage:
    """A destination with a base backup of segment 3, and what decides whether another is due. None is made."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = FolderStore(folder / "store")
        self.ring = parse_keyring(f"k1 {base64.b64encode(os.urandom(32)).decode()}", "test")
        self.receiver = cast("Any", SimpleNamespace(server=server(4), changed=asyncio.Event()))
        self.made: list[str] = []
        self.running: list[str] = []
        """Ids of rows that say so."""
        self.told: list[str] = []
        self.path = folder / "file"
        spec = Backup.model_validate(
            {
                "schedule": "0 3 * * *",
                "destination": {"folder": {"path": str(folder / "store")}},
                "encryption": {"keySecretRef": {"name": "backup-key", "key": "key"}},
                "continuous": {"enabled": True, "baseSchedule": "0 2 1 1 *"},
            }
        )

        async def ring() -> Any:
            return self.ring

        async def make(why: str) -> None:
            self.made.append(why)

        async def connect(*_: Any, **__: Any) -> None:
            return None

        async def running(*_: Any) -> list[str]:
            return self.running

        async def succeeded(_: Any, manifest: Manifest) -> None:
            self.told.append(manifest.id)

        target: Any = SimpleNamespace(store=self.store, names=NAMES, spec=spec, ring=ring)
        self.bases = Bases(DatabaseUrl("postgresql://nobody"), target, self.receiver, get_logger())
        monkeypatch.setattr(self.bases, "_make", make)
        monkeypatch.setattr(postgres, "connect", connect)
        monkeypatch.setattr(record, "running", running)
        monkeypatch.setattr(record, "succeeded", succeeded)

    async def put(self, file: str, content: bytes = b"x") -> None:
        self.path.write_bytes(content)
        await store_file(self.store, self.ring, NAMES.wal(SYSTEM, file), self.path)

    async def base(self) -> None:
        now = now_ns()
        made = Manifest(
            id=BASE, kind="base", namespace="default", pipeline="main", object="o", size_bytes=1, sha256="",
            key_id="k1", plain_bytes=1, started_ns=now, ended_ns=now, snapshot_ns=now,
            schema_version="0003", feedmill_version="0", server_version="18.6", system=SYSTEM, timeline=1,
            wal_from=Segment(3, 1).name(SIZE), wal_to=Segment(3, 1).name(SIZE), wal_segment_bytes=SIZE,
        )  # fmt: skip
        await put_bytes(self.store, NAMES.manifest(made.id), encode(made))


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Stage(tmp_path, monkeypatch)
    await made.base()
    await made.put(Segment(3, 1).name(SIZE))
    yield made
    await made.store.close()


async def until(holds: Any) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_log_that_is_whole_needs_none(stage: Stage) -> None:
    assert await stage.bases._due() == ""
    stage.receiver.server = server(5)
    assert await stage.bases._due() == GAP


async def test_a_server_that_took_over_needs_one_unless_its_own_log_is_there(stage: Stage) -> None:
    """Its predecessor's segment 4 was stored; it branched off at the end of 3, and is in 5 by now."""
    await stage.put(Segment(4, 1).name(SIZE))
    stage.receiver.server = server(5, timeline=2)
    await stage.put("00000002.history", f"1\t0/{4 * SIZE + 100:X}\tno recovery target specified\n".encode())
    assert await stage.bases._due() == GAP
    await stage.put(Segment(4, 2).name(SIZE))
    assert await stage.bases._due() == ""


async def test_a_timeline_whose_history_is_unknown_needs_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "HISTORY_PATIENCE", 0.0)
    monkeypatch.setattr(bases, "_LOOK", 0.0)
    stage.receiver.server = server(4, timeline=2)
    assert await stage.bases._due() == GAP
    await stage.put("00000002.history", b"of another make\n")
    assert await stage.bases._due() == GAP


async def test_what_changes_while_it_is_looked_is_looked_at_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log begins anew while the destination takes its time: the base backup is made then, not an hour later."""
    real, looks = stage.store.list, [0]

    async def slow(prefix: str) -> Any:
        found = await real(prefix)
        looks[0] += 1
        if looks[0] == 1:
            stage.receiver.server = server(9)
            stage.receiver.changed.set()
        return found

    monkeypatch.setattr(stage.store, "list", slow)
    looked = server(4)
    stage.receiver.server = looked
    running = asyncio.create_task(stage.bases.run())
    await until(lambda: stage.made)
    await ended(running)
    assert stage.made[0] == GAP


async def test_one_that_is_stored_is_told_for_a_process_that_was_killed_before_it_did(stage: Stage) -> None:
    """No other is due, so nothing else would close its row. Of the second one nothing is stored: it stays as it is."""
    stage.running = [BASE, "20261126T030001Z-base-000002"]
    running = asyncio.create_task(stage.bases.run())
    await until(lambda: stage.bases._told)
    await ended(running)
    assert (stage.told, stage.made) == ([BASE], [])


async def test_a_failure_is_told_until_a_look_succeeds(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    real, away = stage.store.list, [True]

    async def found(prefix: str) -> Any:
        if away[0]:
            raise StoreAway("the destination is away")
        return await real(prefix)

    monkeypatch.setattr(stage.store, "list", found)
    running = asyncio.create_task(stage.bases.run())
    await until(lambda: stage.bases.state.error == "the destination is away")
    away[0] = False
    stage.receiver.changed.set()
    await until(lambda: not stage.bases.state.error)
    await ended(running)
    assert stage.made == []
