"""Deribit, REST half: public methods by GET. Dossier sections 1, 2, 6 and 8."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from feedmill.exchanges.base import Listed, Rest, RestLimits, RestRequest, TradeRange
from feedmill.exchanges.deribit import rows
from feedmill.exchanges.deribit.names import currency_of
from feedmill.exchanges.reading import seconds
from feedmill.exchanges.urls import join

ONE_BY_ONE = 10
"""Up to this many instruments of a currency are asked for singly: the list of a currency is up to a megabyte."""
LIST_WEIGHT = 1
"""In the budget "instruments": one list in 10 s, 5 at once, the stricter of the two documented limits."""
TRADES_PAGE = 1000
KINDS = {
    "spot": frozenset({"Spot"}), "future": frozenset({"Future", "Perpetual"}), "option": frozenset({"Option"}),
    "future_combo": frozenset({"Combo"}), "option_combo": frozenset({"Combo"}),
}  # fmt: skip
"""The venue's kinds and our types among them."""
_RETRY_AFTER = {429: 5.0, 10028: 5.0, 10040: 1.0, 10041: 5.0, 10047: 1.0, 10066: 5.0, 11051: 30.0}
"""Seconds to stay away, by HTTP status or error code, where the answer does not say it."""


class _Error(msgspec.Struct, gc=False):
    code: int = 0


class _Answer(msgspec.Struct, gc=False):
    error: _Error | None = None


_answer = msgspec.json.Decoder(_Answer)


class DeribitRest(Rest):
    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.base = join(base, ("/api/v2", "/api"), "/api/v2")

    def instruments(self, natives: Sequence[str]) -> list[RestRequest]:
        groups: dict[tuple[str, str], list[str]] = defaultdict(list)
        for native in natives:
            groups[currency_of(native)].append(native)
        requests = []
        for (currency, kind), names in groups.items():
            if len(names) <= ONE_BY_ONE:
                requests += [self._call("instruments", "get_instrument", {"instrument_name": n}, 1) for n in names]
                continue
            params = {"currency": currency, "expired": "false"} | ({"kind": kind} if kind else {})
            requests.append(self._call("instruments", "get_instruments", params, LIST_WEIGHT, bucket="instruments"))
        return requests

    def listing(self, types: frozenset[str]) -> list[RestRequest]:
        """One list a kind, of all currencies: linear contracts are listed under what they settle in."""
        kinds = [kind for kind, ours in KINDS.items() if not types or ours & types]
        return [
            self._call(
                "listing", "get_instruments", {"currency": "any", "kind": kind, "expired": "false"}, LIST_WEIGHT,
                bucket="instruments",
            )
            for kind in kinds
        ]  # fmt: skip

    def read_listing(self, body: bytes) -> Iterator[Listed]:
        return rows.listing(body)

    def book_snapshot(self, symbol: str, native: str) -> RestRequest:
        """The venue's books start in-band; this is for comparing, its change_id belongs to the channel's chain."""
        params = {"instrument_name": native, "depth": "10000"}
        return self._call("book_snapshot", "get_order_book", params, 1, symbol, native)

    def trades(self, symbol: str, native: str, wanted: TradeRange) -> RestRequest:
        params = {
            "instrument_name": native, "start_seq": str(wanted.from_id), "end_seq": str(wanted.to_id),
            "count": str(min(wanted.count, TRADES_PAGE)), "sorting": "asc",
        }  # fmt: skip
        return self._call("trades", "get_last_trades_by_instrument", params, 1, symbol, native)

    def _call(
        self,
        kind: str,
        method: str,
        params: Mapping[str, str],
        weight: int,
        symbol: str = "",
        native: str = "",
        bucket: str = "weight",
    ) -> RestRequest:
        return RestRequest(kind, f"{self.base}/public/{method}", params, weight, symbol, native, bucket)

    def read_limits(self, status: int, headers: Mapping[str, str], body: bytes) -> RestLimits:
        """No header tells the budget; Retry-After, status 429 and error 10028 say to stay away."""
        wait = _RETRY_AFTER.get(status)
        if status != 200 and wait is None:
            try:
                error = _answer.decode(body).error
                wait = _RETRY_AFTER.get(error.code) if error is not None else None
            except (msgspec.DecodeError, UnicodeDecodeError):
                wait = None
        if wait is None:
            return RestLimits()
        lower = {name.lower(): value for name, value in headers.items()}
        return RestLimits(None, seconds(lower.get("retry-after", ""), wait))
