"""What a market's list of instruments says of the few that accounts trade."""

from __future__ import annotations

import json

import pytest

from feedmill.exchanges.account_rest import Traded
from feedmill.exchanges.registry import get_venue
from feedmill.pool.catalogue import Catalogue


def exchange_info(*symbols: str, **more: str) -> bytes:
    rows = [
        {"symbol": f"{base}USDT", "baseAsset": base, "quoteAsset": "USDT", "status": "TRADING", "filters": [], **more}
        for base in symbols
    ]
    return json.dumps({"symbols": rows}).encode()


def traded(*symbols: str) -> dict[str, Traded]:
    return {f"{base}-USDT": Traded(f"{base}USDT", (base, "USDT")) for base in symbols}


@pytest.fixture
async def catalogue() -> Catalogue:
    made = Catalogue(get_venue("binance", "Spot"))
    await made.keep(exchange_info("BTC", "ETH"), traded("BTC", "ETH"))
    return made


async def test_only_what_is_asked_for_is_read(catalogue: Catalogue) -> None:
    (found,) = await catalogue.find(["BTC-USDT", "XRP-USDT"])
    assert (found.symbol, found.native, found.type) == ("BTC-USDT", "BTCUSDT", "Spot")
    assert (found.base, found.quote, found.settle) == ("BTC", "USDT", "USDT")
    assert found.receive_ns > 0
    assert {each.symbol for each in await catalogue.find(["ETH-USDT", "BTC-USDT"])} == {"BTC-USDT", "ETH-USDT"}


async def test_a_newer_list_counts(catalogue: Catalogue) -> None:
    assert await catalogue.find(["BTC-USDT"])
    await catalogue.keep(exchange_info("BTC", "XRP", status="HALT"), traded("BTC", "XRP"))
    found = {each.symbol: each.status for each in await catalogue.find(["BTC-USDT", "ETH-USDT", "XRP-USDT"])}
    assert found == {"BTC-USDT": "HALT", "XRP-USDT": "HALT"}


async def test_before_there_is_a_list_nothing_is_known() -> None:
    assert await Catalogue(get_venue("deribit", "Derivatives")).find(["BTC-PERPETUAL"]) == []


async def test_a_list_that_cannot_be_read_says_nothing() -> None:
    made = Catalogue(get_venue("binance", "Spot"))
    await made.keep(b'{"symbols": [{"symbol": "BTCUSDT", "baseAsset": 1}]}', traded("BTC"))
    assert await made.find(["BTC-USDT"]) == []
