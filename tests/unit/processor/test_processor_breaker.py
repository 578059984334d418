"""Only PostgreSQL's own answers count at its breaker: not work that asked nobody, not a Redis that is away."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.processor.finisher import CandleFinisher
from feedmill.processor.repair import Repairer
from feedmill.processor.settings import ShardSettings, VenueRules
from feedmill.shared.breaker import Breaker, BreakerOpen
from feedmill.shared.keys import ShardRef
from feedmill.shared.lease import Link
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl

NOBODY = "postgresql://me@127.0.0.1:9/d"
"""Nobody listens there."""


def shard(number: int) -> ShardSettings:
    return ShardSettings(ShardRef("t", "f", number), "binance", "Spot", VenueRules(True), trades_page=1000)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    """Open, and about to let a probe through."""
    breaker = Breaker("postgres", fail_max=1, reset_timeout=5.0, clock=clock)
    breaker.admit().failure(OSError("away"))
    clock.now += 6
    return breaker


def repairer(breaker: Breaker, *shards: ShardSettings) -> Repairer:
    link = Link(RedisUrl.parse("redis://127.0.0.1:9"), "test")
    return Repairer(NOBODY, link, lambda: shards, database=breaker, every=1.0, timeout=1.0, log=get_logger())


async def test_a_look_for_nothing_is_no_answer() -> None:
    breaker = opened(Clock())
    await repairer(breaker).look()
    assert breaker.state == "open"
    with pytest.raises(OSError, match=r"refused|Connect"):
        await repairer(breaker, shard(0)).look()
    assert breaker.state == "open"
    with pytest.raises(BreakerOpen):
        await repairer(breaker, shard(0)).look()


async def test_a_redis_that_is_away_is_not_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    row: Any = {"id": "g", "shard": "t.f.0", "symbol": "A", "low": 1, "high": 2, "from_ns": 0, "to_ns": 0}
    row["revision"] = 1

    async def rows(_: list[str]) -> list[Any]:
        return [row]

    breaker = Breaker("postgres", fail_max=1)
    one = repairer(breaker, shard(0))
    monkeypatch.setattr(one, "_rows", rows)
    with pytest.raises(OSError, match=r"refused|Connect"):
        await one.look()
    assert (breaker.state, breaker.failures) == ("closed", 0)


async def test_candles_of_a_shard_that_has_none_are_no_answer() -> None:
    breaker = Breaker("postgres", fail_max=2, reset_timeout=5.0)
    finisher = CandleFinisher(NOBODY, ["1m"], database=breaker, every=1.0, timeout=1.0, log=get_logger())
    finisher.touch(shard(0), [])
    finisher.touch(shard(1), [(7, 60)])
    finisher.touch(shard(2), [])
    for _ in range(2):
        with pytest.raises(OSError, match=r"refused|Connect"):
            await finisher.finish()
    assert breaker.state == "open"
