"""What every place for backups promises, whichever it is."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator

import pytest
from store_helpers import PART

from feedmill.general.backup.stores.base import Found, ObjectMissing, ObjectStore, Stored, get_bytes, put_bytes
from feedmill.general.backup.stores.folder import FolderStore
from feedmill.general.backup.stores.remote import RemoteStore

CONTENT = bytes(range(256)) * 200  # 51,200 bytes: 13 parts.


async def pieces(content: bytes, size: int = 777) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def names(store: ObjectStore, prefix: str = "") -> list[str]:
    return [found.name for found in await store.list(prefix)]


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, len(CONTENT)])
async def test_what_was_stored_is_read_again(store: ObjectStore, size: int) -> None:
    content = CONTENT[:size]
    assert await store.put("a/b/data", pieces(content)) == Stored(size, hashlib.sha256(content).hexdigest())
    assert await get_bytes(store, "a/b/data") == content
    (found,) = await store.list("")
    assert (found.name, found.size_bytes) == ("a/b/data", size)


async def test_the_time_is_told(store: ObjectStore) -> None:
    began = time.time_ns()
    await put_bytes(store, "a", b"x")
    (found,) = await store.list("a")
    assert began - 2 * 10**9 <= found.modified_ns <= time.time_ns() + 2 * 10**9


async def test_names_come_sorted_and_by_prefix(store: ObjectStore) -> None:
    for name in ("n/p/wal/1/b", "n/p/wal/1/a", "n/p/logical/x/data", "n/q/wal/1/a", "n/p/wal-not/a"):
        await put_bytes(store, name, b"x")
    assert await names(store, "n/p/wal/") == ["n/p/wal/1/a", "n/p/wal/1/b"]
    assert await names(store, "n/p/w") == ["n/p/wal-not/a", "n/p/wal/1/a", "n/p/wal/1/b"]
    assert await names(store, "none/") == []
    assert len(await names(store)) == 5


async def test_what_others_put_there_is_left_out(store: ObjectStore) -> None:
    await put_bytes(store, "a/data", b"x")
    for name in ("a/with space", "a/.hidden", ".trash/a/data", "a/\u00fc"):
        if isinstance(store, FolderStore):
            path = store.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        else:
            assert isinstance(store, RemoteStore)
            await asyncio.to_thread(store._bucket.small, store._bucket.prefix + name, b"x")
    assert await names(store) == await names(store, "a/") == ["a/data"]
    assert await names(store, ".trash/") == []


async def test_an_object_is_replaced(store: ObjectStore) -> None:
    await store.put("a", pieces(CONTENT))
    await store.put("a", pieces(b"new"))
    assert await get_bytes(store, "a") == b"new"
    assert await store.list("") == (Found("a", 3, (await store.list("a"))[0].modified_ns),)
    await store.delete("a")
    assert await store.list("") == ()


async def test_what_is_not_there(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing):
        await get_bytes(store, "a/b")
    await store.delete("a/b")
    await put_bytes(store, "a/b/c", b"x")
    with pytest.raises(ObjectMissing):
        await get_bytes(store, "a/b")


async def test_nothing_is_there_when_the_source_fails(store: ObjectStore) -> None:
    async def broken(size: int) -> AsyncGenerator[bytes, None]:
        async for piece in pieces(CONTENT[:size]):
            yield piece
        raise LookupError("the dump broke off")

    for size in (10, 5 * PART):
        with pytest.raises(LookupError, match="broke off"):
            await store.put("a/data", broken(size))
    assert await names(store) == []
    assert await store.sweep("", time.time_ns() + 10**12) == 0, "nothing is left to sweep either"


async def test_a_failed_one_leaves_what_was_there(store: ObjectStore) -> None:
    await put_bytes(store, "a/data", b"former")

    async def broken() -> AsyncGenerator[bytes, None]:
        yield CONTENT
        raise LookupError

    with pytest.raises(LookupError):
        await store.put("a/data", broken())
    assert await get_bytes(store, "a/data") == b"former"


async def test_nothing_is_there_when_it_is_cancelled(store: ObjectStore) -> None:
    reached = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        yield CONTENT
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.put("a/data", endless()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(store) == []


async def test_many_at_once(store: ObjectStore) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(store.put(f"a/{number}", pieces(CONTENT[number:])))
    for number in range(8):
        assert await get_bytes(store, f"a/{number}") == CONTENT[number:]
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(store.delete(f"a/{number}"))
    assert await names(store) == []


async def test_the_check_leaves_nothing(store: ObjectStore) -> None:
    await store.check()
    assert await names(store) == []
    assert await store.sweep("", time.time_ns() + 10**12) == 0


async def test_a_name_that_leads_elsewhere_is_refused(store: ObjectStore) -> None:
    for name in ("../a", "/etc/passwd", "a/../../b"):
        with pytest.raises(ValueError, match="not a name"):
            await put_bytes(store, name, b"x")
        with pytest.raises(ValueError, match="not a name"):
            await get_bytes(store, name)


async def test_it_says_where_it_is_and_no_secret(store: ObjectStore) -> None:
    assert store.where.startswith(("folder /", "s3://feedmill-test/home/backups/", "b2://feedmill-test/home/backups/"))
    assert "masterKey" not in store.where
