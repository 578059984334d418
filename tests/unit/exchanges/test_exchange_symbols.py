"""Canonical symbols -> native names, and refusals that say how to write it."""

from __future__ import annotations

import re

import pytest

from feedmill.exchanges.base import Arbitration, ChannelName, Venue
from feedmill.exchanges.binance_spot import VENUE as SPOT
from feedmill.exchanges.binance_usdm import VENUE as USDM
from feedmill.exchanges.deribit import VENUE as DERIBIT


@pytest.mark.parametrize(
    ("venue", "symbol", "native"),
    [
        (SPOT, "BTC-USDT", "BTCUSDT"),
        (SPOT, "1000SATS-USDT", "1000SATSUSDT"),
        (SPOT, "这是测试币456-USDT", "这是测试币456USDT"),
        (USDM, "BTC-USDT", "BTCUSDT"),
        (USDM, "BTC-USDT-260925", "BTCUSDT_260925"),
        (USDM, "测试-USDT", "测试USDT"),
        *(
            (DERIBIT, name, name)
            for name in (
                "BTC-PERPETUAL", "BTC_USDC-PERPETUAL", "BTC-25SEP26", "BTC-5SEP26", "BTC-27DEC24-100000-C",
                "SOL_USDC-27JUN25-150-P", "XRP_USDC-30JUN25-0d625-C", "ETH_USDC", "BTC-CS-19MAY26-70000_75000",
                "BTC-FS-25SEP26_PERP", "BTC-CCAL-19MAY26_26MAY26-70000", "ETH_USDC-FS-27JUN25_PERP",
            )
        ),
    ],
)  # fmt: skip
def test_native_names(venue: Venue, symbol: str, native: str) -> None:
    assert venue.to_native(symbol) == native


@pytest.mark.parametrize(
    ("venue", "symbol", "remedy"),
    [
        (SPOT, "btc-usdt", "write 'BTC-USDT'"),
        (SPOT, "BTCUSDT", "no dash"),
        (SPOT, "BTC/USDT", "like BTC-USDT"),
        (SPOT, "BTC-USDT-260925", "form BTC-USDT"),
        (SPOT, "BTC-", "form BTC-USDT"),
        (SPOT, "BTC-US DT", "form BTC-USDT"),
        (SPOT, "", "form BTC-USDT"),
        (USDM, "BTCUSDT_260925", "no dash"),
        (USDM, "BTC-USDT-PERP", "YYMMDD"),
        (USDM, "BTC-USDT-2609", "YYMMDD"),
        (USDM, "Btc-USDT", "write 'BTC-USDT'"),
        (DERIBIT, "btc-perpetual", "write 'BTC-PERPETUAL'"),
        (DERIBIT, "xrp_usdc-30jun25-0d625-c", "write 'XRP_USDC-30JUN25-0d625-C'"),
        (DERIBIT, "BTC-USDT", "write it like BTC-PERPETUAL"),
        (DERIBIT, "BTC", "write it like BTC-PERPETUAL"),
        (DERIBIT, "BTC-27DEC24-100000", "write it like BTC-PERPETUAL"),
        (DERIBIT, "BTC-27DEC24-1.5-C", "write it like BTC-PERPETUAL"),
    ],
)
def test_other_forms_are_refused_with_a_remedy(venue: Venue, symbol: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(symbol))) as caught:
        venue.to_native(symbol)
    assert remedy in str(caught.value)


@pytest.mark.parametrize("venue", [SPOT, USDM, DERIBIT])
def test_every_venue_declares_all_of_itself(venue: Venue) -> None:
    assert set(venue.arbitration) == set(ChannelName) == venue.channels
    assert venue.arbitration[ChannelName.TRADES] is Arbitration.CONTIGUOUS
    assert {"1m", "5m", "15m", "1h", "1d"} <= venue.candle_intervals
    assert set(venue.endpoints) == {"Production", "Testnet"}
    for endpoints in venue.endpoints.values():
        assert endpoints["stream"].startswith("wss://")
        assert endpoints["rest"].startswith("https://")
