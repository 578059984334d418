"""Commands are read over a real server whose connection ends while one of them is claimed: each is carried out once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio as redis_asyncio

from feedmill.local.embedded import EmbeddedRedis
from feedmill.receiver.commands import CommandReader
from feedmill.shared.breaker import Breaker
from feedmill.shared.clock import now_ns
from feedmill.shared.control import Command, encode
from feedmill.shared.keys import ShardRef
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, WireClosed

SHARD = ShardRef("default", "spot", 0)
NAMES = ["one", "two", "three"]


@pytest.mark.parametrize("server_has_it", [True, False])
async def test_a_command_whose_claim_gets_no_answer_is_carried_out_once(
    redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch, server_has_it: bool
) -> None:
    client: Any = redis_asyncio.Redis.from_url(redis_server.url)
    for name in NAMES:
        command = Command(name, "trades", "BTC-USDT", "BTCUSDT", "Trades", now_ns())
        await client.xadd(SHARD.commands, {"c": encode(command)})
    real, claims = Wire.run, [0]

    async def run(self: Wire, *arguments: Any) -> Any:
        claims[0] += 1
        if claims[0] != 2:
            return await real(self, *arguments)
        if server_has_it:
            assert await real(self, *arguments) == 1
        self.abort()
        raise WireClosed("the server closed the connection")

    monkeypatch.setattr(Wire, "run", run)
    done: list[str] = []
    breaker = Breaker("redis", fail_max=5, reset_timeout=0.3)
    reader = CommandReader(
        RedisUrl.parse(redis_server.url), SHARD, breaker, lambda command: done.append(command.id),
        session=lambda: "r0-1", log=get_logger(),
    )  # fmt: skip
    task = asyncio.create_task(reader.run())
    try:
        async with asyncio.timeout(60):
            while len(done) < len(NAMES):
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert done == NAMES
    assert claims == [4]
    # Another replica leaves them alone.
    other = CommandReader(
        RedisUrl.parse(redis_server.url), SHARD, breaker, lambda command: done.append(command.id),
        session=lambda: "r1-1", log=get_logger(),
    )  # fmt: skip
    task = asyncio.create_task(other.run())
    try:
        async with asyncio.timeout(60):
            while claims[0] < 4 + len(NAMES):
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()
    assert done == NAMES
