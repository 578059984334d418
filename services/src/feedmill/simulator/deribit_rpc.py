"""Deribit's public methods that answer the same over WebSocket and REST, and the JSON-RPC envelope."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from feedmill.simulator.venue import Venue

_BOOK_DEPTHS = (1, 5, 10, 20, 50, 100, 1000, 10000)


class RpcError(Exception):
    """An error answer: code, message, optional data; ``status`` over REST."""

    def __init__(self, code: int, message: str, *, data: Any = None, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.status = status


class Raw(str):
    """A result that is JSON text already (numbers exactly as the venue prints them)."""

    __slots__ = ()


def envelope(ident: Any, *, started: int, now: int, result: Any = None, error: RpcError | None = None) -> str:
    """The answer; ``started`` and ``now`` are µs. A request without id is answered without id."""
    head = '"jsonrpc":"2.0"' + ("" if ident is None else f',"id":{json.dumps(ident)}')
    if error is None:
        body = f'"result":{result if isinstance(result, Raw) else json.dumps(result, separators=(",", ":"))}'
    else:
        detail: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.data is not None:
            detail["data"] = error.data
        body = f'"error":{json.dumps(detail, separators=(",", ":"))}'
    return f'{{{head},{body},"usIn":{started},"usOut":{now},"usDiff":{now - started},"testnet":false}}'


class MethodSource(Protocol):
    """Data behind the methods; None = unknown instrument."""

    def last_trades(self, native: str) -> list[tuple[int, int, str]] | None: ...

    def order_book(self, native: str, depth: int) -> str | None: ...

    def instrument(self, native: str) -> dict[str, Any] | None: ...

    def instruments(self, currency: str, kind: str) -> list[dict[str, Any]]: ...


class Methods:
    def __init__(self, venue: Venue, data: MethodSource) -> None:
        self._venue = venue
        self._data = data

    def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The result of a method. Raises RpcError."""
        if method == "public/get_time":
            return self._venue.now_ns() // 1_000_000
        if method in ("public/test", "public/hello"):
            return {"version": "1.2.26"}
        if method == "public/status":
            return {"locked": "false"}
        if method == "public/get_instruments":
            return self._instruments(params)
        if method == "public/get_instrument":
            return self._found(self._data.instrument(_name(params)))
        if method == "public/get_order_book":
            depth = number_param(params, "depth", 5)
            if depth not in _BOOK_DEPTHS:
                raise bad_param("depth", "must be one of 1, 5, 10, 20, 50, 100, 1000, 10000")
            return Raw(self._found(self._data.order_book(_name(params), depth)))
        if method in ("public/get_last_trades_by_instrument", "public/get_last_trades_by_instrument_and_time"):
            return self._last_trades(params, by_time=method.endswith("_and_time"))
        raise RpcError(-32601, "Method not found")

    def _instruments(self, params: Mapping[str, Any]) -> Any:
        currency = str(params.get("currency", ""))
        if not currency:
            raise bad_param("currency", "missing")
        if str(params.get("expired", "false")).lower() == "true":
            return []
        return self._data.instruments(currency, str(params.get("kind", "")))

    def _last_trades(self, params: Mapping[str, Any], *, by_time: bool) -> Raw:
        rows = self._found(self._data.last_trades(_name(params)))
        count = number_param(params, "count", 10)
        if not 1 <= count <= 1000:
            raise bad_param("count", "must be from 1 to 1000")
        if by_time and not ("start_timestamp" in params and "end_timestamp" in params):
            raise bad_param("start_timestamp", "missing")
        start_seq, end_seq = number_param(params, "start_seq", 0), number_param(params, "end_seq", 1 << 62)
        start, end = number_param(params, "start_timestamp", 0), number_param(params, "end_timestamp", 1 << 62)
        wanted = [row for row in rows if start_seq <= row[0] <= end_seq and start <= row[1] <= end]
        sorting = str(params.get("sorting", "default"))
        if sorting not in ("asc", "desc", "default"):
            raise bad_param("sorting", "must be asc, desc or default")
        ascending = sorting == "asc"
        part = wanted[:count] if ascending else wanted[-count:][::-1]
        if sorting == "default":
            # Roughly descending only: neighbours are out of order now and then.
            for at in range(5, len(part) - 1, 6):
                part[at], part[at + 1] = part[at + 1], part[at]
        more = "true" if len(wanted) > len(part) else "false"
        return Raw(f'{{"trades":[{",".join(row[2] for row in part)}],"has_more":{more}}}')

    @staticmethod
    def _found(value: Any) -> Any:
        if value is None:
            raise RpcError(13020, "not_found")
        return value


def bad_param(name: str, reason: str) -> RpcError:
    return RpcError(-32602, "Invalid params", data={"param": name, "reason": reason})


def _name(params: Mapping[str, Any]) -> str:
    name = params.get("instrument_name")
    if not isinstance(name, str) or not name:
        raise bad_param("instrument_name", "missing")
    return name


def number_param(params: Mapping[str, Any], name: str, default: int) -> int:
    value = params.get(name, default)
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, str) and value.isdigit())):
        raise bad_param(name, "wrong format")
    return int(value)
