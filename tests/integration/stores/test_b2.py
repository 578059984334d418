"""What only B2 has: tokens that expire, upload addresses, application keys with limits, versions."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from b2_server import B2Server
from faults_http import Fault
from store_helpers import PART, PREFIX, bucket_of, remote

from feedmill.general.backup.stores.base import StoreRefused, get_bytes, put_bytes

CONTENT = bytes(range(256)) * 200
PARTS = -(-len(CONTENT) // PART)
CAN = ["listBuckets", "listFiles", "readFiles", "writeFiles", "deleteFiles"]


async def pieces(server: B2Server | None = None) -> AsyncGenerator[bytes, None]:
    """With a server: all tokens expire half-way."""
    for at in range(0, len(CONTENT), PART):
        if server is not None and at == 6 * PART:
            server.expire_tokens()
        yield CONTENT[at : at + PART]


async def test_a_token_that_expires_is_renewed_on_the_way(b2: B2Server) -> None:
    store = remote(bucket_of(b2))
    await store.put("a/data", pieces(b2))
    assert b2.faults.count("b2_authorize_account") >= 2
    assert b2.faults.count("b2_start_large_file") == 1
    b2.expire_tokens()
    assert await get_bytes(store, "a/data") == CONTENT
    b2.expire_tokens()
    assert [found.name for found in await store.list("")] == ["a/data"]
    await store.close()


@pytest.mark.parametrize("where", ["POST /upload/part/", "POST /upload/(?!part)"], ids=["part", "small"])
async def test_an_upload_address_that_is_no_good_any_more_is_replaced(b2: B2Server, where: str) -> None:
    b2.faults.add(Fault(where, times=1, status=401, code="expired_auth_token"), Fault(where, times=2, status=503))
    store = remote(bucket_of(b2))
    await store.put("a/data", pieces())
    await put_bytes(store, "a/small", b"x")
    assert await get_bytes(store, "a/data") == CONTENT
    assert await get_bytes(store, "a/small") == b"x"
    assert b2.faults.count(where) == (PARTS if "/part/" in where and "?!" not in where else 1) + 3
    await store.close()


async def test_a_rotated_application_key_is_read_again(b2: B2Server) -> None:
    key_id, key = b2.make_key(CAN)
    secrets = {"keyId": "gone", "applicationKey": "gone"}
    store = remote(bucket_of(b2, secrets))
    with pytest.raises(StoreRefused, match="check the application key"):
        await store.check()
    secrets |= {"keyId": key_id, "applicationKey": key}
    await store.check()
    await put_bytes(store, "a", b"x")
    await store.close()


async def test_the_check_names_what_the_key_may_not_do(b2: B2Server) -> None:
    key_id, key = b2.make_key(["listBuckets", "listFiles", "readFiles"])
    store = remote(bucket_of(b2, {"keyId": key_id, "applicationKey": key}))
    with pytest.raises(StoreRefused, match=r"lacks writeFiles: make one with listFiles, readFiles"):
        await store.check()
    with pytest.raises(StoreRefused, match="check the application key"):
        await put_bytes(store, "a", b"x")
    await store.close()


async def test_a_key_for_one_bucket_that_may_list_none(b2: B2Server) -> None:
    key_id, key = b2.make_key(["listFiles", "readFiles"], of_bucket=True)
    bucket = bucket_of(b2, {"keyId": key_id, "applicationKey": key})
    assert bucket._id == b2.bucket_id  # type: ignore[attr-defined]
    assert b2.faults.count("b2_list_buckets") == 0


async def test_a_key_that_may_not_delete_makes_backups(b2: B2Server) -> None:
    key_id, key = b2.make_key(["listBuckets", "listFiles", "readFiles", "writeFiles"])
    store = remote(bucket_of(b2, {"keyId": key_id, "applicationKey": key}))
    await store.check()
    await store.put("a/data", pieces())
    with pytest.raises(StoreRefused, match="check the application key"):
        await store.delete("a/data")
    assert await get_bytes(store, "a/data") == CONTENT
    await store.close()


async def test_the_check_compares_the_prefix_with_the_keys(b2: B2Server) -> None:
    key_id, key = b2.make_key(CAN, "other/")
    secrets = {"keyId": key_id, "applicationKey": key}
    store, fitting = remote(bucket_of(b2, secrets)), remote(bucket_of(b2, secrets, prefix="other/backups/"))
    with pytest.raises(StoreRefused, match="for names that begin with 'other/'"):
        await store.check()
    await fitting.check()
    await store.close()
    await fitting.close()


async def test_a_bucket_that_is_not_there_is_named(b2: B2Server) -> None:
    bucket = bucket_of(b2)
    bucket._bucket = "feedmill-none"  # type: ignore[attr-defined]
    store = remote(bucket)
    with pytest.raises(StoreRefused, match="there is no such bucket"):
        await store.check()
    await store.close()


async def test_deleting_leaves_no_version_behind(b2: B2Server) -> None:
    store = remote(bucket_of(b2))
    for content in (b"one", b"two", b"three"):
        await put_bytes(store, "a", content)
    await put_bytes(store, "ab", b"other")
    assert len(b2.versions()) == 4
    await store.delete("a")
    assert b2.versions() == [(f"{PREFIX}ab", "upload")]
    await store.close()
