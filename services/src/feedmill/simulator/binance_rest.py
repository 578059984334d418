"""Binance's public REST (Spot /api/v3, USD-M /fapi/v1): parameters, weights, errors."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from feedmill.simulator.binance_source import KLINE_MINUTES

if TYPE_CHECKING:
    from feedmill.simulator.binance_server import BinanceVenue


class RestSource(Protocol):
    """Rows for REST. None = unknown symbol."""

    def depth(self, native: str, limit: int) -> dict[str, Any] | None: ...

    def trade_rows(self, native: str, from_id: int | None, limit: int) -> list[dict[str, Any]] | None: ...

    def aggregate_rows(
        self, native: str, from_id: int | None, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[dict[str, Any]] | None: ...

    def kline_rows(
        self, native: str, interval: str, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[list[Any]] | None: ...

    def exchange_info(self, natives: list[str] | None) -> dict[str, Any] | None: ...


class Refused(Exception):
    """An error answer: code, message and HTTP status."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.body: dict[str, Any] = {"code": code, "msg": message}
        self.status = status


_BAD_SYMBOL = (-1121, "Invalid symbol.")


def too_much_text(status: int, until_ms: int) -> str:
    if status == 418:
        return (
            f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams for live "
            "updates to avoid bans."
        )
    return "Too much request weight used; please use WebSocket Streams for live updates to avoid polling the API."


def too_much_weight(status: int, retry_after: float, now_ms: int) -> web.Response:
    """429, or 418 with the end of the ban."""
    text = too_much_text(status, now_ms + int(retry_after * 1000))
    headers = {"Retry-After": str(max(1, int(retry_after)))}
    return web.json_response({"code": -1003, "msg": text}, status=status, headers=headers)


class BinanceRest:
    def __init__(self, venue: BinanceVenue, data: RestSource) -> None:
        self._venue = venue
        self._data = data
        self._spot = venue.spot

    def add_routes(self, router: web.UrlDispatcher) -> None:
        root = "/api/v3" if self._spot else "/fapi/v1"
        for name, handler in (
            ("ping", self._ping),
            ("time", self._time),
            ("exchangeInfo", self._info),
            ("depth", self._depth),
            ("trades", self._trades),
            ("historicalTrades", self._historical),
            ("aggTrades", self._aggregates),
            ("klines", self._klines),
        ):
            router.add_get(f"{root}/{name}", self._guarded(handler))

    def _guarded(self, handler: Any) -> Any:
        """Run ``handler(query) -> (weight, body maker)`` under the weight limit of the caller's address."""

        async def answer(request: web.Request) -> web.Response:
            weights = self._venue.weights_of(request.remote or "")
            try:
                weight, make = handler(request)
                verdict = weights.take(weight, time.time())
                if verdict.status != 200:
                    self._venue.count("rest_limited", str(verdict.status))
                    now_ms = self._venue.now_ns() // 1_000_000
                    return too_much_weight(verdict.status, verdict.retry_after + 1, now_ms)
                body, status = make(), 200
                if body is None:
                    raise Refused(*_BAD_SYMBOL)
            except Refused as refused:
                body, status = refused.body, refused.status
                verdict = weights.take(1, time.time())
            text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
            headers = {"X-MBX-USED-WEIGHT": str(verdict.used), "X-MBX-USED-WEIGHT-1M": str(verdict.used)}
            return web.Response(text=text, status=status, content_type="application/json", headers=headers)

        return answer

    def _ping(self, _: web.Request) -> Any:
        return 1, dict

    def _time(self, _: web.Request) -> Any:
        return 1, lambda: {"serverTime": self._venue.now_ns() // 1_000_000}

    def _info(self, request: web.Request) -> Any:
        natives: list[str] | None = None
        if self._spot and "symbol" in request.query:
            natives = [request.query["symbol"]]
        elif self._spot and "symbols" in request.query:
            try:
                natives = json.loads(request.query["symbols"])
            except ValueError:
                raise Refused(-1100, "Illegal characters found in parameter 'symbols'.") from None
        return 20 if self._spot else 1, lambda: self._data.exchange_info(natives)

    def _depth(self, request: web.Request) -> Any:
        native = _symbol(request)
        if self._spot:
            limit = min(5000, _int(request, "limit", 100) or 100)
            weight = 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250
        else:
            limit = _int(request, "limit", 500) or 500
            if limit not in (5, 10, 20, 50, 100, 500, 1000):
                raise Refused(-4021, f"{limit} is not valid depth limit.")
            weight = 2 if limit <= 50 else 5 if limit == 100 else 10 if limit == 500 else 20
        return weight, lambda: self._data.depth(native, limit)

    def _trades(self, request: web.Request) -> Any:
        native, limit = _symbol(request), _limit(request, 1000)
        return 25 if self._spot else 5, lambda: self._data.trade_rows(native, None, limit)

    def _historical(self, request: web.Request) -> Any:
        native, from_id = _symbol(request), _int(request, "fromId", None)
        if self._spot:
            limit, weight = _limit(request, 1000), 25
        else:
            if not request.headers.get("X-MBX-APIKEY"):
                raise Refused(-2014, "API-key format invalid.", 401)
            limit, weight = _limit(request, 500, 100), 200
        return weight, lambda: self._data.trade_rows(native, from_id, limit)

    def _aggregates(self, request: web.Request) -> Any:
        native, limit = _symbol(request), _limit(request, 1000)
        from_id, start, end = (_int(request, name, None) for name in ("fromId", "startTime", "endTime"))
        if not self._spot and start is not None and end is not None and end - start >= 3_600_000:
            raise Refused(-4189, "startTime and endTime must be less than one hour apart.")
        return 4 if self._spot else 20, lambda: self._data.aggregate_rows(native, from_id, start, end, limit)

    def _klines(self, request: web.Request) -> Any:
        native, limit = _symbol(request), _limit(request, 1000 if self._spot else 1500)
        interval = request.query.get("interval", "")
        if interval not in KLINE_MINUTES:
            raise Refused(-1120, "Invalid interval.")
        start, end = (_int(request, name, None) for name in ("startTime", "endTime"))
        weight = 2 if self._spot else 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10
        return weight, lambda: self._data.kline_rows(native, interval, start, end, limit)


def _symbol(request: web.Request) -> str:
    symbol = request.query.get("symbol", "")
    if not symbol:
        raise Refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    return symbol


def _int(request: web.Request, name: str, default: int | None) -> int | None:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdigit():
        raise Refused(-1100, f"Illegal characters found in parameter '{name}'.")
    return int(text)


def _limit(request: web.Request, top: int, default: int = 500) -> int:
    return max(1, min(top, _int(request, "limit", default) or default))
