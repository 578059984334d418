"""What becomes of the file that is being written, and of a spool whose log has ended."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from feedmill.accounts.keyring import parse_keyring
from feedmill.general.backup.names import Names
from feedmill.general.backup.spool import Spool, Waiting
from feedmill.general.backup.stores.base import StoreRefused
from feedmill.general.backup.stores.folder import FolderStore
from feedmill.general.backup.upload import Uploader
from feedmill.general.backup.wal import read_file, store_file
from feedmill.general.backup.wal_plan import Segment, logs_of, partial_name
from feedmill.shared.config import ConfigError
from feedmill.shared.log import get_logger

NAMES = Names("default", "main")
SYSTEM = "7301234567890123456"


def file(number: int, timeline: int = 1) -> str:
    return Segment(number, timeline).name()


class Stage:
    """A spool and its uploader, whose turns are taken by hand."""

    def __init__(self, folder: Path) -> None:
        self.ring = parse_keyring(f"k1 {base64.b64encode(os.urandom(32)).decode()}", "test")
        self.store = FolderStore(folder / "store")
        self.spool = Spool(folder / "spool")
        self.spool.folder(SYSTEM).mkdir(parents=True)
        self.uploader = self.fresh()

    def fresh(self) -> Uploader:
        """As of a process that begins."""

        async def ring() -> Any:
            return self.ring

        async def stored(_: Waiting) -> None:
            pass

        target: Any = SimpleNamespace(store=self.store, names=NAMES, ring=ring)
        return Uploader(self.spool, target, get_logger(), stored, lambda: SYSTEM)

    def write(self, name: str, content: bytes) -> None:
        (self.spool.folder(SYSTEM) / name).write_bytes(content)

    async def turn(self) -> None:
        self.uploader.wake(urgent=True)
        assert await self.uploader._attempt()

    async def there(self) -> dict[str, bytes]:
        """Content by file, of what a restore would use."""
        found = await self.store.list(NAMES.wals)
        log = logs_of(found)[SYSTEM]
        assert not log.leftovers
        items = {**log.files, **log.partials}
        return {name: bytes(await read_file(self.store, self.ring, item.name)) for name, item in items.items()}


@pytest.fixture
async def stage(tmp_path: Path) -> Any:
    made = Stage(tmp_path)
    yield made
    await made.store.close()


async def test_the_file_that_is_written_takes_the_place_of_what_was_stored_of_it(stage: Stage) -> None:
    stage.write(file(3) + ".partial", b"a beginning")
    await stage.turn()
    stage.write(file(3) + ".partial", b"a longer beginning")
    await stage.turn()
    assert await stage.there() == {file(3): b"a longer beginning"}
    (stage.spool.folder(SYSTEM) / (file(3) + ".partial")).rename(stage.spool.folder(SYSTEM) / file(3))
    await stage.turn()
    assert [found.name for found in await stage.store.list(NAMES.wals)] == [NAMES.wal(SYSTEM, file(3))]


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_end_of_a_log_that_nothing_follows_stays(stage: Stage, restarted: bool) -> None:
    """The server let its log go in segment 3, or was replaced by a standby: what comes next begins in 8."""
    stage.write(file(3) + ".partial", b"the last moments")
    await stage.turn()
    stage.spool.forget(SYSTEM)
    stage.spool.folder(SYSTEM).mkdir()
    if restarted:
        stage.uploader = stage.fresh()
        await stage.uploader._remove_leftovers()
    for content in (b"anew", b"anew, and more"):
        stage.write(file(8) + ".partial", content)
        await stage.turn()
    assert await stage.there() == {file(3): b"the last moments", file(8): b"anew, and more"}


async def test_a_process_that_begins_removes_only_what_a_later_one_replaces(stage: Stage) -> None:
    for at, name in enumerate((file(3), file(5), file(5), file(5, 2))):
        stage.write("x", name.encode() + str(at).encode())
        path = stage.spool.folder(SYSTEM) / "x"
        await store_file(stage.store, stage.ring, NAMES.wal(SYSTEM, partial_name(name, at)), path)
    stage.uploader = stage.fresh()
    await stage.uploader._remove_leftovers()
    assert await stage.there() == {
        name: f"{name}{at}".encode() for name, at in ((file(3), 0), (file(5), 2), (file(5, 2), 3))
    }
    assert stage.uploader.state.unfinished[SYSTEM] == NAMES.wal(SYSTEM, partial_name(file(5, 2), 3))


async def test_a_spool_is_pending_until_all_of_it_is_stored(stage: Stage) -> None:
    assert not await stage.uploader.pending(SYSTEM)
    stage.write(file(4) + ".partial", b"")
    assert not await stage.uploader.pending(SYSTEM), "only a mark"
    stage.write(file(3), b"whole")
    assert await stage.uploader.pending(SYSTEM)
    stage.write(file(4) + ".partial", b"a beginning")
    stage.spool.remove(stage.spool.waiting()[0])
    assert await stage.uploader.pending(SYSTEM)
    assert not await stage.uploader.pending("1")
    await stage.turn()
    assert not await stage.uploader.pending(SYSTEM)


async def test_a_secret_that_is_gone_for_a_while_is_waited_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.write(file(3), b"whole")

    async def put(name: str, source: Any) -> Any:
        raise ConfigError("Secret 'b2' has no key applicationKey")

    with monkeypatch.context() as patched:
        patched.setattr(stage.store, "put", put)
        assert not await stage.uploader._attempt()
        assert "has no key" in stage.uploader.state.error
    await stage.turn()
    assert stage.uploader.state.error == ""
    assert await stage.there() == {file(3): b"whole"}


async def test_the_log_goes_on_where_nothing_may_be_deleted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a careful owner has it: who takes over the machine cannot delete backups."""

    async def refused(name: str) -> None:
        raise StoreRefused(f"may not delete {name}")

    monkeypatch.setattr(stage.store, "delete", refused)
    for content in (b"a beginning", b"a longer beginning"):
        stage.write(file(3) + ".partial", content)
        await stage.turn()
    (stage.spool.folder(SYSTEM) / (file(3) + ".partial")).unlink()
    stage.write(file(3), b"whole")
    stage.write(file(4), b"the next one")
    await stage.turn()
    assert stage.spool.waiting() == []
    assert stage.uploader.state.error == ""
    log = logs_of(await stage.store.list(NAMES.wals))[SYSTEM]
    assert (sorted(log.files), len(log.leftovers)) == ([file(3), file(4)], 2)
