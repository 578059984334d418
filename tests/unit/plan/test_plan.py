"""Resources -> workloads: golden, stable, and clear about what cannot be planned."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.exchanges.base import ChannelName, Subscription
from feedmill.plan import (
    PlanError,
    Workload,
    feed_rest_url,
    feed_stream_url,
    plan,
    shard_of,
    shard_subscriptions,
    shard_symbols,
    shards_of,
    show_key,
)
from feedmill.resources.account import ExchangeAccount
from feedmill.resources.collection import Resources
from feedmill.resources.feed import ExchangeFeed
from feedmill.resources.load import load_texts
from feedmill.shared.keys import ShardRef

MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {name: main}
spec: {redis: {managed: {}}, postgres: {managed: {}}, processor: {replicas: 2}}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: spot}
spec:
  pipelineRef: {name: main}
  exchange: {name: binance, market: Spot}
  instruments: {symbols: [BTC-USDT, ETH-USDT, SOL-USDT, BNB-USDT]}
  channels: [{name: Trades}, {name: Candles, interval: 1m}]
  receiver: {shards: 2, replicas: 2}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: asleep}
spec:
  pipelineRef: {name: main}
  exchange: {name: deribit, market: Derivatives}
  instruments: {symbols: [BTC-PERPETUAL]}
  channels: [{name: Ticker}]
  suspend: true
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {name: deribit}
spec:
  pipelineRef: {name: main}
  exchange: {name: deribit, market: Derivatives}
  instruments: {symbols: [BTC-PERPETUAL]}
  channels: [{name: Ticker}]
  distributor: {replicas: 2}
"""
GOLDEN = """\
maintenance main-maintenance: run maintenance --pipeline default/main
processor main-processor-0: run processor --pipeline default/main --replica r0
processor main-processor-1: run processor --pipeline default/main --replica r1
distributor deribit-distributor-0-0: run distributor --feed default/deribit --shard 0
distributor deribit-distributor-0-1: run distributor --feed default/deribit --shard 0
distributor spot-distributor-0-0: run distributor --feed default/spot --shard 0
distributor spot-distributor-1-0: run distributor --feed default/spot --shard 1
receiver deribit-receiver-0-0: run receiver --feed default/deribit --shard 0 --replica r0
receiver spot-receiver-0-0: run receiver --feed default/spot --shard 0 --replica r0
receiver spot-receiver-0-1: run receiver --feed default/spot --shard 0 --replica r1
receiver spot-receiver-1-0: run receiver --feed default/spot --shard 1 --replica r0
receiver spot-receiver-1-1: run receiver --feed default/spot --shard 1 --replica r1
"""


def resources() -> Resources:
    return load_texts({"all.yaml": MANIFEST})


def make(**spec: Any) -> ExchangeFeed:
    return ExchangeFeed.model_validate(
        {
            "metadata": {"name": "f"},
            "spec": {
                "pipelineRef": {"name": "main"},
                "exchange": {"name": "binance", "market": "Spot"},
                "instruments": {"symbols": ["BTC-USDT"]},
                "channels": [{"name": "Trades"}],
                **spec,
            },
        }
    )


def shown(workloads: list[Workload]) -> str:
    return "".join(f"{item.role} {item.name}: {' '.join(item.args)}\n" for item in workloads)


def test_workloads_of_a_manifest() -> None:
    workloads = plan(resources())
    assert shown(workloads) == GOLDEN
    receiver = workloads[-1]
    assert (receiver.pipeline, receiver.feed, receiver.shard, receiver.replica) == (
        ("default", "main"), ("default", "spot"), 1, "r1",
    )  # fmt: skip
    assert (workloads[0].feed, workloads[0].shard, workloads[0].replica) == (None, None, "")


def test_the_order_of_the_documents_does_not_matter() -> None:
    documents = MANIFEST.split("---\n")
    assert plan(load_texts({"all.yaml": "---\n".join(reversed(documents))})) == plan(resources())


def test_names_are_unique_dns_labels() -> None:
    names = [workload.name for workload in plan(resources())]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)
    # The longest name a resource may have still makes a DNS label.
    assert len(f"{'a' * 40}-distributor-63-15") <= 63


def test_a_suspended_feed_has_no_process_and_keeps_its_pipeline() -> None:
    found = resources()
    found.feeds = {key: feed for key, feed in found.feeds.items() if feed.spec.suspend}
    assert {workload.role for workload in plan(found)} == {"maintenance", "processor"}


def account(**spec: Any) -> ExchangeAccount:
    return ExchangeAccount.model_validate(
        {
            "metadata": {"name": "mine"},
            "spec": {
                "pipelineRef": {"name": "main"},
                "exchange": {"name": "binance", "market": "Spot"},
                "credentialsSecretRef": {"name": "binance-main"},
                **spec,
            },
        }
    )


def accounts_of(found: Resources) -> list[str]:
    return [line for line in shown(plan(found)).splitlines() if line.startswith("accounts ")]


def test_accounts_bring_the_pool_of_their_pipeline() -> None:
    found = resources()
    found.accounts = {("default", "mine"): account()}
    one = "accounts main-accounts-0: run accounts --pipeline default/main --replica r0"
    assert accounts_of(found) == [one]
    roles = list(dict.fromkeys(workload.role for workload in plan(found)))
    assert roles == ["maintenance", "processor", "accounts", "distributor", "receiver"]
    # What a suspended one has captured is to be stored.
    found.accounts = {("default", "mine"): account(suspend=True)}
    assert accounts_of(found) == [one]
    found.accounts = {("default", "mine"): account(pipelineRef={"name": "other"})}
    assert accounts_of(found) == []


