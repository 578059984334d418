"""Parts of a restore to a moment: unpacking what is streamed, and handing the log to a server that replays it."""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import io
import os
import random
import sys
import tarfile
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest

from feedmill.accounts.keyring import Keyring, parse_keyring
from feedmill.general.backup import _fetch_wal, log_server, pitr
from feedmill.general.backup.content import ContentError
from feedmill.general.backup.log_server import LogServer
from feedmill.general.backup.manifest import Manifest
from feedmill.general.backup.names import Names
from feedmill.general.backup.pitr import unpack
from feedmill.general.backup.replaying import ReplayingPostgres, is_its_fault, why_it_failed
from feedmill.general.backup.seal import ChunkDamaged
from feedmill.general.backup.stores.base import ObjectMissing, StoreAway
from feedmill.general.backup.stores.folder import FolderStore
from feedmill.general.backup.wal import store_file
from feedmill.general.backup.wal_plan import Segment, logs_of, partial_name, reach_of
from feedmill.local.embedded.errors import EmbeddedError

SIZE = 1 << 20
NAMES = Names("default", "main")
SYSTEM = "7301234567890123456"


def file(number: int) -> str:
    return Segment(number, 1).name(SIZE)


def archive(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o600
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(made.getvalue(), 1)


async def pieces(content: bytes, size: int = 70_000, ends: list[str] | None = None) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(content), size):
        yield content[at : at + size]
    if ends is not None:
        ends.append("read to its end")


async def test_an_archive_is_unpacked_as_it_comes(tmp_path: Path) -> None:
    files = {"PG_VERSION": b"18\n", "base/1/2619": random.Random(1).randbytes(3_000_000), "global/empty": b""}
    ends: list[str] = []
    await unpack(pieces(archive(files), ends=ends), tmp_path / "pgdata")
    assert {name: (tmp_path / "pgdata" / name).read_bytes() for name in files} == files
    assert (tmp_path / "pgdata").stat().st_mode & 0o777 == 0o700
    assert ends == ["read to its end"], "only its end proves an object"


