"""Accounts' raw streams in a real Redis: each its own, dense, in order, once; through restarts, floods and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis_asyncio
from pydantic import SecretStr

from feedmill.exchanges.account_base import Credentials, Mend, Rejection
from feedmill.exchanges.registry import get_venue
from feedmill.local.embedded import EmbeddedRedis
from feedmill.receiver.accounts.lines import AccountLines
from feedmill.receiver.accounts.streams import AccountStreams
from feedmill.shared import control
from feedmill.shared.account_events import Fill
from feedmill.shared.account_keys import fill_key
from feedmill.shared.budget import ByteBudget, TokenBucket
from feedmill.shared.frames import RunKind, decode_batch
from feedmill.shared.keys import ShardRef, account_ref
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl
from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig, default_limits

NAMES = ("default/one", "default/two")


@asynccontextmanager
async def running(server: EmbeddedRedis, *, memory: int = 1 << 20, **fields: Any) -> AsyncIterator[AccountStreams]:
    streams = AccountStreams(RedisUrl.parse(server.url), "r0", ByteBudget(memory), log=get_logger(), **fields)
    task = asyncio.create_task(streams.run())
    try:
        yield streams
    finally:
        task.cancel()
        await asyncio.wait({task})


async def read(server: EmbeddedRedis, account: str) -> list[tuple[str, int, Any]]:
    """(session, number, what) of everything in the account's stream, in order; numbers are checked to be dense."""
    client = redis_asyncio.from_url(server.url)
    try:
        entries = await client.xrange(account_ref(account).raw)
    finally:
        await client.aclose()
    found, numbers = [], {}
    for _, fields in entries:
        batch = decode_batch(fields[b"b"])
        assert batch.n == numbers.get(batch.session, 0) + 1
        numbers[batch.session] = batch.n
        for run in batch.runs:
            for payload in run.frames:
                what = control.decode_control(payload) if run.kind == RunKind.CONTROL else payload
                found.append((batch.session, run.conn, what))
    return found


def frames(found: list[tuple[str, int, Any]]) -> list[bytes]:
    return [what for _, _, what in found if isinstance(what, bytes)]


def test_streams_of_accounts_are_apart_from_those_of_feeds() -> None:
    assert account_ref("default/main") == ShardRef("default", "@main", 0)
    assert ShardRef.parse(str(account_ref("default/main"))) == account_ref("default/main")
    for wrong in ("main", "/main", "a/", "a/b/c", ""):
        with pytest.raises(ValueError, match="write namespace/name"):
            account_ref(wrong)


async def test_each_account_has_its_own_stream_in_order(redis_server: EmbeddedRedis) -> None:
    async with running(redis_server) as streams:
        for name in NAMES:
            streams.open(name)
            streams.ready(name)
        for at in range(200):
            streams.frame(NAMES[at % 2], 1000 + at, b"frame %d" % at)
        streams.lost(NAMES[0], "expired", Rejection(Mend.RENEW, -1125, "the listen key has ended"))
        streams.ready(NAMES[0])
        streams.frame("default/unknown", 1, b"of nobody")
        streams.close(NAMES[1])
        await streams.settled()
        one, two = [await read(redis_server, name) for name in NAMES]
        assert frames(one) == [b"frame %d" % at for at in range(0, 200, 2)]
        assert frames(two) == [b"frame %d" % at for at in range(1, 200, 2)]
        kinds = [type(what).__name__ for _, _, what in one if not isinstance(what, bytes)]
        assert kinds == ["Session", "Connected", "Disconnected", "Connected"]
        lost = next(what for _, _, what in one if isinstance(what, control.Disconnected))
        assert (lost.conn, lost.cause, lost.detail) == (1, "expired", "-1125: the listen key has ended")
        assert isinstance(two[-1][2], control.SessionEnd)
        assert {conn for _, conn, what in one if isinstance(what, bytes)} == {1}


async def test_a_restarted_server_gets_everything_once(redis_server: EmbeddedRedis) -> None:
    async with running(redis_server) as streams:
        sent = 0
        streams.open(NAMES[0])
        for life in range(3):
            for _ in range(50):
                streams.frame(NAMES[0], 1, b"%d" % sent)
                sent += 1
            if life < 2:
                await (asyncio.to_thread(redis_server.kill) if life else asyncio.to_thread(redis_server.stop))
                for _ in range(50):
                    streams.frame(NAMES[0], 1, b"%d" % sent)
                    sent += 1
                await asyncio.to_thread(redis_server.start)
        await streams.settled()
        assert streams.problem == "" or streams.idle
        assert frames(await read(redis_server, NAMES[0])) == [b"%d" % at for at in range(sent)]


