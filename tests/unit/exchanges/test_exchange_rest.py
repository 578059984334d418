"""REST halves: requests with their weights, bases of any form, and what answers say about limits."""

from __future__ import annotations

import json

import pytest

from feedmill.exchanges.base import RestLimits, RestRequest, TradeRange, Venue
from feedmill.exchanges.binance_spot import VENUE as SPOT
from feedmill.exchanges.binance_usdm import VENUE as USDM
from feedmill.exchanges.deribit import VENUE as DERIBIT


@pytest.mark.parametrize(
    ("venue", "base", "url"),
    [
        (SPOT, "https://api.binance.com", "https://api.binance.com/api/v3/depth"),
        (SPOT, "https://testnet.binance.vision/api", "https://testnet.binance.vision/api/v3/depth"),
        (SPOT, "http://127.0.0.1:8080/api/v3/", "http://127.0.0.1:8080/api/v3/depth"),
        (SPOT, "https://proxy/binance/", "https://proxy/binance/api/v3/depth"),
        (USDM, "https://fapi.binance.com", "https://fapi.binance.com/fapi/v1/depth"),
        (USDM, "https://h/fapi/v1", "https://h/fapi/v1/depth"),
        (USDM, "https://h/fapi/", "https://h/fapi/v1/depth"),
        (DERIBIT, "https://www.deribit.com", "https://www.deribit.com/api/v2/public/get_order_book"),
        (DERIBIT, "https://h/api/v2/", "https://h/api/v2/public/get_order_book"),
    ],
)
def test_bases_of_any_form(venue: Venue, base: str, url: str) -> None:
    assert venue.rest(base).book_snapshot("S", "N").url == url


def test_snapshot_requests() -> None:
    assert SPOT.rest("http://h").book_snapshot("BTC-USDT", "BTCUSDT") == RestRequest(
        "book_snapshot", "http://h/api/v3/depth", {"symbol": "BTCUSDT", "limit": "5000"}, 250, "BTC-USDT", "BTCUSDT"
    )
    assert USDM.rest("http://h").book_snapshot("BTC-USDT", "BTCUSDT") == RestRequest(
        "book_snapshot", "http://h/fapi/v1/depth", {"symbol": "BTCUSDT", "limit": "1000"}, 20, "BTC-USDT", "BTCUSDT"
    )


def test_trades_are_asked_for_by_the_numbers_of_the_stream() -> None:
    wanted = TradeRange(11, 20)
    assert SPOT.rest("http://h").trades("BTC-USDT", "BTCUSDT", wanted) == RestRequest(
        "trades", "http://h/api/v3/historicalTrades", {"symbol": "BTCUSDT", "fromId": "11", "limit": "10"}, 25,
        "BTC-USDT", "BTCUSDT",
    )  # fmt: skip
    assert USDM.rest("http://h").trades("BTC-USDT", "BTCUSDT", wanted) == RestRequest(
        "trades", "http://h/fapi/v1/aggTrades", {"symbol": "BTCUSDT", "fromId": "11", "limit": "10"}, 20,
        "BTC-USDT", "BTCUSDT",
    )  # fmt: skip
    params = {"instrument_name": "BTC-PERPETUAL", "start_seq": "11", "end_seq": "20", "count": "10", "sorting": "asc"}
    assert DERIBIT.rest("http://h").trades("BTC-PERPETUAL", "BTC-PERPETUAL", wanted) == RestRequest(
        "trades", "http://h/api/v2/public/get_last_trades_by_instrument", params, 1, "BTC-PERPETUAL", "BTC-PERPETUAL"
    )


@pytest.mark.parametrize("venue", [SPOT, USDM, DERIBIT], ids=lambda venue: venue.name)
def test_no_more_trades_are_asked_for_than_a_request_gives(venue: Venue) -> None:
    request = venue.rest("http://h").trades("S", "N", TradeRange(1, 5000))
    assert request is not None
    assert venue.trades_page == 1000
    assert "1000" in request.params.values()


