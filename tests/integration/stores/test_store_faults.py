"""S3 and B2 over HTTP when the server, the network or the credentials fail: parts are repeated alone, nothing is lost,
nothing half-done is seen, and who can mend it is told what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest
from b2_server import B2Server
from faults_http import Fault
from pydantic import SecretStr
from s3_server import S3Server
from store_helpers import PART, PREFIX, bucket_of, remote

from feedmill.general.backup.stores import b2 as b2_module
from feedmill.general.backup.stores import s3 as s3_module
from feedmill.general.backup.stores.base import (
    ObjectMissing,
    StoreAway,
    StoreFull,
    StoreRefused,
    get_bytes,
    put_bytes,
)
from feedmill.general.backup.stores.remote import PARALLEL, RemoteStore

CONTENT = bytes(range(256)) * 200
PARTS = -(-len(CONTENT) // PART)
Server = S3Server | B2Server

B2_CAN = ["listBuckets", "listFiles", "readFiles", "writeFiles", "deleteFiles"]
PART_SENT = r"PUT .*partNumber=|POST /upload/part/"
BEGUN = r"POST .*\?uploads|b2_start_large_file"
FINISHED = r"POST .*uploadId=|b2_finish_large_file"
SMALL_SENT = r"PUT /feedmill-test/[^?]*$|POST /upload/(?!part)"
READ = r"GET /feedmill-test/home|GET /file/"
LISTED = r"GET /feedmill-test\?list-type|b2_list_file_names"


async def pieces(content: bytes = CONTENT) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(content), 777):
        yield content[at : at + 777]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(PART_SENT, times=3, status=503),
        Fault(PART_SENT, times=2, status=500, code="InternalError"),
        Fault(PART_SENT, times=2, status=429, code="SlowDown"),
        Fault(PART_SENT, times=1, unanswered=True),
    ],
    ids=["503", "500", "429", "no answer"],
)
async def test_a_part_that_fails_is_sent_again_alone(server: Server, remote_store: RemoteStore, fault: Fault) -> None:
    failing = fault.times
    server.faults.add(fault)
    await remote_store.put("a/data", pieces())
    assert await get_bytes(remote_store, "a/data") == CONTENT
    assert server.faults.count(PART_SENT) == PARTS + failing
    assert server.faults.count(BEGUN) == 1


@pytest.mark.parametrize(
    "where", [SMALL_SENT, BEGUN, FINISHED, LISTED, READ], ids=["small", "begin", "finish", "list", "read"]
)
async def test_every_other_request_is_repeated_too(server: Server, remote_store: RemoteStore, where: str) -> None:
    server.faults.add(Fault(where, times=2, status=503))
    await put_bytes(remote_store, "a/small", b"x")
    await remote_store.put("a/data", pieces())
    assert [found.name for found in await remote_store.list("a/")] == ["a/data", "a/small"]
    assert await get_bytes(remote_store, "a/data") == CONTENT
    assert server.faults.count(where) >= 3


async def test_a_finish_whose_answer_was_lost_counts(server: Server, remote_store: RemoteStore) -> None:
    server.faults.add(Fault(FINISHED, unanswered=True))
    await remote_store.put("a/data", pieces())
    assert server.faults.count(FINISHED) == 2
    assert await get_bytes(remote_store, "a/data") == CONTENT
    assert server.versions() == [(f"{PREFIX}a/data", "upload")]


async def test_reading_goes_on_where_it_was_cut(server: Server, remote_store: RemoteStore) -> None:
    await remote_store.put("a/data", pieces())
    server.faults.add(Fault(READ, cut_after=30_000), Fault(READ, cut_after=0), Fault(READ, cut_after=20_000))
    assert await get_bytes(remote_store, "a/data") == CONTENT
    assert server.faults.count(READ) == 4


async def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(server: Server) -> None:
    store = remote(bucket_of(server))
    await store.put("a/data", pieces())
    server.faults.add(Fault(READ, cut_after=30_000))
    reading = store.get("a/data")
    await anext(reading)
    await store.put("a/data", pieces(CONTENT[::-1]))
    with pytest.raises(ObjectMissing, match="was replaced"):
        async for _ in reading:
            pass
    await store.close()


async def test_an_object_that_is_replaced_by_a_shorter_one_is_told_so(server: Server) -> None:
    store = remote(bucket_of(server))
    await store.put("a/data", pieces())
    server.faults.add(Fault(READ, cut_after=30_000))
    reading = store.get("a/data")
    await anext(reading)
    await put_bytes(store, "a/data", b"short")
    with pytest.raises(ObjectMissing):
        async for _ in reading:
            pass
    await store.close()


async def test_credentials_that_are_rotated_while_parts_are_on_their_way(server: Server) -> None:
    rotated = asyncio.Event()

    class Secrets(dict[str, str]):
        """The server refuses what comes with the former ones, and they are used until the newer ones are read."""

        def __getitem__(self, key: str) -> str:
            if rotated.is_set():
                server.faults.clear()
            return super().__getitem__(key)

    code, secrets = "InvalidAccessKeyId", Secrets(accessKeyId="former", secretAccessKey="x")
    if isinstance(server, B2Server):
        code, secrets = "unauthorized", Secrets(zip(("keyId", "applicationKey"), server.make_key(B2_CAN), strict=True))
    store = remote(bucket_of(server, secrets))

    async def source() -> AsyncGenerator[bytes, None]:
        async for piece in pieces():
            if not rotated.is_set() and server.faults.count(PART_SENT) >= PARALLEL:
                newer = server.make_key(B2_CAN) if isinstance(server, B2Server) else ("newer", "y")
                secrets.update(zip(secrets, newer, strict=True))
                server.faults.add(Fault(PART_SENT, times=10**6, status=401, code=code))
                rotated.set()
            yield piece

    await store.put("a/data", source())
    assert rotated.is_set()
    assert server.faults.count(PART_SENT) > PARTS
    assert await get_bytes(store, "a/data") == CONTENT
    assert server.faults.count(BEGUN) == 1
    await store.close()


async def test_a_server_that_hangs_up_within_tls_is_away() -> None:
    hung_up = 0

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hung_up
        hung_up += 1
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    secrets = dict.fromkeys(("accessKeyId", "secretAccessKey", "keyId", "applicationKey"), "x")

    def read(key: str) -> SecretStr:
        return SecretStr(secrets[key])

    for bucket in (
        s3_module.S3Bucket("bucket", "", read, region="us-east-1", endpoint=url, path_style=True),
        b2_module.B2Bucket("bucket", "", read, realm=url),
    ):
        once, again = remote(bucket, patience=0.0), remote(bucket, patience=10.0**6)
        with pytest.raises(StoreAway):
            await once.check()
        before = hung_up
        asking = asyncio.create_task(again.check())
        async with asyncio.timeout(60):
            while hung_up < before + 2:
                assert not asking.done(), "it is tried again"
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await once.close()
        await again.close()
    server.close()
    await server.wait_closed()


async def test_a_store_that_stays_away_is_told_and_leaves_nothing_visible(server: Server) -> None:
    store = remote(bucket_of(server), patience=0.3)
    server.faults.add(Fault(PART_SENT, times=10**6, status=503))
    with pytest.raises(StoreAway, match=r"503|ServiceError"):
        await store.put("a/data", pieces())
    assert await store.list("") == ()
    assert server.versions() == []
    await store.close()


async def test_retry_after_is_honoured(server: Server) -> None:
    store = remote(bucket_of(server), patience=5.0)
    server.faults.add(Fault(LISTED, status=503, headers={"Retry-After": "60"}))
    with pytest.raises(StoreAway) as caught:
        await store.list("")
    assert caught.value.retry_after == 60
    assert server.faults.count(LISTED) == 1, "waiting would take longer than the patience"
    await store.close()


async def test_a_server_that_accepts_and_never_answers_is_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(b2_module, "ANSWER_SECONDS", 3.0)
    monkeypatch.setattr(s3_module, "ANSWER_SECONDS", 3.0)
    store, hold = remote(bucket_of(server), patience=60.0), threading.Event()
    server.faults.add(Fault(PART_SENT, times=1, hold=hold))
    try:
        await store.put("a/data", pieces())
        assert server.faults.count(PART_SENT) > PARTS
        assert await get_bytes(store, "a/data") == CONTENT
    finally:
        hold.set()
        await store.close()


async def test_slow_uploads_hold_the_source_back(server: Server, remote_store: RemoteStore) -> None:
    hold, made = threading.Event(), 0
    server.faults.add(Fault(PART_SENT, times=10**6, hold=hold))

    async def counted() -> AsyncGenerator[bytes, None]:
        nonlocal made
        async for piece in pieces(CONTENT * 4):
            made += len(piece)
            yield piece

    task = asyncio.create_task(remote_store.put("a/data", counted()))
    try:
        async with asyncio.timeout(60):
            while server.faults.count(PART_SENT) < PARALLEL:
                await asyncio.sleep(0.005)
            # The part that waits for room, and the one that is being filled.
            while made < (PARALLEL + 1) * PART:
                await asyncio.sleep(0.005)
        before = made
        assert not task.done()
        assert before <= (PARALLEL + 2) * PART
        assert server.faults.count(PART_SENT) == PARALLEL
    finally:
        hold.set()
    await task
    assert made == 4 * len(CONTENT)
    assert await get_bytes(remote_store, "a/data") == CONTENT * 4


async def test_a_slow_upload_does_not_hold_the_loop(server: Server, remote_store: RemoteStore) -> None:
    hold = threading.Event()
    server.faults.add(Fault(SMALL_SENT, hold=hold))
    task = asyncio.create_task(put_bytes(remote_store, "a/small", b"x"))
    async with asyncio.timeout(60):
        while not server.faults.count(SMALL_SENT):
            await asyncio.sleep(0.005)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not task.done(), "the loop went on while the server did not answer"
    hold.set()
    await task


async def test_refused_credentials_say_so_and_are_not_repeated(server: Server) -> None:
    code = "AccessDenied" if isinstance(server, S3Server) else "unauthorized"
    server.faults.add(Fault(r"POST .*b2_authorize_account|GET /feedmill-test", times=10**6, status=403, code=code))
    store = remote(bucket_of(server))
    with pytest.raises(StoreRefused) as caught:
        await store.list("")
    assert len(server.faults.asked) == 1
    assert "masterKey" not in str(caught.value)
    await store.close()


async def test_a_full_store_says_so(server: Server, remote_store: RemoteStore) -> None:
    code = "QuotaExceeded" if isinstance(server, S3Server) else "storage_cap_exceeded"
    server.faults.add(Fault(PART_SENT, times=10**6, status=403, code=code))
    with pytest.raises(StoreFull, match="keep fewer backups"):
        await remote_store.put("a/data", pieces())
    assert await remote_store.list("") == ()


async def test_an_upload_that_was_cut_off_is_swept(server: Server, remote_store: RemoteStore) -> None:
    bucket = bucket_of(server)
    for name in ("n/p/old", "n/q/old"):
        await asyncio.to_thread(bucket.part, *await begun(bucket, name), 1, b"x" * PART)
    assert await remote_store.list("") == ()
    assert await remote_store.sweep("n/p/", 0) == 0, "none is as old as that"
    assert await remote_store.sweep("n/p/", 10**19) == 1
    assert server.versions() == [(f"{PREFIX}n/q/old", "start")]


async def begun(bucket: object, name: str) -> tuple[str, str]:
    key = PREFIX + name
    return key, await asyncio.to_thread(bucket.begin, key)  # type: ignore[attr-defined]


async def test_a_prefix_is_a_folder_of_its_own(server: Server) -> None:
    one, other = remote(bucket_of(server, prefix="one/")), remote(bucket_of(server, prefix=""))
    await put_bytes(one, "a", b"x")
    assert [found.name for found in await other.list("")] == ["one/a"]
    assert [found.name for found in await one.list("")] == ["a"]
    await one.close()
    await other.close()
