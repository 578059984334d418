"""Recorded frames (format: README of the recordings) as a source: what they contain, and who they are for."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from feedmill.simulator.config import ConfigError, SimulatorConfig, VenueConfig

if TYPE_CHECKING:
    from feedmill.simulator.venue import Venue

FILES = {
    "binance/Spot": "binance.jsonl.gz",
    "binance/UsdM": "binance_futures.jsonl.gz",
    "deribit/Derivatives": "deribit.jsonl.gz",
}
_CHANNELS = {"trades": "Trades", "l2_book": "Book", "ticker": "Ticker", "candles": "Candles"}


@dataclass(slots=True)
class Recording:
    """One file. ``frames``: (receive time ns, stream or channel name, text of its data), in receive order."""

    frames: list[tuple[int, str, str]] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    """Bodies of exchangeInfo or get_instruments."""
    depths: dict[str, str] = field(default_factory=dict)
    """Native symbol -> body of its depth snapshot."""
    asked: list[str] = field(default_factory=list)
    """Stream or channel names that were subscribed."""
    channels: list[str] = field(default_factory=list)
    """Our channels, as the recorder's configuration names them."""


def recording_path(folder: Path, venue: str) -> Path:
    path = folder / FILES[venue]
    if not path.is_file():
        raise ConfigError(f"recordings folder {folder} holds no {FILES[venue]} for {venue}: leave that exchange out")
    return path


def read_recording(folder: Path, venue: str) -> Recording:
    """Read the venue's file. Raises ConfigError when it is absent or not of the format."""
    path = recording_path(folder, venue)
    recording = Recording()
    try:
        for line in _lines(path):
            _add(recording, line)
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(f"recording {path} cannot be read: {error}") from error
    return recording


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _add(recording: Recording, line: dict[str, Any]) -> None:
    kind, data, url = line["kind"], line["data"], line["url"] or ""
    if kind == "config":
        recording.channels = [_CHANNELS[name] for name in json.loads(data) if name in _CHANNELS]
    elif kind == "connect":
        recording.asked += [name for name in parse_qs(urlsplit(url).query).get("streams", [""])[0].split("/") if name]
    elif kind == "send":
        recording.asked += json.loads(data).get("params", {}).get("channels", [])
    elif kind == "http":
        query = parse_qs(urlsplit(url).query)
        if urlsplit(url).path.endswith("/depth"):
            recording.depths[query["symbol"][0]] = data
        else:
            recording.metadata.append(data)
    elif kind == "recv":
        frame = json.loads(data)
        # The data's text as it was received: from after the key to the envelope's end.
        if "stream" in frame:
            recording.frames.append((line["t_ns"], frame["stream"], data[data.index('"data":') + 7 : -1]))
        elif "channel" in frame.get("params", {}):
            recording.frames.append((line["t_ns"], frame["params"]["channel"], data[data.index('"data":') + 7 : -2]))


def canonical_symbols(venue: str, recording: Recording) -> dict[str, str]:
    """Native -> canonical of everything the recorded metadata lists."""
    found: dict[str, str] = {}
    for body in recording.metadata:
        content = json.loads(body)
        for row in content.get("symbols", []):
            delivery = "-" + row["symbol"].partition("_")[2] if "_" in row["symbol"] else ""
            found[row["symbol"]] = f"{row['baseAsset']}-{row['quoteAsset']}{delivery}"
        for row in content.get("result", []) if venue.startswith("deribit") else []:
            found[row["instrument_name"]] = row["instrument_name"]
    return found


def recorded_feeds(folder: Path) -> list[dict[str, Any]]:
    """What the recordings in ``folder`` can feed: one dict (exchange, market, symbols, channels, interval) a venue.

    ``symbols`` are canonical, ``interval`` is that of the recorded candles (``1m``; empty where there are none).
    """
    feeds = []
    for venue in FILES:
        if not (folder / FILES[venue]).is_file():
            continue
        recording = read_recording(folder, venue)
        symbols = canonical_symbols(venue, recording)
        natives = []
        for name in recording.asked:
            native = name.split("@")[0].upper() if "@" in name else name.split(".")[1]
            if native in symbols and native not in natives:
                natives.append(native)
        intervals = [name.partition("kline_")[2] for name in recording.asked if "kline_" in name]
        exchange, _, market = venue.partition("/")
        feeds.append(
            {
                "exchange": exchange,
                "market": market,
                "symbols": [symbols[native] for native in natives],
                "channels": recording.channels,
                "interval": intervals[0] if intervals else "",
            }
        )
    return feeds


def recorded_venue(config: VenueConfig, simulator: SimulatorConfig) -> Venue:
    """The venue's server with its recording as the source."""
    from feedmill.simulator.binance_server import BinanceVenue
    from feedmill.simulator.deribit_server import DeribitVenue
    from feedmill.simulator.recorded_binance import RecordedBinance
    from feedmill.simulator.recorded_deribit import RecordedDeribit

    assert simulator.recordings is not None
    recording = read_recording(simulator.recordings, config.venue)
    if config.exchange == "binance":
        binance = BinanceVenue(config, simulator)
        binance.use(RecordedBinance(binance, recording))
        return binance
    deribit = DeribitVenue(config, simulator)
    deribit.use(RecordedDeribit(deribit, recording))
    return deribit