def test_the_pool_of_the_credential_store_needs_no_account_in_the_files() -> None:
    text = MANIFEST.replace("processor: {replicas: 2}", "accounts: {replicas: 2}")
    assert accounts_of(load_texts({"all.yaml": text})) == [
        "accounts main-accounts-0: run accounts --pipeline default/main --replica r0",
        "accounts main-accounts-1: run accounts --pipeline default/main --replica r1",
    ]
    suspended = text.replace("accounts: {replicas: 2}", "accounts: {replicas: 2}, suspend: true")
    assert accounts_of(load_texts({"all.yaml": suspended})) == []


def test_shards_are_stable() -> None:
    """A change here would move instruments between streams of running feeds: never change these numbers."""
    found = {symbol: shard_of(symbol, 64) for symbol in ("BTC-USDT", "ETH-USDT", "BTC-PERPETUAL")}
    assert found == {"BTC-USDT": 63, "ETH-USDT": 37, "BTC-PERPETUAL": 33}


@given(
    st.lists(st.from_regex(r"[A-Z0-9]{1,8}-[A-Z]{3,4}", fullmatch=True), unique=True, max_size=50), st.integers(1, 64)
)
def test_every_symbol_is_in_exactly_one_shard_whatever_else_is_listed(symbols: list[str], shards: int) -> None:
    feed = make(receiver={"shards": shards})
    parts = [shard_symbols(feed, shard, symbols) for shard in range(shards)]
    assert sorted(symbol for part in parts for symbol in part) == sorted(symbols)
    for shard, part in enumerate(parts):
        assert part == [symbol for symbol in symbols if symbol in set(part)], "the manifest's order"
        assert all(shard_of(symbol, shards) == shard for symbol in part)


def test_an_empty_shard_has_no_process() -> None:
    feed = make(instruments={"symbols": ["BTC-USDT"]}, receiver={"shards": 8})
    found = resources()
    found.feeds = {feed.key: feed}
    own = shard_of("BTC-USDT", 8)
    assert {(workload.role, workload.shard) for workload in plan(found) if workload.feed} == {
        ("distributor", own), ("receiver", own),
    }  # fmt: skip
    assert shards_of(feed) == [ShardRef("default", "f", number) for number in range(8)]
    assert shard_subscriptions(feed, (own + 1) % 8) == []


def test_subscriptions_name_the_instruments_as_the_venue_does() -> None:
    feed = make(
        exchange={"name": "binance", "market": "UsdM"},
        instruments={"symbols": ["ETH-USDT", "BTC-USDT-260925"]},
        channels=[{"name": "Trades"}, {"name": "Candles", "interval": "5m"}],
    )
    assert shard_subscriptions(feed, 0) == [
        Subscription("ETH-USDT", "ETHUSDT", ChannelName.TRADES),
        Subscription("ETH-USDT", "ETHUSDT", ChannelName.CANDLES, "5m"),
        Subscription("BTC-USDT-260925", "BTCUSDT_260925", ChannelName.TRADES),
        Subscription("BTC-USDT-260925", "BTCUSDT_260925", ChannelName.CANDLES, "5m"),
    ]


def test_addresses_come_from_the_manifest_then_from_the_venue() -> None:
    assert feed_stream_url(make()) == "wss://stream.binance.com:9443"
    assert feed_rest_url(make()) == "https://api.binance.com"
    testnet = make(exchange={"name": "binance", "market": "Spot", "environment": "Testnet"})
    assert feed_stream_url(testnet) == "wss://stream.testnet.binance.vision"
    own = make(exchange={"name": "binance", "market": "Spot", "endpoints": {"stream": "ws://127.0.0.1:1"}})
    assert (feed_stream_url(own), feed_rest_url(own)) == ("ws://127.0.0.1:1", "https://api.binance.com")


def test_what_cannot_be_planned_is_told() -> None:
    with pytest.raises(
        PlanError, match=r"^feed default/f has no shard 1: there is only 0 \(spec\.receiver\.shards: 1\)$"
    ):
        shard_symbols(make(), 1)
    with pytest.raises(
        PlanError, match=r"^feed default/f has no shard -1: there is 0 to 2 \(spec\.receiver\.shards: 3\)$"
    ):
        shard_subscriptions(make(receiver={"shards": 3}), -1)
    selecting = make(instruments={"select": {"base": ["BTC"]}}, receiver={"shards": 2})
    assert shard_symbols(selecting, 0) == shard_symbols(selecting, 1) == []
    assert shard_symbols(selecting, shard_of("BTC-USDT", 2), ["BTC-USDT"]) == ["BTC-USDT"]

    class Bare:
        endpoints: dict[str, Any] = {"Production": {"stream": "wss://x"}}  # noqa: RUF012

    said = r"^feed default/f: binance/Spot has no rest address for Production: give spec\.exchange\.endpoints\.rest$"
    with pytest.raises(PlanError, match=said):
        feed_rest_url(make(), lambda exchange, market: Bare())  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="there is at least 1"):
        shard_of("BTC-USDT", 0)


def test_a_selection_may_fill_any_shard() -> None:
    """Which instruments it comes to is not known when planning: every shard gets its processes."""
    found = resources()
    feed = make(instruments={"select": {"base": ["BTC"]}}, receiver={"shards": 3})
    found.feeds = {feed.key: feed}
    assert [workload.shard for workload in plan(found) if workload.role == "receiver"] == [0, 1, 2]


def test_keys_as_the_command_line_takes_them() -> None:
    assert show_key(("team", "btc")) == "team/btc"
