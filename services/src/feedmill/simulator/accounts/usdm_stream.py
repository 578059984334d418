"""Binance USD-M's private side: listen keys, the /private streams, and the signed REST."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from feedmill.simulator.accounts import usdm_texts as texts
from feedmill.simulator.accounts.binance_signed import (
    DAY_MS,
    Params,
    SignedRest,
    open_orders,
    restrictions,
    some_fills,
    some_orders,
    symbol_of,
)
from feedmill.simulator.accounts.keys import ApiKey
from feedmill.simulator.accounts.listen_keys import ListenKey, ListenKeys
from feedmill.simulator.accounts.model import Account, Update
from feedmill.simulator.accounts.side import PrivateSide
from feedmill.simulator.accounts.spot_texts import compact
from feedmill.simulator.binance_rest import Refused
from feedmill.simulator.topics import Topic

if TYPE_CHECKING:
    from feedmill.simulator.binance_server import BinanceVenue
    from feedmill.simulator.connection import Connection

EVENTS = ("ORDER_TRADE_UPDATE", "TRADE_LITE", "ACCOUNT_UPDATE")
NO_LISTEN_KEY = (-1125, "This listenKey does not exist.")


class UsdmSide(PrivateSide):
    venue: BinanceVenue

    def __init__(self, venue: BinanceVenue) -> None:
        super().__init__(venue)
        self.listen_keys = ListenKeys(int(venue.limits.listen_key_life * 1000))

    def add_routes(self, router: web.UrlDispatcher) -> None:
        rest = SignedRest(self.venue, self)
        for method, make in (("POST", self._make), ("PUT", self._renew), ("DELETE", self._drop)):
            rest.add_of_key(router, method, "/fapi/v1/listenKey", make, signed=False)
        rest.add_of_key(router, "GET", "/sapi/v1/account/apiRestrictions", restrictions, signed=True)
        rest.add(router, "/fapi/v3/account", lambda _: 5, lambda account, _: texts.account_row(account, self.price))
        rest.add(router, "/fapi/v3/balance", lambda _: 5, lambda account, _: texts.balance_rows(account))
        rest.add(router, "/fapi/v3/positionRisk", lambda _: 5, self._positions)
        rest.add(router, "/fapi/v1/openOrders", lambda params: 1 if "symbol" in params else 40, self._open)
        rest.add(router, "/fapi/v1/allOrders", lambda _: 5, self._orders)
        rest.add(router, "/fapi/v1/userTrades", lambda _: 5, self._trades)
        rest.add(router, "/fapi/v1/positionSide/dual", lambda _: 30, lambda _, __: {"dualSidePosition": False})

    def publish(self, update: Update) -> None:
        name = update.account.name
        topics = {kind: self.topics.get((name, kind)) for kind in EVENTS}
        if not any(topic is not None and topic.outlets for topic in topics.values()):
            return
        for kind, text in texts.events(update, self.venue.now_ns() // 1_000_000, self.price):
            topic = topics[kind]
            if topic is not None and topic.outlets:
                topic.emit(text.encode())

    # -- listen keys

    def _make(self, key: ApiKey) -> Any:
        return {"listenKey": self.listen_keys.make(key, self.venue.now_ns() // 1_000_000)}

    def _renew(self, key: ApiKey) -> Any:
        text = self.listen_keys.renew(key.account, self.venue.now_ns() // 1_000_000)
        if text is None:
            raise Refused(*NO_LISTEN_KEY)
        return {"listenKey": text}

    def _drop(self, key: ApiKey) -> Any:
        found = self.listen_keys.drop(key.account)
        if found is None:
            raise Refused(*NO_LISTEN_KEY)
        self._silence(found, tell=False)
        return {}

    def housekeep(self, now_ms: int) -> None:
        super().housekeep(now_ms)
        for ended in self.listen_keys.ended(now_ms):
            self._silence(ended, tell=True)

    def revoked(self, key: ApiKey) -> None:
        self._expire([each for each in self.listen_keys.all() if each.key is key])

    def expire(self, account: str) -> int:
        return self._expire([each for each in self.listen_keys.all() if account in ("", each.account)])

    def _expire(self, gone: list[ListenKey]) -> int:
        for each in gone:
            self.listen_keys.drop(each.account)
            self._silence(each, tell=True)
        return len(gone)

    def _silence(self, ended: ListenKey, *, tell: bool) -> None:
        """Its connections stay open and hear no more; an expiry is announced."""
        event = compact({"e": "listenKeyExpired", "E": self.venue.now_ns() // 1_000_000, "listenKey": ended.text})
        for connection in self.venue.connections.values():
            if self.unlisten(connection, ended.text) and tell:
                prefix, suffix = _wrapping(connection, ended.text)
                connection.send(prefix + event + suffix)

    # -- streams

    def on_open(self, connection: Connection) -> list[Topic]:
        """Join what ``listenKey`` and ``events`` of the URL name (pairs, in order); returns the topics."""
        joined: list[Topic] = []
        wanted: list[tuple[str, tuple[str, ...]]] = []
        for name, value in connection.request.query.items():
            if name == "listenKey":
                wanted.append((value, EVENTS))
            elif name == "events" and wanted:
                wanted[-1] = (wanted[-1][0], tuple(value.split("/")))
        for text, kinds in wanted:
            joined += self.listen(connection, text, kinds)
        return joined

    def listen(self, connection: Connection, text: str, kinds: tuple[str, ...] = EVENTS) -> list[Topic]:
        """Nothing when the listen key is unknown: that is not told, it stays silent."""
        found = self.listen_keys.find(text)
        if found is None or self.venue.now_ns() // 1_000_000 >= found.until_ms:
            connection.silent_names.add(text)
            self.venue.count("subscribes", "silent")
            return []
        joined = []
        prefix, suffix = _wrapping(connection, text)
        for kind in kinds:
            # An outlet is shared by all connections that join under one name, so the form is part of it.
            name = f"{text}:{kind}:{connection.state['combined']}"
            if kind in EVENTS and name not in connection.topics:
                topic = connection.topics[name] = self.topic(found.account, kind)
                topic.join(connection, name, prefix.encode(), suffix.encode())
                joined.append(topic)
        self.venue.count("subscribes", "Account")
        return joined

    def unlisten(self, connection: Connection, text: str) -> bool:
        names = [name for name in connection.topics if name.startswith(text + ":")]
        for name in names:
            connection.topics.pop(name).leave(connection, name)
        return bool(names)

    # -- REST

    def _positions(self, account: Account, params: Params) -> Any:
        return texts.position_rows(account, symbol_of(self, params, needed=False), self.price)

    def _open(self, account: Account, params: Params) -> Any:
        symbol = symbol_of(self, params, needed=False)
        return [texts.order_row(order) for order in open_orders(account, symbol)]

    def _orders(self, account: Account, params: Params) -> Any:
        symbol = symbol_of(self, params, needed=False)
        return [texts.order_row(order) for order in some_orders(account, symbol, params, 7 * DAY_MS)]

    def _trades(self, account: Account, params: Params) -> Any:
        symbol = symbol_of(self, params, needed=True)
        return [texts.trade_row(fill) for fill in some_fills(account, symbol, params, 7 * DAY_MS)]


def _wrapping(connection: Connection, text: str) -> tuple[str, str]:
    return (f'{{"stream":"{text}","data":', "}") if connection.state["combined"] else ("", "")
