"""Settings of receivers and distributors as the resources mean them: whose budgets, and how much history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedmill.distributor.settings import DistributorSettings
from feedmill.receiver.settings import ReceiverSettings
from feedmill.resources.load import load_files

MANIFEST = """
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {{name: main}}
spec:
  redis: {{managed: {{storage: 2Gi, memory: 1Gi}}}}
  postgres: {{managed: {{storage: 20Gi}}}}
  {egress}
---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {{name: feed}}
spec:
  pipelineRef: {{name: main}}
  exchange: {{name: binance, market: UsdM, environment: Testnet}}
  instruments: {{symbols: [BTC-USDT, ETH-USDT, SOL-USDT]}}
  channels: [{{name: Trades}}]
  receiver: {{shards: 2, replicas: 2}}
"""


def resources(folder: Path, egress: str = "") -> tuple[Any, Any]:
    path = folder / "feed.yaml"
    path.write_text(MANIFEST.format(egress=egress))
    found = load_files([path], local=True)
    (feed,), (pipeline,) = found.feeds.values(), found.pipelines.values()
    return feed, pipeline


@pytest.mark.parametrize(("egress", "name"), [("", "default"), ("egress: office", "office")])
def test_processes_behind_one_address_are_a_fleet(tmp_path: Path, egress: str, name: str) -> None:
    settings = ReceiverSettings.from_resources(*resources(tmp_path, egress), 0, "0")
    assert settings.fleet == f"binance.UsdM.Testnet.{name}"
    assert settings.fleet_members == 4


def test_the_venue_says_how_many_trades_a_request_gives(tmp_path: Path) -> None:
    assert DistributorSettings.from_resources(*resources(tmp_path), 0).trades_page == 1000
