"""A distributor that another one took over from tells nothing of what it saw last."""

from __future__ import annotations

import asyncio
import math

import pytest
from prometheus_client import REGISTRY

from feedmill.distributor import metrics
from feedmill.distributor.books import BookSettings
from feedmill.distributor.service import Distributor
from feedmill.distributor.settings import DistributorSettings
from feedmill.exchanges.binance_spot.mapper import SpotBook
from feedmill.shared.health import Health
from feedmill.shared.keys import ShardRef
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl

SHARD = ShardRef("n", "f", 0)


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"feedmill_distributor_{name}", labels)


async def test_what_it_saw_last_is_told_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    books = BookSettings(str(SHARD), SpotBook())
    settings = DistributorSettings(SHARD, "binance", "Spot", {"BTC-USDT": "BTCUSDT"}, books)
    health = Health("distributor")
    distributor = Distributor(settings, RedisUrl.parse("redis://127.0.0.1:9"), health, get_logger())
    ended = asyncio.Event()

    async def session(_: asyncio.Event) -> None:
        """As the last look before the lease was lost left it."""
        figures = distributor.figures
        figures.lag_seconds, figures.books, figures.sessions, figures.held_back = 50.0, {"valid": 3}, ["r0"], "full"
        metrics.lag_seconds.set(50)
        metrics.redis_memory.set(0.9)
        metrics.books.labels("valid").set(3)
        for gauge in (metrics.held_back, metrics.sessions, metrics.filling):
            gauge.set(1)
        assert health.document()["lag"] == {"seconds": 50.0}
        ended.set()

    monkeypatch.setattr(distributor, "_session", session)
    await distributor._work(ended)
    document = health.document()
    assert document["dispatch"]["standby"] is True
    assert (document["lag"], document["books"]["total"]) == ({"seconds": None}, 0)
    assert document["sessions"] == {"known": [], "connections": 0}
    assert math.isnan(shown("lag_seconds") or 0.0), "else its alert would never end"
    assert math.isnan(shown("redis_memory_ratio") or 0.0)
    assert shown("books", state="valid") is None
    assert (shown("held_back"), shown("sessions"), shown("backfill_pages")) == (0, 0, 0)
