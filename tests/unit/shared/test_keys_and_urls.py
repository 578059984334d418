"""Redis keys of a shard, and URLs that are read without being repeated."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.shared.clock import iso
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.url import RedisUrl, RedisUrlError

names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@given(names, names, st.integers(0, 1000))
def test_shards_read_back(namespace: str, feed: str, number: int) -> None:
    shard = ShardRef(namespace, feed, number)
    assert ShardRef.parse(str(shard)) == shard
    keys = [shard.raw, shard.sessions, shard.events, shard.applied, shard.checkpoint, shard.images, shard.commands]
    assert len(set(keys)) == len(keys)
    # One hash tag: the part in the first braces decides the slot of a Redis Cluster.
    assert {re.search(r"\{(.*?)\}", key)[1] for key in [*keys, shard.lease("distributor")]} == {str(shard)}  # type: ignore[index]


def test_keys_as_written() -> None:
    shard = ShardRef("default", "spot", 3)
    assert shard.raw == "fm:{default.spot.3}:raw"
    assert shard.sessions == "fm:{default.spot.3}:raw:sessions"
    assert shard.events == "fm:{default.spot.3}:events"
    assert shard.applied == "fm:{default.spot.3}:events:applied"
    assert shard.lease("distributor") == "fm:{default.spot.3}:lease:distributor"


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "a.b.1.2", ".b.1", "a..1", "a.b.-1"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a shard: write namespace.feed.number"):
        ShardRef.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://localhost", RedisUrl("localhost", 6379)),
        ("redis://h:6380/2", RedisUrl("h", 6380, 2)),
        (" redis://h/0\n", RedisUrl("h", 6379)),
        ("redis://:p%40ss@h/1", RedisUrl("h", 6379, 1, None, "p@ss")),
        ("rediss://me:p%2Fw@h:1", RedisUrl("h", 1, 0, "me", "p/w", True)),
        ("rediss://h/0?ssl_ca_certs=/ca.pem", RedisUrl("h", 6379, 0, None, None, True, None, "/ca.pem")),
        ("redis://[::1]:7000/0", RedisUrl("::1", 7000)),
        ("unix:///run/redis.sock", RedisUrl("", 0, path="/run/redis.sock")),
        ("unix://:secret@/run/redis.sock?db=3", RedisUrl("", 0, 3, None, "secret", path="/run/redis.sock")),
    ],
)
def test_redis_urls(text: str, expected: RedisUrl) -> None:
    assert RedisUrl.parse(text) == expected


SECRET = "hunter2222"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"http://:{SECRET}@h", "does not begin with redis://"),
        (f"{SECRET}:@h", "does not begin with redis://"),
        (SECRET, "does not begin with redis://"),
        ("", "does not begin with redis://"),
        ("redis://", "names no host"),
        (f"redis://:{SECRET}/x@h:6379/0", "cannot be read"),
        (f"redis://:{SECRET}#x@h:6379/0", "cannot be read"),
        (f"redis://:{SECRET}?x@h:6379/0", "cannot be read"),
        (f"redis://user:12/{SECRET}@h/0", "database is not a number"),
        (f"redis://[{SECRET}@h/0", "cannot be read"),
        (f"redis://:{SECRET}@h:99999/0", "cannot be read"),
        (f"redis://:{SECRET}@h/0/1", "database is not a number"),
        (f"redis://:{SECRET}@h/²", "database is not a number"),
        (f"redis://:{SECRET}@h/12345678901234567890", "database is not a number"),
        (f"unix://:{SECRET}@/run/redis.sock?db={SECRET}", "database is not a number"),
    ],
)
def test_wrong_urls_are_not_repeated(text: str, said: str) -> None:
    with pytest.raises(RedisUrlError, match=said) as caught:
        RedisUrl.parse(text)
    assert SECRET not in str(caught.value)
    assert ": write " in str(caught.value)


def test_a_url_shows_no_credentials() -> None:
    for text in (f"redis://me:{SECRET}@h:1/2", f"rediss://me:{SECRET}@h:1/2", f"unix://:{SECRET}@/run/r.sock"):
        url = RedisUrl.parse(text)
        assert SECRET not in f"{url} {url!r}"
    assert str(RedisUrl.parse(f"rediss://me:{SECRET}@h:1/2")) == "rediss://h:1/2"
    assert RedisUrl.parse("redis://h").ssl_context() is None
    assert RedisUrl.parse("rediss://h").ssl_context() is not None


def test_times_as_text_keep_the_ns() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000000000Z"
    assert iso(1_795_496_400_123_456_789) == "2026-11-24T05:00:00.123456789Z"
