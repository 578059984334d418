"""Binance's check of signed requests, and the signed REST routes of Spot and USD-M."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aiohttp import web

from feedmill.simulator.accounts.keys import NEVER, ApiKey, KeyRing
from feedmill.simulator.accounts.model import Account, Fill, Order
from feedmill.simulator.accounts.spot_texts import compact
from feedmill.simulator.binance_rest import Refused, too_much_weight

if TYPE_CHECKING:
    from feedmill.simulator.accounts.side import PrivateSide
    from feedmill.simulator.binance_server import BinanceVenue

Params = Mapping[str, str]
Query = Callable[[Account, Params], Any]
"""The body of an answer. Raises Refused."""
Weigh = Callable[[Params], int]
DAY_MS = 86_400_000
BAD_KEY = (-2015, "Invalid API-key, IP, or permissions for action.", 401)


def known_key(ring: KeyRing, key_id: str, address: str, now_ms: int) -> ApiKey:
    """The key, if it may be used from ``address`` now. Raises Refused."""
    if not key_id:
        raise Refused(-2014, "API-key format invalid.", 401)
    key = ring.by_id.get(key_id)
    if key is None or not key.allowed(address, now_ms):
        raise Refused(*BAD_KEY)
    return key


def check_signed(key: ApiKey, params: Params, payload: str, now_ms: int) -> None:
    """Timestamp, recvWindow, signature. Raises Refused."""
    stamp = params.get("timestamp", "")
    if not stamp.isdigit():
        raise Refused(-1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed.")
    sent_ms = int(stamp) // (1000 if len(stamp) > 14 else 1)
    try:
        window = Decimal(params.get("recvWindow", "5000"))
    except InvalidOperation:
        raise Refused(-1100, "Illegal characters found in parameter 'recvWindow'.") from None
    if window > 60_000:
        raise Refused(-1131, "recvWindow must be less than 60000")
    if sent_ms >= now_ms + 1000:
        raise Refused(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now_ms - sent_ms > window:
        raise Refused(-1021, "Timestamp for this request is outside of the recvWindow.")
    signature = params.get("signature", "")
    if not signature:
        raise Refused(-1102, "Mandatory parameter 'signature' was not sent, was empty/null, or malformed.")
    if not key.signed(payload, signature):
        raise Refused(-1022, "Signature for this request is not valid.")


def whole(params: Params, name: str) -> int | None:
    text = params.get(name)
    if text is None:
        return None
    if not text.isdigit():
        raise Refused(-1100, f"Illegal characters found in parameter '{name}'.")
    return int(text)


def page_size(params: Params) -> int:
    return max(1, min(1000, whole(params, "limit") or 500))


def symbol_of(side: PrivateSide, params: Params, *, needed: bool) -> str:
    symbol = params.get("symbol", "")
    if not symbol and needed:
        raise Refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    if symbol and symbol not in side.listings:
        raise Refused(-1121, "Invalid symbol.")
    return symbol


def open_orders(account: Account, symbol: str) -> list[Order]:
    return [order for (native, _), order in account.open.items() if symbol in ("", native)]


def some_orders(account: Account, symbol: str, params: Params, longest_ms: int) -> list[Order]:
    """From ``orderId`` on, or of a time, or the newest; ascending."""
    first = whole(params, "orderId")
    rows = sorted((each for each in account.orders if symbol in ("", each.listing.native)), key=lambda each: each.id)
    if first is not None:
        return [each for each in rows if each.id >= first][: page_size(params)]
    return _by_time(rows, [each.created_ms for each in rows], params, longest_ms)


def some_fills(account: Account, symbol: str, params: Params, longest_ms: int) -> list[Fill]:
    """From ``fromId`` on, or of an order, or of a time, or the newest; ascending."""
    first, order = whole(params, "fromId"), whole(params, "orderId")
    rows = [each for each in account.fills if each.listing.native == symbol and order in (None, each.order_id)]
    rows.sort(key=lambda each: each.trade_id)
    if first is not None:
        return [each for each in rows if each.trade_id >= first][: page_size(params)]
    return _by_time(rows, [each.time_ms for each in rows], params, longest_ms)


def _by_time(rows: list[Any], times: list[int], params: Params, longest_ms: int) -> list[Any]:
    start, end = whole(params, "startTime"), whole(params, "endTime")
    if start is not None and end is not None and end - start > longest_ms:
        hours = longest_ms // 3_600_000
        raise Refused(-1127, f"More than {hours} hours between startTime and endTime.")
    inside = [
        row
        for row, at in zip(rows, times, strict=True)
        if (start is None or at >= start) and (end is None or at <= end)
    ]
    return inside[-page_size(params) :] if start is None else inside[: page_size(params)]


def restrictions(key: ApiKey) -> dict[str, Any]:
    """``/sapi/v1/account/apiRestrictions``: what the key may do."""
    body = {
        "ipRestrict": bool(key.ips),
        "createTime": key.created_ms,
        "enableReading": True,
        "enableWithdrawals": key.withdraw,
        "enableInternalTransfer": False,
        "enableMargin": False,
        "enableFutures": False,
        "permitsUniversalTransfer": False,
        "enableVanillaOptions": False,
        "enableFixApiTrade": False,
        "enableFixReadOnly": True,
        "enableSpotAndMarginTrading": False,
        "enablePortfolioMarginTrading": False,
    }
    if key.until_ms != NEVER:
        body["tradingAuthorityExpirationTime"] = key.until_ms
    return body


class SignedRest:
    """Routes under the venue's weight limit. ``signed`` False = the key alone is asked for (listen keys)."""

    def __init__(self, venue: BinanceVenue, side: PrivateSide) -> None:
        self._venue = venue
        self._side = side

    def add(self, router: web.UrlDispatcher, path: str, weigh: Weigh, query: Query) -> None:
        async def answer(request: web.Request) -> web.Response:
            return self._answer(request, weigh, lambda key, params: query(self._side.accounts[key.account], params))

        router.add_get(path, answer)

    def add_of_key(
        self, router: web.UrlDispatcher, method: str, path: str, make: Callable[[ApiKey], Any], *, signed: bool
    ) -> None:
        """An answer about the key itself."""

        async def answer(request: web.Request) -> web.Response:
            return self._answer(request, lambda _: 1, lambda key, _: make(key), signed=signed)

        router.add_route(method, path, answer)

    def _answer(
        self, request: web.Request, weigh: Weigh, make: Callable[[ApiKey, Params], Any], *, signed: bool = True
    ) -> web.Response:
        venue = self._venue
        address = request.remote or ""
        now_ms = venue.now_ns() // 1_000_000
        weights = venue.weights_of(address)
        status = 200
        params: dict[str, str] = dict(request.query)
        try:
            verdict = weights.take(weigh(params), time.time())
            if verdict.status != 200:
                venue.count("rest_limited", str(verdict.status))
                return too_much_weight(verdict.status, verdict.retry_after + 1, now_ms)
            key = known_key(self._side.keys, request.headers.get("X-MBX-APIKEY", ""), address, now_ms)
            if signed:
                payload, _, tail = request.raw_path.partition("?")[2].rpartition("&signature=")
                check_signed(key, params | {"signature": unquote(tail)}, payload, now_ms)
            body = make(key, params)
        except Refused as refused:
            body, status = refused.body, refused.status
            venue.count("refused", str(refused.body["code"]))
            verdict = weights.take(0, time.time())
        headers = {"X-MBX-USED-WEIGHT": str(verdict.used), "X-MBX-USED-WEIGHT-1M": str(verdict.used)}
        return web.Response(text=compact(body), status=status, content_type="application/json", headers=headers)