def test_spot_metadata_is_asked_for_the_symbols_only_and_in_chunks() -> None:
    natives = [f"A{number}USDT" for number in range(51)] + ["测试USDT"]
    requests = SPOT.rest("http://h").instruments(natives)
    assert [request.weight for request in requests] == [20, 20]
    assert {request.url for request in requests} == {"http://h/api/v3/exchangeInfo"}
    assert [name for request in requests for name in json.loads(request.params["symbols"])] == natives
    assert all(" " not in request.params["symbols"] for request in requests)
    assert SPOT.rest("http://h").instruments([]) == []


def test_refused_spot_metadata_is_asked_for_in_halves() -> None:
    rest = SPOT.rest("http://h")
    (whole,) = rest.instruments(["AUSDT", "BUSDT", "CUSDT"])
    parts = rest.halves(whole)
    assert [json.loads(part.params["symbols"]) for part in parts] == [["AUSDT"], ["BUSDT", "CUSDT"]]
    assert rest.halves(parts[0]) == []
    assert rest.halves(rest.book_snapshot("A-USDT", "AUSDT")) == []
    assert USDM.rest("http://h").halves(USDM.rest("http://h").instruments(["BTCUSDT"])[0]) == []


def test_usdm_metadata_comes_whole() -> None:
    assert USDM.rest("http://h").instruments(["BTCUSDT", "ETHUSDT"]) == [
        RestRequest("instruments", "http://h/fapi/v1/exchangeInfo", {}, 1)
    ]
    assert USDM.rest("http://h").instruments([]) == []


def test_deribit_metadata_singly_for_few_and_by_currency_for_many() -> None:
    options = [f"BTC-27DEC26-{strike}-C" for strike in range(10_000, 21_000, 1000)]
    spots = [f"A{number}_USDC" for number in range(11)]
    requests = DERIBIT.rest("http://h").instruments([*options, *spots, "SOL_USDC-PERPETUAL", "ETH-PERPETUAL"])
    assert [(r.url.rpartition("/")[2], dict(r.params), r.bucket) for r in requests] == [
        ("get_instruments", {"currency": "BTC", "expired": "false"}, "instruments"),
        ("get_instruments", {"currency": "any", "expired": "false", "kind": "spot"}, "instruments"),
        ("get_instrument", {"instrument_name": "SOL_USDC-PERPETUAL"}, "weight"),
        ("get_instrument", {"instrument_name": "ETH-PERPETUAL"}, "weight"),
    ]
    assert [request.weight for request in requests] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("venue", "status", "headers", "body", "expected"),
    [
        (SPOT, 200, {"x-mbx-used-weight-1m": "1200"}, b"{}", RestLimits(1200, None)),
        (SPOT, 200, {"X-MBX-USED-WEIGHT-1M": "7"}, b"{}", RestLimits(7, None)),
        (SPOT, 200, {}, b"{}", RestLimits()),
        (SPOT, 200, {"x-mbx-used-weight-1m": "?"}, b"{}", RestLimits()),
        (SPOT, 429, {"Retry-After": "17", "x-mbx-used-weight-1m": "6001"}, b"{}", RestLimits(6001, 17.0)),
        (USDM, 418, {"Retry-After": "120"}, b"{}", RestLimits(None, 120.0)),
        (USDM, 418, {}, b"{}", RestLimits(None, 300.0)),
        (USDM, 429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"", RestLimits(None, 60.0)),
        (SPOT, 403, {}, b"<html>", RestLimits(None, 60.0)),
        (SPOT, 500, {}, b"", RestLimits()),
        (DERIBIT, 200, {}, b'{"result":{}}', RestLimits()),
        (DERIBIT, 429, {"retry-after": "3"}, b"", RestLimits(None, 3.0)),
        (DERIBIT, 400, {}, b'{"error":{"code":10028,"message":"too_many_requests"}}', RestLimits(None, 5.0)),
        (DERIBIT, 400, {}, b'{"error":{"code":13020,"message":"not_found"}}', RestLimits()),
        (DERIBIT, 400, {}, b'{"error":{"code":11051,"message":"system_maintenance"}}', RestLimits(None, 30.0)),
        (DERIBIT, 502, {}, b"<html>", RestLimits()),
    ],
)
def test_limits_from_answers(
    venue: Venue, status: int, headers: dict[str, str], body: bytes, expected: RestLimits
) -> None:
    assert venue.rest("http://h").read_limits(status, headers, body) == expected