async def test_one_that_is_cut_or_none_is_refused(tmp_path: Path) -> None:
    content = archive({"a": random.Random(2).randbytes(500_000)})
    with pytest.raises((ContentError, EOFError)):
        await unpack(pieces(content[: len(content) // 2]), tmp_path / "cut")
    with pytest.raises(ContentError, match="cannot be unpacked"):
        await unpack(pieces(b"no archive" * 100), tmp_path / "none")
    with pytest.raises(ContentError, match="cannot be unpacked"):
        await unpack(pieces(archive({"../elsewhere": b"x"})), tmp_path / "outside")
    assert not (tmp_path / "elsewhere").exists()


async def test_without_room_it_says_what_to_do_and_reads_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    read = []

    async def large() -> AsyncGenerator[bytes, None]:
        content = archive({"a": random.Random(3).randbytes(200_000)})
        for piece in (content, *[b"and so on" * 10_000] * 100):
            read.append(len(piece))
            yield piece

    with pytest.raises(ContentError, match=r"no room for the base backup's files.*--scratch-dir"):
        await unpack(large(), tmp_path / "pgdata")
    assert len(read) < 20, "what follows is not fetched for nothing"


@pytest.mark.parametrize(
    ("said", "its_fault"),
    [
        (
            "FATAL:  could not locate a valid checkpoint record\n  | LOG:  startup process (PID 7) exited with code 1",
            True,
        ),
        ("LOG:  startup process (PID 7) was terminated by signal 9: Killed", False),
        ("FATAL:  could not extend file: No space left on device\n  | LOG:  startup process (PID 7) exited", False),
        ("FATAL:  could not create Unix-domain socket", False),
    ],
)
def test_whose_fault_it_is_that_a_server_gives_up(said: str, its_fault: bool) -> None:
    error = EmbeddedError(f"PostgreSQL ended at its start (exit code 1). The end of x:\n  | {said}")
    assert is_its_fault(error) is its_fault
    assert why_it_failed(error) == ""


class Slow:
    """A server whose replay takes a day, unless it is interrupted."""

    def __init__(self) -> None:
        self.began, self.interrupted = threading.Event(), threading.Event()

    def start(self) -> None:
        self.began.set()
        assert self.interrupted.wait(60)
        raise EmbeddedError("interrupted")

    def interrupt(self) -> None:
        self.interrupted.set()


async def test_a_replay_that_is_cancelled_ends_at_once(stage: Any) -> None:
    server: Any = Slow()
    log = await stage.server()
    starting = asyncio.create_task(pitr._start(server, log, cast("Any", None), None))
    await asyncio.to_thread(server.began.wait, 60)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert server.interrupted.is_set()


def test_a_server_that_is_interrupted_before_it_runs_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stops a restore may come while its files are still made ready."""
    base = Manifest(
        id="20261126T030000Z-base-000001", kind="base", namespace="default", pipeline="main", object="o", size_bytes=1,
        sha256="", key_id="k1", plain_bytes=1, started_ns=1, ended_ns=1, snapshot_ns=1, schema_version="0003",
        feedmill_version="0", server_version="18.6", system=SYSTEM, timeline=1, wal_from=file(3), wal_to=file(3),
        database="feedmill", role="feedmill",
    )  # fmt: skip
    server = ReplayingPostgres(tmp_path / "data", tmp_path, base, None)
    monkeypatch.setattr(server, "_prepare", server.interrupt)
    monkeypatch.setattr(server, "_command", lambda: ["/bin/sleep", "600"])
    with pytest.raises(EmbeddedError, match="interrupted"):
        server.start()
    assert not server.running


async def test_what_reading_raises_comes_first(tmp_path: Path) -> None:
    async def away() -> AsyncGenerator[bytes, None]:
        yield archive({"a": b"1"})[:10]
        raise StoreAway("gone")

    with pytest.raises(StoreAway, match="gone"):
        await unpack(away(), tmp_path / "pgdata")


class Stage:
    """A log at a destination, and a server of it."""

    def __init__(self, folder: Path) -> None:
        self.ring: Keyring = parse_keyring(f"k1 {base64.b64encode(os.urandom(32)).decode()}", "test")
        self.folder = folder
        self.store = FolderStore(folder / "store")
        self.contents: dict[str, bytes] = {}
        self.steps: list[tuple[int, int]] = []

    async def put(self, name: str, content: bytes) -> None:
        path = self.folder / "file"
        path.write_bytes(content)
        await store_file(self.store, self.ring, NAMES.wal(SYSTEM, name), path)
        self.contents[name] = content

    async def server(self) -> LogServer:
        log = logs_of(await self.store.list(NAMES.wals))[SYSTEM]
        base = Manifest(
            id="20261126T030000Z-base-000001", kind="base", namespace="default", pipeline="main", object="o",
            size_bytes=1, sha256="", key_id="k1", plain_bytes=1, started_ns=1, ended_ns=1, snapshot_ns=1,
            schema_version="0003", feedmill_version="0", server_version="18.6", system=SYSTEM, timeline=1,
            wal_from=file(3), wal_to=file(3), wal_segment_bytes=SIZE,
        )  # fmt: skip
        reach = reach_of(base, log)
        return LogServer(
            self.store, self.ring, log, reach, self.folder / "fetched",
            lambda _what, done, expected: self.steps.append((done, expected)),
        )  # fmt: skip

    async def fetch(self, name: str, place: str = "s") -> tuple[int, bytes]:
        """As PostgreSQL does it: (exit code, content)."""
        target = self.folder / "RECOVERYXLOG"
        target.unlink(missing_ok=True)
        command = [sys.executable, "-I", "-S", _fetch_wal.__file__, str(self.folder / place), name, str(target)]
        process = await asyncio.create_subprocess_exec(*command)
        code = await process.wait()
        return code, target.read_bytes() if code == 0 else b""


@pytest.fixture
async def stage(tmp_path: Path) -> Any:
    made = Stage(tmp_path)
    for number in (3, 4):
        await made.put(file(number), random.Random(number).randbytes(SIZE))
    await made.put("00000002.history", b"1\t0/500000\tno recovery target specified\n")
    await made.put(partial_name(file(5), 7), b"only its beginning")
    await made.put(file(9), b"9" * SIZE)
    yield made
    await made.store.close()


async def test_a_server_gets_what_it_asks_for_and_is_told_where_the_log_ends(stage: Any) -> None:
    server = await stage.server()
    async with server.listening(stage.folder / "s"):
        assert await stage.fetch("00000002.history") == (0, stage.contents["00000002.history"])
        assert await stage.fetch(file(3)) == (0, stage.contents[file(3)])
        assert await stage.fetch(file(4)) == (0, stage.contents[file(4)])
        code, content = await stage.fetch(file(5))
        assert (code, len(content), content.rstrip(b"\0")) == (0, SIZE, b"only its beginning")
        for none in (file(6), file(9), "00000003.history", "nonsense"):
            assert await stage.fetch(none) == (_fetch_wal.MISSING, b""), none
    assert stage.steps == [(SIZE, 3 * SIZE), (2 * SIZE, 3 * SIZE), (3 * SIZE, 3 * SIZE)]
    assert server.failure is None


async def test_a_damaged_file_is_a_failure_and_no_end(stage: Any) -> None:
    path = stage.folder / "store" / NAMES.wal(SYSTEM, file(4))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    server = await stage.server()
    async with server.listening(stage.folder / "s"):
        assert (await stage.fetch(file(3)))[0] == 0
        assert await stage.fetch(file(4)) == (_fetch_wal.FAILED, b"")
    assert isinstance(server.failure, ChunkDamaged)


async def test_a_destination_that_is_away_for_a_while(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_server, "_PAUSE", 0.01)
    server = await stage.server()
    times = [0]
    real = stage.store.get

    def get(name: str) -> Any:
        times[0] += 1
        if times[0] < 4:
            raise StoreAway("away")
        return real(name)

    monkeypatch.setattr(stage.store, "get", get)
    async with server.listening(stage.folder / "s"):
        assert await stage.fetch(file(3)) == (0, stage.contents[file(3)])
    monkeypatch.setattr(log_server, "_TRIES", 2)
    times[0] = -100
    other = await stage.server()
    async with other.listening(stage.folder / "t"):
        assert (await stage.fetch(file(3), "t"))[0] == _fetch_wal.FAILED
    assert isinstance(other.failure, StoreAway)


async def test_a_file_that_is_replaced_by_more_of_it_meanwhile(stage: Any) -> None:
    """The log goes on while a drill replays it."""
    server, more = await stage.server(), await stage.server()
    await stage.put(partial_name(file(5), 9), b"only its beginning, and more")
    await stage.store.delete(NAMES.wal(SYSTEM, partial_name(file(5), 7)))
    async with server.listening(stage.folder / "s"):
        code, content = await stage.fetch(file(5))
    assert (code, len(content), content.rstrip(b"\0")) == (0, SIZE, b"only its beginning, and more")
    await stage.put(file(5), b"5" * SIZE)
    await stage.store.delete(NAMES.wal(SYSTEM, partial_name(file(5), 9)))
    async with more.listening(stage.folder / "t"):
        assert await stage.fetch(file(5), "t") == (0, b"5" * SIZE)


async def test_a_file_that_is_gone_is_a_failure_and_no_end(stage: Any) -> None:
    server = await stage.server()
    await stage.store.delete(NAMES.wal(SYSTEM, file(4)))
    async with server.listening(stage.folder / "s"):
        assert (await stage.fetch(file(4)))[0] == _fetch_wal.FAILED
    assert isinstance(server.failure, ObjectMissing)


async def test_nobody_there_is_a_failure_and_no_end(stage: Any) -> None:
    assert await stage.fetch(file(3)) == (_fetch_wal.FAILED, b"")
