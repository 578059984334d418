"""What the manifest says, as the processor works by it."""

from __future__ import annotations

from feedmill.exchanges.base import ChannelName
from feedmill.plan import shard_of
from feedmill.processor.finisher import sources
from feedmill.processor.settings import INTERVALS, LINGER, processor_settings, retention_of, shard_settings
from feedmill.resources.load import Resources, load_texts
from feedmill.resources.pipeline import FeedPipeline
from feedmill.resources.types import BatchingMode
from feedmill.shared.keys import ShardRef

PIPELINE = """apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main, namespace: trading}
spec:
  redis: {managed: {}, circuitBreaker: {failureThreshold: 3, resetTimeout: 10s}}
  postgres: {managed: {}, circuitBreaker: {failureThreshold: 7, resetTimeout: 2m}}
  candles: {intervals: [1h, 1m, 5m]}
  retention: {trades: 10d, tickers: 36h, bookSnapshots: 2d}
---
"""
FEED = """apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: NAME, namespace: trading}
spec:
  pipelineRef: {name: main}
  exchange: {name: EXCHANGE, market: MARKET}
  receiver: {shards: SHARDS, batching: {mode: MODE}}
  instruments: {symbols: [SYMBOLS]}
  channels: [{name: Trades}, {name: Ticker}]
---
"""


def feed(name: str, exchange: str, market: str, symbols: str, mode: str = "Adaptive") -> str:
    shards = str(symbols.count(",") + 1)
    values = {"NAME": name, "EXCHANGE": exchange, "MARKET": market, "SYMBOLS": symbols, "MODE": mode, "SHARDS": shards}
    text = FEED
    for word, value in values.items():
        text = text.replace(word, value)
    return text


def resources() -> tuple[Resources, FeedPipeline]:
    text = PIPELINE + feed("spot", "binance", "Spot", "BTC-USDT, ETH-USDT", "Latency")
    text += feed("options", "deribit", "Derivatives", "BTC-PERPETUAL")
    found = load_texts({"f": text}, local=True)
    return found, found.pipelines[("trading", "main")]


def test_settings_of_a_pipeline() -> None:
    found, pipeline = resources()
    settings = processor_settings(pipeline, found.feeds_of(pipeline), "r3")
    assert {str(shard.ref) for shard in settings.shards} == {
        *("trading.spot.0", "trading.spot.1"),
        "trading.options.0",
    }
    assert settings.replica == "r3"
    assert settings.members_key == "fm:{trading.main}:processors"
    assert settings.intervals == ("1m", "5m", "1h")
    assert (settings.redis_failures, settings.redis_reset) == (3, 10.0)
    assert (settings.postgres_failures, settings.postgres_reset) == (7, 120.0)
    hour = 3_600_000_000_000
    assert settings.retention_ns == retention_of(pipeline)
    assert settings.retention_ns == {"trades": 240 * hour, "tickers": 36 * hour, "book_snapshots": 48 * hour}


def test_settings_of_shards() -> None:
    found, _ = resources()
    shards = shard_settings(found.feeds[("trading", "spot")])
    assert [shard.ref for shard in shards] == [ShardRef("trading", "spot", 0), ShardRef("trading", "spot", 1)]
    assert {shard.venue for shard in shards} == {"binance/Spot"}
    assert {shard.linger for shard in shards} == {LINGER[BatchingMode.LATENCY]}
    for symbol, native in (("BTC-USDT", "BTCUSDT"), ("ETH-USDT", "ETHUSDT")):
        number = shard_of(symbol, 2)
        assert shards[number].natives[symbol] == native
        assert symbol not in shards[1 - number].natives
    assert all(shard.rules.dense for shard in shards)
    assert shards[0].rules.comparable["trades"]
    (options,) = shard_settings(found.feeds[("trading", "options")])
    assert options.venue == "deribit/Derivatives"
    assert options.linger == LINGER[BatchingMode.ADAPTIVE]


def test_every_kind_of_channel_has_a_place() -> None:
    assert {channel.value for channel in ChannelName} >= {"Trades", "Book", "Ticker", "Candles"}


def test_longer_candles_are_made_of_the_longest_that_divide_them() -> None:
    assert sources(["1m", "5m", "15m", "1h", "4h", "1d"]) == [
        *(("5m", "1m"), ("15m", "5m"), ("1h", "15m"), ("4h", "1h"), ("1d", "4h")),
    ]
    assert sources(["1h", "3m"]) == [("3m", "1m"), ("1h", "3m")]
    assert sources(["3m", "5m"]) == [("3m", "1m"), ("5m", "1m")]
    assert sources([]) == sources(["1m"]) == []
    for name, source in sources(list(INTERVALS)):
        assert INTERVALS[name] % INTERVALS[source] == 0
        assert 86400 % INTERVALS[name] == 0
