"""Deribit's API v2: JSON-RPC over WebSocket and REST, channels, heartbeats, credits and their ends of session."""

from __future__ import annotations

import json
import time
from typing import Any, Protocol

from aiohttp import web

from feedmill.simulator.accounts.deribit_private import DeribitSide
from feedmill.simulator.config import SimulatorConfig, VenueConfig
from feedmill.simulator.connection import Connection, Mode
from feedmill.simulator.deribit_auth import Token, Tokens
from feedmill.simulator.deribit_rpc import Methods, MethodSource, RpcError, envelope
from feedmill.simulator.faults import RestFault
from feedmill.simulator.limits import DeribitCredits
from feedmill.simulator.topics import Topic
from feedmill.simulator.venue import Source, Venue

INTERVALS = ("raw", "100ms", "agg2")
_KINDS = ("future", "option", "spot", "future_combo", "option_combo", "combo", "any")
_CURRENCIES = ("BTC", "ETH", "USDC", "USDT", "EURR", "any")


class DeribitData(Source, MethodSource, Protocol):
    """What both sources of Deribit offer."""

    def snapshot(self, topic: Topic) -> str | None: ...

    def members(self, kind: str, currency: str) -> list[str]:
        """Instruments of a group channel."""


class DeribitVenue(Venue):
    def __init__(self, config: VenueConfig, simulator: SimulatorConfig) -> None:
        super().__init__(config, simulator)
        self.private: DeribitSide = DeribitSide(self)
        self.tokens = Tokens(config.credentials, self.private.keys.by_id, self.limits.token_life)
        self.data: DeribitData
        self._credits: dict[str, DeribitCredits] = {}

    def use(self, source: DeribitData) -> None:
        self.source = self.data = source
        self.methods = Methods(self, source)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/ws/api/v2", self.websocket)
        router.add_route("*", "/api/v2", self._rest)
        router.add_route("*", "/api/v2/{method:.*}", self._rest)

    # -- requests

    def on_open(self, connection: Connection) -> None:
        connection.state["groups"] = {}

    def on_message(self, connection: Connection, text: str) -> None:
        started = self.now_ns() // 1000
        try:
            request = json.loads(text)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            error = RpcError(11050, "bad_request", data="invalid json")
            connection.send(envelope(None, error=error, started=started, now=self.now_ns() // 1000))
            return
        ident, method, params = request.get("id"), request.get("method"), request.get("params") or {}
        result: Any = None
        error_: RpcError | None = None
        snapshots: list[tuple[str, str]] = []
        topics: list[Topic] = []
        try:
            if not isinstance(method, str):
                raise RpcError(-32600, "Invalid Request")
            if not isinstance(params, dict):
                raise RpcError(-32602, "Invalid params")
            token = self.private.token_of(connection, params)
            if token is not None and "access_token" in params:
                connection.state.setdefault("token", token)
            self._pay(connection.address, method, token)
            if method == "private/logout" and token is not None:
                connection.close(1000, "logout")
                return
            if method in ("public/subscribe", "private/subscribe"):
                result, snapshots, topics = self._subscribe(
                    connection, params, token, private=method.startswith("private")
                )
            elif method in ("public/unsubscribe", "private/unsubscribe"):
                result = self._unsubscribe(connection, params)
            elif method in ("public/unsubscribe_all", "private/unsubscribe_all"):
                self._unsubscribe(connection, {"channels": list(connection.topics)})
                result = "ok"
            elif method in ("public/set_heartbeat", "public/disable_heartbeat"):
                result = self._heartbeat(connection, method, params)
            elif method == "public/auth":
                now_ms = self.now_ns() // 1_000_000
                granted = self.tokens.grant(params, now_ms, connection.address, connection.number)
                connection.state["authenticated"] = True
                self.private.authorised(connection, granted)
                result = granted.answer()
            elif method.startswith("private/"):
                result = self.private.call(token, method, params)
            else:
                result = self.methods.call(method, params)
        except RpcError as error:
            error_ = error
        if method == "public/test":
            connection.state["test_due"] = None
        if error_ is not None:
            self.count("errors", str(error_.code))
        connection.send(envelope(ident, result=result, error=error_, started=started, now=self.now_ns() // 1000))
        for channel, data in snapshots:
            prefix, suffix = _wrapping(channel)
            connection.send((prefix + data.encode() + suffix).decode())
        if error_ is not None and error_.code == 10028:
            self.count("closed", "credits")
            connection.close(1008, "too_many_requests")
        elif result is not None and method in ("public/subscribe", "private/subscribe"):
            self.subscribed(connection, topics)

    def _pay(self, address: str, method: str, token: Token | None) -> None:
        """The account pays, before a log-on the address."""
        if not self.limits.credits:
            return
        # Not the venue's clock, which a fault may set back: the pools would then never fill again.
        now = time.monotonic()
        payer = address if token is None or not token.account else f"account {token.account}"
        if not self._credits.setdefault(payer, DeribitCredits()).take(method, now):
            raise RpcError(10028, "too_many_requests", status=429)

    async def _rest(self, request: web.Request) -> web.Response:
        started = self.now_ns() // 1000
        method = request.match_info.get("method", "")
        ident: Any = None
        result: Any = None
        error_: RpcError | None = None
        try:
            params: dict[str, Any] = dict(request.query)
            if request.method == "POST":
                try:
                    body = await request.json()
                except ValueError:
                    raise RpcError(11050, "bad_request", data="invalid json") from None
                ident, method = body.get("id"), body.get("method") or method
                params = body.get("params") or {}
            scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() == "deri-hmac-sha256":
                signed = f"{request.method}\n{request.raw_path}\n{await request.text()}\n"
                now_ms = self.now_ns() // 1_000_000
                token: Token | None = self.tokens.signed(credential, signed, now_ms, request.remote or "")
            else:
                token = self.private.token_of(None, params, credential if scheme.lower() == "bearer" else "")
            self._pay(request.remote or "", method, token)
            if method in ("public/subscribe", "public/unsubscribe", "public/set_heartbeat"):
                raise RpcError(10030, "must_be_websocket_request")
            if method == "public/auth":
                address = request.remote or ""
                result = self.tokens.grant(params, self.now_ns() // 1_000_000, address, None).answer()
            elif method.startswith("private/"):
                result = self.private.call(token, method, params)
            else:
                result = self.methods.call(method, params)
        except RpcError as error:
            error_ = error
        text = envelope(ident, result=result, error=error_, started=started, now=self.now_ns() // 1000)
        status = 200 if error_ is None else error_.status
        return web.Response(text=text, status=status, content_type="application/json")

    def rest_fault(self, fault: RestFault) -> web.Response:
        error = RpcError(10028, "too_many_requests") if fault.status != 500 else RpcError(-32603, "Internal error")
        now = self.now_ns() // 1000
        text = envelope(None, error=error, started=now, now=now)
        return web.Response(text=text, status=fault.status, content_type="application/json")

    # -- channels

    def resolve(self, channel: str) -> list[Topic]:
        """The topics behind a channel; empty = unknown (silently left out of the answer)."""
        parts = channel.split(".")
        if len(parts) == 4 and parts[0] == "trades" and parts[1] in _KINDS and parts[2] in _CURRENCIES:
            if parts[3] not in INTERVALS:
                return []
            found = [self.source.topic(native, "trades") for native in self.data.members(parts[1], parts[2])]
            return [topic for topic in found if topic is not None]
        kind = ""
        if len(parts) == 3 and parts[0] in ("trades", "book", "ticker") and parts[2] in INTERVALS:
            kind = parts[0]
        elif len(parts) == 2 and parts[0] == "quote":
            kind = "quote"
        elif len(parts) == 5 and parts[0] == "book" and parts[4] in ("100ms", "agg2", "raw"):
            kind = f"group_{parts[2]}_{parts[3]}" if "_" not in parts[2] + parts[3] else ""
        elif len(parts) == 4 and parts[:2] == ["chart", "trades"]:
            return [topic for topic in [self.source.topic(parts[2], f"chart_{parts[3]}")] if topic is not None]
        topic = self.source.topic(parts[1], kind) if kind else None
        return [] if topic is None else [topic]

    def _subscribe(
        self, connection: Connection, params: dict[str, Any], token: Token | None, *, private: bool
    ) -> tuple[list[str], list[tuple[str, str]], list[Topic]]:
        """(channels accepted, snapshots to send after the answer, topics joined)."""
        channels = params.get("channels")
        if not isinstance(channels, list) or not all(isinstance(channel, str) for channel in channels):
            raise RpcError(-32602, "Invalid params", data={"param": "channels", "reason": "wrong format"})
        authenticated = connection.state.get("authenticated", False)
        if private and not authenticated:
            raise RpcError(13009, "unauthorized", data={"reason": "invalid_token"})
        if (
            any(channel.endswith(".raw") and not channel.startswith("user.") for channel in channels)
            and not authenticated
        ):
            raise RpcError(13778, "raw_subscriptions_not_available_for_unauthorized")
        accepted: list[str] = []
        snapshots: list[tuple[str, str]] = []
        joined: list[Topic] = []
        owned: list[Topic] = []
        groups: dict[str, list[Topic]] = connection.state["groups"]
        for channel in channels:
            if channel in connection.topics or channel in groups:
                accepted.append(channel)
                continue
            if private and channel.startswith("user."):
                mine = self.private.join(connection, token, channel)
                if mine is not None:
                    accepted.append(channel)
                    connection.topics[channel] = mine
                    self.wrap(connection, channel, mine)
                    self.count("subscribes", "Account")
                    owned.append(mine)
                continue
            topics = self.resolve(channel)
            if not topics:
                self.count("subscribes", "unknown")
                continue
            accepted.append(channel)
            prefix, suffix = _wrapping(channel)
            snapshot = self.data.snapshot(topics[0])
            if snapshot is not None:
                snapshots.append((channel, snapshot))
            for topic in topics:
                topic.join(connection, channel, prefix, suffix)
                self.count("subscribes", topic.channel)
            if channel.startswith("trades.") and channel.count(".") == 3:
                groups[channel] = topics
            else:
                connection.topics[channel] = topics[0]
            joined += topics
        for topic in joined:
            self.source.want(topic)
        # The answer does not keep the order of the request.
        return sorted(dict.fromkeys(accepted), key=lambda name: name[::-1]), snapshots, joined + owned

    def wrap(self, connection: Connection, channel: str, topic: Topic) -> None:
        """Join a topic under its channel's name."""
        prefix, suffix = _wrapping(channel)
        topic.join(connection, channel, prefix, suffix)

    def _unsubscribe(self, connection: Connection, params: dict[str, Any]) -> list[str]:
        channels = params.get("channels")
        if not isinstance(channels, list):
            raise RpcError(-32602, "Invalid params", data={"param": "channels", "reason": "wrong format"})
        removed = []
        for channel in channels:
            topic = connection.topics.pop(channel, None)
            group = connection.state.get("groups", {}).pop(channel, [])
            for one in [*([] if topic is None else [topic]), *group]:
                one.leave(connection, channel)
            if topic is not None or group:
                removed.append(channel)
        return removed

    def leave(self, connection: Connection, name: str, topic: Topic) -> None:
        topic.leave(connection, name)

    def _forget(self, connection: Connection) -> None:
        self.tokens.closed(connection.number)
        self._unsubscribe(connection, {"channels": list(connection.state.get("groups", {}))})
        super()._forget(connection)

    def too_slow(self, connection: Connection) -> None:
        self.count("closed", "too_slow")
        connection.parts.clear()
        connection.close(1008, "connection_too_slow")

    # -- heartbeats

    def _heartbeat(self, connection: Connection, method: str, params: dict[str, Any]) -> str:
        state = connection.state
        if method == "public/disable_heartbeat":
            state["beat"] = state["test_due"] = None
            return "ok"
        interval = params.get("interval")
        if isinstance(interval, bool) or not isinstance(interval, (int, float)):
            raise RpcError(-32602, "Invalid params", data={"param": "interval", "reason": "wrong format"})
        if interval < self.limits.heartbeat_minimum:
            raise RpcError(-32602, "Invalid params", data={"param": "interval", "reason": "value too low"})
        seconds = interval * self.limits.heartbeat_scale
        # As measured: the first test comes a fifth later than the interval, and an unanswered one ends the session
        # one interval after it was sent.
        state["beat"] = seconds
        state["next_test"] = connection.loop.time() + seconds * 1.2
        state["test_due"] = None
        return "ok"

    def housekeep(self, now: float) -> None:
        for connection in list(self.connections.values()):
            if connection.closing or connection.closed or connection.mode in (Mode.SILENT, Mode.HALF_OPEN):
                continue
            state = connection.state
            beat = state.get("beat")
            if beat:
                if state.get("test_due") is not None and now >= state["test_due"]:
                    self.count("closed", "heartbeat")
                    connection.close(4000, "heartbeat close")
                    continue
                if now >= state["next_test"]:
                    if now - connection.last_out >= beat:
                        connection.send(_beat("heartbeat"))
                    connection.send(_beat("test_request"))
                    state["next_test"] = now + beat * 1.07
                    state["test_due"] = state.get("test_due") or now + beat
            elif (
                self.limits.idle_timeout
                and not connection.topics
                and not state.get("groups")
                and now - connection.last_in >= self.limits.idle_timeout
            ):
                self.count("closed", "idle")
                connection.abort()


def _beat(kind: str) -> str:
    return f'{{"params":{{"type":"{kind}"}},"method":"heartbeat","jsonrpc":"2.0"}}'


def _wrapping(channel: str) -> tuple[bytes, bytes]:
    head = f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":{json.dumps(channel)},"data":'
    return head.encode(), b"}}"
