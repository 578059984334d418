"""Binance's market stream servers (Spot and USD-M): subscriptions by URL and message, errors, limits, the 24 h cut."""

from __future__ import annotations

import json
import re
from typing import Any, Protocol
from urllib.parse import unquote

from aiohttp import web

from feedmill.simulator.accounts.spot_stream import SpotSide
from feedmill.simulator.accounts.usdm_stream import UsdmSide
from feedmill.simulator.binance_rest import BinanceRest, RestSource, too_much_weight
from feedmill.simulator.config import Limits, SimulatorConfig, VenueConfig
from feedmill.simulator.connection import Connection, Mode
from feedmill.simulator.faults import RestFault
from feedmill.simulator.limits import Weights
from feedmill.simulator.topics import Topic
from feedmill.simulator.venue import Source, Venue

_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_SPEEDS = {
    "Spot": ("depth", "depth@100ms", "depth@1000ms"),
    "UsdM": ("depth", "depth@100ms", "depth@250ms", "depth@500ms"),
}
_MARKET_CLASS = ("aggTrade", "kline_")
_ID = re.compile(r"[0-9A-Za-z_-]{1,36}")


class BinanceData(Source, RestSource, Protocol):
    """What both sources of a Binance venue offer."""


class BinanceVenue(Venue):
    """``make_source`` is called with the venue once everything else of it exists."""

    def __init__(self, config: VenueConfig, simulator: SimulatorConfig) -> None:
        super().__init__(config, simulator)
        self.spot = config.market == "Spot"
        self.data: BinanceData
        self._weights: dict[str, Weights] = {}
        self.private: SpotSide | UsdmSide = SpotSide(self) if self.spot else UsdmSide(self)

    def weights_of(self, address: str) -> Weights:
        """Public and signed requests share one."""
        return self._weights.setdefault(address, Weights(self.limits))

    def set_limits(self, limits: Limits) -> None:
        """What was used so far is forgotten: another limit of the same minute would judge it."""
        super().set_limits(limits)
        self._weights.clear()

    def stats(self) -> dict[str, Any]:
        most = max((each.peak for each in self._weights.values()), default=0)
        return super().stats() | {"weight": {"limit": self.limits.weight, "peak": most}}

    def use(self, source: BinanceData) -> None:
        self.source = self.data = source

    def add_routes(self, router: web.UrlDispatcher) -> None:
        roots = ("",) if self.spot else ("", "/public", "/market", "/private")
        for root in roots:
            router.add_get(f"{root}/ws", self.websocket)
            router.add_get(f"{root}/ws/{{streams:.+}}", self.websocket)
            router.add_get(f"{root}/stream", self.websocket)
        BinanceRest(self, self.data).add_routes(router)
        self.private.add_routes(router)

    def rest_fault(self, fault: RestFault) -> web.Response:
        if fault.status == 500:
            body: dict[str, Any] = {"code": -1000, "msg": "An unknown error occurred while processing the request."}
            return web.json_response(body, status=500)
        return too_much_weight(fault.status, fault.retry_after, self.now_ns() // 1_000_000)

    # -- streams

    def on_open(self, connection: Connection) -> None:
        parts = connection.request.path.split("/")
        routed = parts[1] in ("public", "market", "private")
        connection.state["root"] = parts[1] if routed else ""
        connection.state["combined"] = parts[2 if routed else 1] == "stream"
        if isinstance(self.private, SpotSide) and parts[1] == "ws-api":
            self.private.on_open(connection)
            return
        if isinstance(self.private, UsdmSide) and parts[1] == "private":
            joined = self.private.on_open(connection)
            if joined:
                self.subscribed(connection, joined)
        names = [name for name in unquote(self._streams_in(connection.request)).split("/") if name]
        if names:
            self.subscribed(connection, self._subscribe(connection, names))

    @staticmethod
    def _streams_in(request: web.Request) -> str:
        return request.match_info.get("streams") or request.query.get("streams", "")

    def resolve(self, connection: Connection, name: str) -> Topic | None:
        """The topic of a stream name on this connection; None = acknowledged and silent."""
        pair, _, stream = name.partition("@")
        if not stream or pair != pair.lower():
            return None
        wants_market = stream.startswith(_MARKET_CLASS)
        if not self.spot:
            root = connection.state["root"]
            # A stream on the wrong root is acknowledged and never speaks; the old roots carry only the public class.
            if root == "private" or wants_market != (root == "market"):
                return None
        if stream.startswith("depth"):
            if stream not in _SPEEDS[self.config.market]:
                return None
            stream = "depth"
        return self.source.topic(pair.upper(), stream)

    def _subscribe(self, connection: Connection, names: list[str]) -> list[Topic]:
        joined = []
        for name in names:
            if name in connection.topics or name in connection.silent_names:
                continue
            if isinstance(self.private, UsdmSide) and connection.state["root"] == "private":
                joined += self.private.listen(connection, name)
                continue
            topic = self.resolve(connection, name)
            if topic is None:
                connection.silent_names.add(name)
                self.count("subscribes", "silent")
                continue
            connection.topics[name] = topic
            self._join(connection, name, topic)
            self.count("subscribes", topic.channel)
            joined.append(topic)
        for topic in joined:
            if topic.channel != "Account":
                self.source.want(topic)
        return joined

    def _join(self, connection: Connection, name: str, topic: Topic) -> None:
        combined = connection.state["combined"]
        prefix = f'{{"stream":{json.dumps(name, ensure_ascii=False)},"data":'.encode() if combined else b""
        topic.join(connection, f"{name}|{combined}", prefix, b"}" if combined else b"")

    def leave(self, connection: Connection, name: str, topic: Topic) -> None:
        private = topic.channel == "Account"
        topic.leave(connection, name if private else f"{name}|{connection.state['combined']}")

    # -- messages

    def on_message(self, connection: Connection, text: str) -> None:
        if isinstance(self.private, SpotSide) and "session" in connection.state:
            self.private.on_message(connection, text)
            return
        try:
            request = json.loads(text)
        except ValueError as error:
            line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
            self._error(connection, 3, f"Invalid JSON: expected value at line {line} column {column}")
            return
        problem = self._problem(request)
        if problem:
            self._error(connection, 2, f"Invalid request: {problem}")
            return
        method, params, ident = request["method"], request.get("params") or [], request.get("id")
        if method == "SUBSCRIBE":
            held = len(connection.topics) + len(connection.silent_names)
            if held + len(set(params)) > self.limits.streams:
                self.count("closed", "too_many_streams")
                connection.close(1008, "Too many streams")
                return
            topics = self._subscribe(connection, params)
            self._reply(connection, ident, None)
            self.subscribed(connection, topics)
        elif method == "UNSUBSCRIBE":
            for name in params:
                connection.silent_names.discard(name)
                if isinstance(self.private, UsdmSide):
                    self.private.unlisten(connection, name)
                topic = connection.topics.pop(name, None)
                if topic is not None:
                    self.leave(connection, name, topic)
            self._reply(connection, ident, None)
        elif method == "LIST_SUBSCRIPTIONS":
            # Of a listen key each event is a topic of its own.
            held_names = dict.fromkeys(name.partition(":")[0] for name in connection.topics)
            self._reply(connection, ident, [*held_names, *sorted(connection.silent_names)])
        elif params[0] != "combined":
            self._error(connection, 0, "Unknown property", ident)
        elif method == "GET_PROPERTY":
            self._reply(connection, ident, connection.state["combined"])
        elif len(params) < 2 or not isinstance(params[1], bool):
            self._error(connection, 1, "Invalid value type: expected Boolean")
        else:
            self._set_combined(connection, params[1])
            self._reply(connection, ident, None)

    def _problem(self, request: Any) -> str:
        """What is wrong with a request, in the server's words; empty = nothing."""
        if not isinstance(request, dict):
            return "invalid type: expected an object"
        method, ident, params = request.get("method"), request.get("id"), request.get("params")
        if "method" not in request:
            return "missing field `method` at line 1 column 1"
        if method not in _METHODS:
            expected = ", ".join(f"`{name}`" for name in _METHODS)
            return f"unknown variant `{method}`, expected one of {expected} at line 1 column 1"
        if isinstance(ident, bool) or not (ident is None or self._good_id(ident)):
            wanted = "a signed integer, a string or null" if self.spot else "an unsigned integer"
            return f"request ID must be {wanted}"
        if set(request) - {"method", "params", "id"}:
            return "too many parameters"
        if method == "LIST_SUBSCRIPTIONS":
            return ""
        if not isinstance(params, list) or not params:
            return "missing field `params` at line 1 column 1"
        if not isinstance(params[0], str):
            return "property name must be a string"
        if method in ("SUBSCRIBE", "UNSUBSCRIBE") and not all(isinstance(name, str) for name in params):
            return "stream name must be a string"
        return ""

    def _good_id(self, ident: Any) -> bool:
        if isinstance(ident, int):
            return -(2**63) <= ident < 2**63 if self.spot else 0 <= ident < 2**64
        return self.spot and isinstance(ident, str) and _ID.fullmatch(ident) is not None

    def _set_combined(self, connection: Connection, combined: bool) -> None:
        public = {name: topic for name, topic in connection.topics.items() if topic.channel != "Account"}
        for name, topic in public.items():
            self.leave(connection, name, topic)
        connection.state["combined"] = combined
        for name, topic in public.items():
            self._join(connection, name, topic)

    def _reply(self, connection: Connection, ident: Any, result: Any) -> None:
        connection.send(json.dumps({"result": result, "id": ident}, separators=(",", ":"), ensure_ascii=False))

    def _error(self, connection: Connection, code: int, message: str, ident: Any = None) -> None:
        body: dict[str, Any] = {"code": code, "msg": message}
        if ident is not None and self.spot:
            body["id"] = ident
        self.count("errors", str(code))
        connection.send(json.dumps(body, separators=(",", ":")))

    # -- the cut

    def housekeep(self, now: float) -> None:
        """Binance has no timers beyond PING and the lifetime, which every venue has."""

    def announce_cut(self, connection: Connection, due: bool) -> None:
        if self.spot and not connection.state.get("announced"):
            connection.state["announced"] = True
            event = f'{{"e":"serverShutdown","E":{self.now_ns() // 1_000_000}}}'
            if "session" in connection.state:
                event = f'{{"event":{event}}}'
            elif connection.state["combined"]:
                event = f'{{"stream":"!serverShutdown","data":{event}}}'
            if connection.mode in (Mode.NORMAL, Mode.SLOW):
                connection.send(event)
        super().announce_cut(connection, due)
