"""The demonstration's manifest: one feed a simulated exchange, as a file that a user can read and start from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from feedmill.local.demo.simulation import Endpoint

SYMBOLS = {
    "binance/Spot": ("BTC-USDT", "ETH-USDT", "SOL-USDT"),
    "binance/UsdM": ("BTC-USDT", "ETH-USDT"),
    "deribit/Derivatives": ("BTC-PERPETUAL", "ETH-PERPETUAL"),
}
CHANNELS = ("Trades", "Book", "Ticker", "Candles")
_PIPELINE = """# Written by feedmill demo: the exchanges below are simulated on this machine.
# For the real ones leave the endpoints out, and run: feedmill up -f this-file.yaml
apiVersion: feedmill.dev/v1alpha1
kind: FeedPipeline
metadata: {{name: main}}
spec:
  redis: {{managed: {{storage: 2Gi, memory: 1Gi}}}}
  postgres: {{managed: {{storage: 20Gi}}}}
  retention: {{trades: {keep}, tickers: {keep}, bookSnapshots: {keep}}}
"""
_ACCOUNTS = """  accounts: {replicas: 1}     # listens to what feedmill accounts add stored
"""
_BACKUP = """  backup:
    schedule: "0 3 * * *"
    destination: {{folder: {{path: {folder}}}}}
    encryption: {{keySecretRef: {{name: {secret}, key: {key}}}}}
    continuous: {{enabled: true}}
"""
BACKUP_SECRET, BACKUP_KEY = "backup-key", "key"
_FEED = """---
apiVersion: feedmill.dev/v1alpha1
kind: ExchangeFeed
metadata: {{name: {name}}}
spec:
  pipelineRef: {{name: main}}
  exchange:
    name: {exchange}
    market: {market}
    endpoints:
      stream: {stream}
      rest: {rest}
  instruments:
    symbols: [{symbols}]
  channels:
{channels}
"""


@dataclass(frozen=True, slots=True)
class DemoFeed:
    """What one simulated exchange is asked for."""

    venue: str
    """exchange/market."""
    symbols: Sequence[str]
    channels: Sequence[str] = CHANNELS
    interval: str = "1m"

    @property
    def name(self) -> str:
        return self.venue.lower().replace("/", "-")


def render(
    feeds: Sequence[DemoFeed],
    endpoints: Mapping[str, Endpoint],
    *,
    keep: str = "30d",
    accounts: bool = False,
    backups: Path | None = None,
) -> str:
    """YAML of a pipeline and its feeds. ``keep``: retention (recorded frames are years old). ``backups``: where they
    go."""
    text = _PIPELINE.format(keep=keep) + (_ACCOUNTS if accounts else "")
    if backups is not None:
        text += _BACKUP.format(folder=json.dumps(str(backups)), secret=BACKUP_SECRET, key=BACKUP_KEY)
    for feed in feeds:
        exchange, _, market = feed.venue.partition("/")
        endpoint = endpoints[feed.venue]
        text += _FEED.format(
            name=feed.name,
            exchange=exchange,
            market=market,
            stream=endpoint.stream,
            rest=endpoint.rest,
            symbols=", ".join(feed.symbols),
            channels="\n".join(f"    - {_channel(name, feed.interval)}" for name in feed.channels),
        )
    return text


def _channel(name: str, interval: str) -> str:
    if name == "Candles":
        return f"{{name: Candles, interval: {interval or '1m'}}}"
    return "{name: Book, depth: 20, sampleInterval: 1s}" if name == "Book" else f"{{name: {name}}}"
