"""Accounts and feeds at one venue behind one address draw on the same budgets."""

from __future__ import annotations

from typing import Any

import pytest

from feedmill.exchanges.registry import get_venue
from feedmill.pool import fleets
from feedmill.pool.fleets import Fleets
from feedmill.pool.markets import MarketKey
from feedmill.pool.settings import PoolSettings
from feedmill.receiver.rest import weight_budget
from feedmill.receiver.settings import ReceiverSettings
from feedmill.resources.load import load_texts
from feedmill.shared.fleet import Fleet
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl

MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec: {redis: {managed: {}}, postgres: {managed: {}}, egress: desk}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: feed}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: MARKET, environment: Testnet}
  instruments: {symbols: [BTC-USDT]}
  channels: [{name: Trades}]
"""


@pytest.mark.parametrize("market", ["Spot", "UsdM"])
async def test_the_weight_of_feeds_and_accounts_is_one_budget(market: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resources = load_texts({"feed.yaml": MANIFEST.replace("MARKET", market)})
    pipeline = resources.pipelines["default", "main"]
    feed = ReceiverSettings.from_resources(resources.feeds["default", "feed"], pipeline, 0, "r0")
    made: list[Fleet] = []

    def remembered(*arguments: Any, **more: Any) -> Fleet:
        made.append(Fleet(*arguments, **more))
        return made[-1]

    monkeypatch.setattr(fleets, "Fleet", remembered)
    pool = Fleets(RedisUrl.parse("redis://127.0.0.1:9"), PoolSettings(egress="desk"), get_logger())
    limits = get_venue("binance", market).feed("wss://here").limits
    try:
        budgets = pool.of(MarketKey("binance", market, "Testnet", "wss://a", "https://a").venue, limits)
        assert made[0].identity == feed.fleet
        theirs = Fleet(RedisUrl.parse("redis://127.0.0.1:9"), feed.fleet, name="feed", expected=1, log=get_logger())
        # One key, and one rule for what is in it.
        assert theirs.key("weight") == made[0].key("weight")
        assert weight_budget(limits, 0.5, theirs)._rule == budgets.weight._rule  # type: ignore[attr-defined]
        assert pool.of(MarketKey("binance", market, "Testnet", "wss://b", "https://b").venue, limits) is budgets
    finally:
        await pool.close()