async def test_a_server_that_forgot_everything_is_told_what_is_lost(redis_server: EmbeddedRedis) -> None:
    async with running(redis_server, hold=0.0) as streams:
        streams.open(NAMES[0])
        streams.frame(NAMES[0], 1, b"gone")
        await streams.settled()
        async with asyncio.timeout(60):
            while streams._streams[NAMES[0]].producer.backlog.bytes:
                await asyncio.sleep(0.01)
        before = streams._streams[NAMES[0]].producer.id
        client = redis_asyncio.from_url(redis_server.url)
        await client.flushall()
        await client.aclose()
        streams.frame(NAMES[0], 1, b"kept")
        await streams.settled()
        found = await read(redis_server, NAMES[0])
        assert frames(found) == [b"kept"]
        first = found[0][2]
        assert isinstance(first, control.Session)
        assert first.lost_session == before


async def test_what_does_not_fit_while_redis_is_away_is_told(redis_server: EmbeddedRedis) -> None:
    async with running(redis_server, memory=200_000, hold=0.0) as streams:
        streams.open(NAMES[0])
        await streams.settled()
        await asyncio.to_thread(redis_server.stop)
        for at in range(500):
            streams.frame(NAMES[0], at + 1, b"%04d" % at + b"x" * 996)
        assert streams._budget.used < 200_000
        await asyncio.to_thread(redis_server.start)
        async with asyncio.timeout(60):
            while streams._budget.used > 50_000:
                await asyncio.sleep(0.01)
        streams.frame(NAMES[0], 501, b"after")
        await streams.settled()
        found = await read(redis_server, NAMES[0])
        kept = frames(found)
        (shed,) = [what for _, _, what in found if isinstance(what, control.Shed)]
        assert kept[-1] == b"after"
        assert len(kept) - 1 + shed.frames == 500
        assert (shed.from_ns, shed.to_ns) == (len(kept), 500)


@pytest.mark.parametrize("name", ["binance/Spot", "binance/UsdM", "deribit/Derivatives"])
async def test_from_the_venue_to_the_streams_without_a_secret(
    redis_server: EmbeddedRedis, tmp_path: Path, name: str
) -> None:
    made = VenueConfig(name, limits=default_limits(name), rate=1, accounts=3, account_rate=0.0)
    async with (
        Simulator(SimulatorConfig((made,), ledger=tmp_path / "ledger", id_base=1000)) as sim,
        running(redis_server) as streams,
    ):
        side = sim.venues[name].private
        venue = get_venue(*name.split("/")).accounts
        assert venue is not None
        lines = AccountLines(
            venue, *sim.endpoints[name], streams, weight=TokenBucket(5000, 100), connects=TokenBucket(100, 100),
            silence=60.0, min_backoff=0.05, max_backoff=0.2, log=get_logger(),
        )  # fmt: skip
        listening = asyncio.create_task(lines.run())
        accounts = {f"default/{account}": account for account in side.accounts}
        for known, account in accounts.items():
            key = next(key for key in side.keys.of(account) if key.kind == "hmac")
            streams.open(known)
            lines.add(known, Credentials(SecretStr(key.id), SecretStr(key.secret)))
        async with asyncio.timeout(60):
            while lines.ready != set(accounts):
                await asyncio.sleep(0.01)
        mapper = venue.mapper({native: each.symbol for native, each in side.listings.items()})
        side.step(300)
        await sim.drained()
        text = (tmp_path / "ledger" / f"{name.replace('/', '-')}.fills.tsv").read_text("utf-8")
        rows = [line.split("\t") for line in text.splitlines()]
        for known, account in accounts.items():
            wanted = {tuple(row[1:4]) for row in rows if row[0] == account}
            assert len(wanted) > 5
            async with asyncio.timeout(60):
                got: set[Any] = set()
                while got != wanted:
                    events = [event for raw in frames(await read(redis_server, known)) for event in mapper.map(raw, 1)]
                    got = {fill_key(event) for event in events if isinstance(event, Fill)}
        secrets = [text for key in side.keys.by_id.values() for text in (key.id, key.secret) if text]
        if name == "binance/UsdM":
            secrets += [key.text for key in side.listen_keys.all()]
        if name.startswith("deribit"):
            secrets += list(sim.venues[name].tokens._by_text)
        listening.cancel()
        await asyncio.wait({listening})
        client = redis_asyncio.from_url(redis_server.url)
        everything = b"".join(
            [
                bytes(repr(await client.xrange(key)), "latin-1") if b":raw" in key and b"sessions" not in key else key
                for key in await client.keys("*")
            ]
        )
        await client.aclose()
        assert b"instrument" in everything or b"executionReport" in everything or b"TRADE" in everything
        assert [secret for secret in secrets if secret.encode() in everything] == []
