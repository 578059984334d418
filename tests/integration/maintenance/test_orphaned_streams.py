"""Streams of feeds and accounts that are gone: removed when drained and old, kept and told when not; others stay."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis_asyncio

from feedmill.general.maintenance import run
from feedmill.general.maintenance.report import Report
from feedmill.general.maintenance.settings import Settings
from feedmill.general.maintenance.streams import Cleaner
from feedmill.local.embedded import EmbeddedRedis
from feedmill.shared.clock import now_ns
from feedmill.shared.keys import ShardRef, account_ref, feeds_key
from feedmill.shared.partitions import DAY_NS
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import connect
from feedmill.shared.selection.record import record_key

PIPELINE = ("default", "main")
GONE, HERE = ("default", "gone"), ("default", "here")
OLD = (time.time_ns() - 8 * DAY_NS) // 1_000_000
"""ms since the epoch."""


class Place:
    """A Redis and a database in which shards are laid down as the services leave them."""

    def __init__(self, client: Any, url: RedisUrl, connection: asyncpg.Connection) -> None:
        self.client = client
        self.url = url
        self.connection = connection

    async def lay_down(self, ref: ShardRef, *, at_ms: int = OLD, raw: int = 3, dispatched: int = 3, events: int = 2,
                       stored: int | None = 2, owner: str = "") -> None:  # fmt: skip
        """``raw``, ``events``: entries; ``dispatched``, ``stored``: how many of them (None = no position)."""
        for number in range(1, raw + 1):
            await self.client.xadd(ref.raw, {"b": b"x" * 100}, id=f"{at_ms}-{number}")
        for number in range(1, events + 1):
            await self.client.xadd(ref.events, {"n": number}, id=f"{at_ms}-{number}")
        await self.client.hset(ref.sessions, mapping={"s": raw})
        await self.client.hset(
            ref.checkpoint, mapping={"id": "c1", "pos": f"{at_ms}-{dispatched}", "t:BTC-USDT": b"\x00"}
        )
        await self.client.hset(ref.images, mapping={"BTC-USDT": b"image"})
        await self.client.set(ref.key("raw:confirm:r0"), "3")
        if owner:
            await self.client.set(ref.owner, owner)
        if stored is not None:
            await self.connection.execute(
                "INSERT INTO applied (shard, n, commit_id, stream_id) VALUES ($1, $2, 'c1', $3)",
                *(str(ref), stored, f"{at_ms}-{stored}"),
            )

    async def listed(
        self, pipeline: tuple[str, str], feed: tuple[str, str], shards: int = 1, *, days: float = 8
    ) -> None:
        seen = now_ns() - int(days * DAY_NS)
        await self.client.hset(feeds_key(pipeline), ".".join(feed), f"{shards} {seen}")

    async def keys(self, pattern: str = "*") -> set[str]:
        return {key.decode() for key in await self.client.keys(pattern)}

    async def content(self) -> dict[str, Any]:
        """Of everything, to be compared."""
        found: dict[str, Any] = {key: await self.client.dump(key) for key in sorted(await self.keys())}
        found["applied"] = [tuple(row) for row in await self.connection.fetch("SELECT * FROM applied ORDER BY 1")]
        return found

    async def positions(self) -> set[str]:
        return {row["shard"] for row in await self.connection.fetch("SELECT shard FROM applied")}

    async def clean(self, *, dry_run: bool = False, feeds: Sequence[tuple[str, str]] = (HERE,)) -> Report:
        settings = Settings(PIPELINE, {}, 0, 0, dict.fromkeys(feeds, 1))
        report = Report(dry_run=dry_run)
        wire = await connect(self.url, name="test")
        try:
            await Cleaner(wire, self.connection, settings, now_ns(), report).run()
        finally:
            wire.abort()
        return report

    async def forget(self, feed: tuple[str, str]) -> Report:
        settings = Settings(PIPELINE, {}, 0, 0, {HERE: 1})
        return await run.forget(self.connection, self.url, settings, now_ns(), feed, dry_run=False)


@pytest.fixture
async def place(redis_server: EmbeddedRedis, connection: asyncpg.Connection) -> AsyncIterator[Place]:
    client: Any = redis_asyncio.Redis.from_url(redis_server.url)
    yield Place(client, RedisUrl.parse(redis_server.url), connection)
    await client.aclose()


def shards(feed: tuple[str, str], count: int) -> list[ShardRef]:
    return [ShardRef(*feed, number) for number in range(count)]


async def test_what_is_gone_drained_and_old_goes_and_nothing_else(place: Place) -> None:
    gone = shards(GONE, 2)
    stranger, here, young = ShardRef("default", "stranger", 0), ShardRef(*HERE, 0), ShardRef("default", "young", 0)
    for ref in (*gone, stranger, here):
        await place.lay_down(ref)
    await place.lay_down(young, at_ms=time.time_ns() // 1_000_000 - 1000)
    await place.listed(PIPELINE, GONE, 2)
    await place.listed(PIPELINE, ("default", "young"))
    await place.client.hset(record_key(GONE), mapping={"version": "1", "list": "[]"})
    await place.client.set("theirs:{default.gone.0}", "the user's own")
    before = await place.content()
    would = await place.clean(dry_run=True)
    assert await place.content() == before
    report = await place.clean()
    assert report.removed == would.removed
    assert list(report.removed) == ["default/gone"]
    assert 500 < report.removed["default/gone"] < 100_000
    assert report.kept == {}
    assert await place.keys("*gone*") == {"theirs:{default.gone.0}"}
    after = await place.content()
    listed = feeds_key(PIPELINE)
    assert {key: value for key, value in after.items() if key not in ("applied", listed)} == {
        key: value for key, value in before.items()
        if key not in ("applied", listed, record_key(GONE)) and not key.startswith("fm:{default.gone.")
    }  # fmt: skip
    assert await place.positions() == {str(ref) for ref in (stranger, here, young)}
    assert set(await place.client.hkeys(listed)) == {b"default.here", b"default.young"}
    # There is nothing left to do.
    assert (await place.clean()).removed == {}


async def test_the_list_is_kept_by_the_manifests(place: Place) -> None:
    assert (await place.clean(feeds=(HERE, GONE))).removed == {}
    await place.lay_down(ShardRef(*GONE, 0))
    # Gone since a moment ago: it has a week.
    assert (await place.clean()).removed == {}
    await place.listed(PIPELINE, GONE)
    # Back again: its time begins anew.
    assert (await place.clean(feeds=(HERE, GONE))).removed == {}
    assert (await place.clean()).removed == {}
    assert await place.keys("fm:{default.gone.0}:*")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"dispatched": 2}, "captured frames were not dispatched (3 entries)"),
        ({"stored": 1}, "events were not stored (2 entries)"),
        ({"stored": None}, "events were not stored (2 entries)"),
    ],
    ids=str,
)
async def test_what_is_not_drained_stays_until_it_is_given_up(place: Place, changed: dict[str, Any], why: str) -> None:
    first, second = shards(GONE, 2)
    await place.lay_down(first)
    await place.lay_down(second, **changed)
    await place.listed(PIPELINE, GONE, 2)
    before = await place.content()
    report = await place.clean()
    assert (report.kept, report.removed) == ({"default/gone": why}, {})
    after = await place.content()
    listed = feeds_key(PIPELINE)
    assert before | {listed: 0} == after | {listed: 0}
    assert await place.connection.fetch("SELECT id FROM gaps") == []
    forgotten = await place.forget(GONE)
    assert list(forgotten.removed) == ["default/gone"]
    # What is lost is told.
    [row] = await place.connection.fetch("SELECT shard, cause, state, from_ns, to_ns FROM gaps")
    assert (row["shard"], row["cause"], row["state"]) == ("default.gone.1", "forgotten", "closed")
    assert (row["from_ns"], row["to_ns"]) == (None if changed.get("stored", 0) is None else OLD * 10**6, OLD * 10**6)
    assert await place.keys("fm:{default.gone.*") == set()
    assert await place.positions() == set()
    assert (await place.clean()).kept == {}


async def test_a_feed_that_was_never_listed_can_be_forgotten(place: Place) -> None:
    await place.lay_down(ShardRef("default", "stranger", 3))
    await place.lay_down(ShardRef("default", "stranger2", 0))
    report = await place.forget(("default", "stranger"))
    assert list(report.removed) == ["default/stranger"]
    assert await place.keys("fm:{*.*.*}:raw") == {"fm:{default.stranger2.0}:raw"}
    assert await place.positions() == {"default.stranger2.0"}


@pytest.mark.parametrize("role", ["distributor", "processor"])
async def test_what_a_process_works_on_is_left_alone(place: Place, role: str) -> None:
    ref = ShardRef(*GONE, 0)
    await place.lay_down(ref)
    await place.listed(PIPELINE, GONE)
    await place.client.set(ref.lease(role), "somebody/1", px=60_000)
    before = await place.content()
    report = await place.clean()
    assert (report.kept, report.removed) == ({}, {})
    report = await place.forget(GONE)
    assert (report.kept, report.removed) == ({"default/gone": "a process works on it: stop it first"}, {})
    listed = feeds_key(PIPELINE)
    assert before | {listed: 0} == await place.content() | {listed: 0}


async def test_a_feed_that_went_to_another_pipeline_is_theirs(place: Place) -> None:
    await place.lay_down(ShardRef(*GONE, 0))
    await place.listed(PIPELINE, GONE, days=9)
    other = ("default", "other")
    await place.listed(other, GONE, days=8)
    report = await place.clean()
    assert (report.kept, report.removed) == ({}, {})
    assert await place.keys("fm:{default.gone.0}:raw")
    assert await place.client.hkeys(feeds_key(PIPELINE)) == [b"default.here"]
    # What they had before us is ours.
    await place.listed(PIPELINE, GONE, days=7.5)
    assert list((await place.clean()).removed) == ["default/gone"]


async def test_who_comes_back_between_the_look_and_the_removal_keeps_its_streams(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = ShardRef(*GONE, 0)
    await place.lay_down(ref)
    await place.listed(PIPELINE, GONE)
    count = Cleaner._bytes

    async def comes_back(self: Cleaner, keys: Sequence[bytes]) -> int:
        await place.client.xadd(ref.raw, {"b": b"new"})
        return await count(self, keys)

    monkeypatch.setattr(Cleaner, "_bytes", comes_back)
    report = await place.clean()
    assert (report.kept, report.removed) == ({"default/gone": "somebody began to work on it meanwhile"}, {})
    assert await place.client.xlen(ref.raw) == 4
    assert await place.positions() == {str(ref)}


async def test_a_run_that_is_cut_off_is_ended_by_the_next(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.lay_down(ShardRef(*GONE, 0))
    await place.listed(PIPELINE, GONE)
    real = place.connection

    class Cut:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        async def execute(self, statement: str, *values: Any) -> str:
            raise ConnectionError("cut off")

    place.connection = Cut()  # type: ignore[assignment]
    with pytest.raises(ConnectionError):
        await place.clean()
    place.connection = real
    assert await place.keys("fm:{default.gone.*") == set()
    assert await place.positions() == {"default.gone.0"}
    assert list((await place.clean()).removed) == ["default/gone"]
    assert await place.positions() == set()
    assert await place.client.hkeys(feeds_key(PIPELINE)) == [b"default.here"]


async def test_streams_of_removed_accounts(place: Place) -> None:
    async def account(name: str, removed: str) -> int:
        number = await place.connection.fetchval(
            "INSERT INTO accounts (namespace, name, exchange, market, environment, origin, enabled, removed_at)"
            f" VALUES ('default', $1, 'binance', 'Spot', 'Production', 'store', false, {removed}) RETURNING id",
            name,
        )
        return int(number)

    long_ago = "now() - interval '8 days'"
    removed = await account("removed", long_ago)
    await place.lay_down(account_ref("default/removed"), owner=str(removed))
    again = [await account("again", long_ago), await account("again", "NULL")]
    await place.lay_down(account_ref("default/again"), owner=str(again[0]))
    undrained = await account("undrained", long_ago)
    await place.lay_down(account_ref("default/undrained"), owner=str(undrained), stored=1)
    await account("nothing", long_ago)
    await account("lately", "now() - interval '6 days'")
    await place.lay_down(account_ref("default/lately"))
    report = await place.clean()
    assert list(report.removed) == ["account default/removed"]
    assert report.kept == {"account default/undrained": "events were not stored (2 entries)"}
    left = {"default.@again.0", "default.@undrained.0", "default.@lately.0"}
    assert await place.positions() == left
    assert await place.keys("fm:{*@*}:raw") == {f"fm:{{{shard}}}:raw" for shard in left}
    assert await place.keys("*removed*") == set()


async def test_a_server_with_many_keys_of_others(place: Place) -> None:
    async with place.client.pipeline(transaction=False) as pipe:
        for number in range(20_000):
            pipe.set(f"theirs:{number}", "x")
        await pipe.execute()
    await place.lay_down(ShardRef(*GONE, 0))
    await place.listed(PIPELINE, GONE)
    assert list((await place.clean()).removed) == ["default/gone"]
    assert len(await place.keys("theirs:*")) == 20_000
