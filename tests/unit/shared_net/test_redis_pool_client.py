"""The redis-py pool behind the breaker, against a real server."""

from __future__ import annotations

import pytest
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from feedmill.local.embedded import EmbeddedRedis
from feedmill.shared.breaker import Breaker, BreakerOpen
from feedmill.shared.redis.pool import RedisPool, is_failure
from feedmill.shared.redis.url import RedisUrl


async def test_commands_pass_and_wrong_ones_do_not_count(redis_server: EmbeddedRedis) -> None:
    breaker = Breaker("redis", fail_max=2)
    pool = RedisPool(RedisUrl.parse(redis_server.url), breaker, name="test", timeout=60.0)
    try:
        assert await pool.execute("SET", "a", b"\x00\xff")
        assert await pool.execute("GET", "a") == b"\x00\xff"
        for _ in range(3):
            with pytest.raises(ResponseError):
                await pool.execute("LPUSH", "a", "x")
        assert (breaker.state, breaker.failures) == ("closed", 0)
    finally:
        await pool.close()


async def test_a_server_that_is_gone_opens_the_breaker(redis_server: EmbeddedRedis) -> None:
    breaker = Breaker("redis", fail_max=2)
    pool = RedisPool(RedisUrl.parse(redis_server.url), breaker, name="test", timeout=60.0)
    try:
        await pool.execute("PING")
        redis_server.kill()
        for _ in range(2):
            with pytest.raises((RedisError, OSError)):
                await pool.execute("PING")
        with pytest.raises(BreakerOpen):
            await pool.execute("PING")
    finally:
        await pool.close()


def test_what_speaks_against_the_server() -> None:
    assert is_failure(ResponseError("OOM command not allowed"))
    assert is_failure(ResponseError("READONLY You can't write"))
    assert is_failure(AuthenticationError("WRONGPASS"))
    assert is_failure(ConnectionResetError())
    assert not is_failure(ResponseError("WRONGTYPE Operation"))
    assert not is_failure(KeyError("bug"))


async def test_many_commands_in_one_round_trip(redis_server: EmbeddedRedis) -> None:
    breaker = Breaker("redis", fail_max=1)
    pool = RedisPool(RedisUrl.parse(redis_server.url), breaker, name="test", timeout=60.0)
    try:
        answers = await pool.execute_all([("SET", "a", "1"), ("XINFO STREAM", "none"), ("HGET", "h", "f")])
        assert answers[0]
        assert isinstance(answers[1], ResponseError)
        assert answers[2] is None
        assert breaker.state == "closed"
        redis_server.kill()
        with pytest.raises((RedisError, OSError)):
            await pool.execute_all([("PING",)])
        with pytest.raises(BreakerOpen):
            await pool.execute_all([("PING",)])
    finally:
        await pool.close()
