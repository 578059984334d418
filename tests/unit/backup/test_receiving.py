"""What a new replication slot means: what was received or stored before it says nothing about what it keeps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from feedmill.general.backup import receiving, slot
from feedmill.general.backup.names import Names
from feedmill.general.backup.receiving import Receiver
from feedmill.general.backup.slot import Server
from feedmill.general.backup.spool import Spool
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.log import get_logger

SYSTEM = "7301234567890123456"
SIZE = 16 << 20


class Uploads:
    """So many times something of the spool is not stored yet."""

    def __init__(self, spool: Spool, times: int) -> None:
        self.changed = asyncio.Event()
        self.urgent = 0
        self._spool, self._times = spool, times
        self.kept_until_stored = True

    async def pending(self, system: str) -> bool:
        self.kept_until_stored &= self._spool.folder(system).is_dir()
        self._times -= 1
        return self._times >= 0

    def wake(self, *, urgent: bool = False) -> None:
        self.urgent += urgent
        self.changed.set()


class Stage:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept_from: int | None = None
        self.written = 9 * SIZE
        self.did: list[str] = []
        self.spool = Spool(folder / "spool")
        self.spool.folder(SYSTEM).mkdir(parents=True)
        (self.spool.folder(SYSTEM) / "000000010000000000000007").write_bytes(b"of before")
        self.uploads = Uploads(self.spool, 2)
        self.receiver = Receiver(
            DatabaseUrl("postgresql://nobody"), Names("default", "main"), self.spool, 1 << 20, get_logger()
        )
        self.receiver.uploader = cast("Any", self.uploads)
        for name in ("look", "create", "advance", "drop"):
            monkeypatch.setattr(slot, name, getattr(self, name))

    async def look(self, _: Any, __: str) -> Server:
        return Server(SYSTEM, 2, SIZE, self.written, self.kept_from, False, None)

    async def create(self, *_: Any) -> None:
        self.did.append("create")
        self.kept_from = 9 * SIZE

    async def advance(self, _: Any, __: str, position: int) -> None:
        self.did.append(f"advance to {position // SIZE}")

    async def drop(self, *_: Any) -> None:
        self.did.append("drop")

    async def open(self) -> Server:
        return await self.receiver._open(cast("Any", None))


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


async def test_what_was_received_before_a_new_slot_is_stored_first_and_then_let_go(stage: Stage) -> None:
    server = await stage.open()
    assert stage.did == ["create"], "before it waits, since the server keeps nothing without"
    assert server.kept_from == 9 * SIZE
    assert stage.uploads.urgent == 2
    assert stage.uploads.kept_until_stored
    assert not stage.spool.folder(SYSTEM).exists()
    assert stage.receiver.state.phase == "waiting"


async def test_a_connection_that_ends_meanwhile_does_not_make_it_an_old_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(*_: Any) -> Server:
        raise ConnectionError("cut")

    with monkeypatch.context() as patched:
        patched.setattr(stage.receiver, "_ask", cut)
        with pytest.raises(ConnectionError):
            await stage.open()
    assert stage.spool.folder(SYSTEM).is_dir()
    await stage.open()
    assert stage.did == ["create"]
    assert not stage.spool.folder(SYSTEM).exists()


async def test_how_far_the_log_of_its_predecessor_was_stored_does_not_move_a_new_slot_on(stage: Stage) -> None:
    """It had written up to segment 11; the server that took over branched off in 9."""
    stage.receiver._stored[SYSTEM] = 12
    await stage.open()
    await stage.open()
    assert stage.did == ["create"]


async def test_one_that_is_there_is_moved_on_to_what_is_stored(stage: Stage) -> None:
    stage.kept_from = 5 * SIZE
    stage.receiver._stored[SYSTEM] = 8
    await stage.open()
    assert stage.did == ["advance to 8"]
    assert stage.spool.folder(SYSTEM).is_dir()


async def test_a_server_that_writes_too_much_meanwhile_is_let_go(stage: Stage) -> None:
    stage.written = 200 * SIZE
    with pytest.raises(receiving._Overflow, match="of log waited for the destination"):
        await stage.open()
    assert stage.did == ["create", "drop"]
