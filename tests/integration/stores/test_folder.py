"""What only a folder has: a process killed in the middle, a disk that is full, modes."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from feedmill.general.backup.stores.base import StoreRefused, get_bytes, put_bytes
from feedmill.general.backup.stores.folder import FolderStore

WRITER = """
import asyncio, resource, signal, sys
from pathlib import Path
from feedmill.general.backup.stores.base import StoreFull
from feedmill.general.backup.stores.folder import FolderStore

async def source():
    yield bytes(100_000)
    yield bytes(100_000)
    print("written", flush=True)
    await asyncio.Event().wait()

async def main():
    if sys.argv[2] == "small":
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
    try:
        await FolderStore(Path(sys.argv[1])).put("a/b/data", source())
    except StoreFull as error:
        print(error)

asyncio.run(main())
"""


async def test_killed_in_the_middle_it_leaves_nothing_but_what_is_swept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    await put_bytes(store, "a/b/data", b"former")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.root), "large"], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        writer.kill()
    assert [found.name for found in await store.list("")] == ["a/b/data"]
    assert await get_bytes(store, "a/b/data") == b"former"
    assert len(list(store.root.rglob("*data*"))) == 2
    assert await store.sweep("a/", time.time_ns() - 10**12) == 0
    assert await store.sweep("other/", time.time_ns() + 10**12) == 0
    assert await store.sweep("a/", time.time_ns() + 10**12) == 1
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == ["data"]
    await store.close()


async def test_what_is_swept_leaves_no_empty_folder(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    cut_off = store.root / "a" / "b" / ".data.0123abcd.unfinished"
    cut_off.parent.mkdir(parents=True)
    cut_off.touch()
    await put_bytes(store, "a/other", b"x")
    assert await store.sweep("a/", time.time_ns() + 10**12) == 1
    assert sorted(path.name for path in store.root.rglob("*")) == ["a", "other"]
    await store.close()


@pytest.mark.parametrize("late", [False, True], ids=["under way", "waiting for its turn"])
async def test_cancelled_while_its_file_is_made_it_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    store, reached, go = FolderStore(tmp_path / "store"), threading.Event(), threading.Event()
    really = Path.mkdir

    def slow(path: Path, **options: Any) -> None:
        reached.set()
        assert go.wait(30.0)
        really(path, **options)

    async def nothing() -> AsyncGenerator[bytes, None]:
        yield b""

    monkeypatch.setattr(Path, "mkdir", slow)
    holding = [asyncio.create_task(store._calls.once(go.wait, 30.0)) for _ in range(2)] if late else []
    await asyncio.sleep(0)
    task = asyncio.create_task(store.put("a/data", nothing()))
    if late:
        await asyncio.sleep(0)
    else:
        assert await asyncio.to_thread(reached.wait, 30.0)
    task.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.gather(*holding)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert _open_files(tmp_path) == []
    await store.close()


def _open_files(folder: Path) -> list[str]:
    """Of this process, below ``folder``."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # That of the listing itself.
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


async def test_a_folder_whose_entries_cannot_be_synced_takes_backups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, refused = os.fsync, []

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            refused.append(fd)
            raise OSError(errno.EINVAL, "Invalid argument")
        really(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    store = FolderStore(tmp_path / "store")
    await put_bytes(store, "a/data", b"x")
    assert refused
    assert await get_bytes(store, "a/data") == b"x"
    await store.close()


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path / "store"), "small"], capture_output=True, text=True, check=True
    )
    assert "make room, or keep fewer backups" in told.stdout
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


async def test_the_check_makes_no_folder_that_stays(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "a" / "store")
    await store.check()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a" / "store").mkdir(parents=True)
    await store.check()
    assert list(store.root.iterdir()) == []
    await store.close()


async def test_what_is_replaced_while_it_is_looked_at_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path / "store")
    await put_bytes(store, "a/file.1", b"x")
    really = store._files

    def replaced(prefix: str) -> Iterator[Path]:
        seen = list(really(prefix))
        (store.root / "a" / "file.2").write_bytes(b"xy")
        (store.root / "a" / "file.1").unlink(missing_ok=True)
        return iter(seen)

    monkeypatch.setattr(store, "_files", replaced)
    assert [(found.name, found.size_bytes) for found in await store.list("a/file")] == [("a/file.2", 2)]
    await store.close()


async def test_what_is_stored_is_its_owners_alone(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    await put_bytes(store, "a/data", b"x")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (store.root, *store.root.rglob("*"))}
    assert modes == {"store": 0o700, "a": 0o700, "data": 0o600}
    await store.close()


async def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    store = FolderStore(tmp_path / "store")
    with pytest.raises(StoreRefused, match="check the folder, its owner and its disk"):
        await store.check()
    with pytest.raises(StoreRefused):
        await put_bytes(store, "a/data", b"x")
    await store.close()
