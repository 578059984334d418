"""Binance Spot's private side: the WebSocket API's sessions and user data subscriptions, and the signed REST."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from feedmill.simulator.accounts.binance_signed import (
    BAD_KEY,
    SignedRest,
    check_signed,
    known_key,
    restrictions,
)
from feedmill.simulator.accounts.keys import ApiKey
from feedmill.simulator.accounts.model import Update
from feedmill.simulator.accounts.side import PrivateSide
from feedmill.simulator.accounts.spot_queries import questions
from feedmill.simulator.accounts.spot_texts import compact, events
from feedmill.simulator.binance_rest import Refused, too_much_text
from feedmill.simulator.topics import Topic

if TYPE_CHECKING:
    from feedmill.simulator.binance_server import BinanceVenue
    from feedmill.simulator.connection import Connection

MAX_ACTIVE = 1000
MAX_EVER = 65_535
KIND = "user"


@dataclass(slots=True)
class Subscription:
    key: ApiKey
    by_logon: bool


@dataclass(slots=True)
class Session:
    """One connection of the WebSocket API."""

    connected_ms: int
    show_limits: bool
    logon: ApiKey | None = None
    logon_ms: int = 0
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    next_id: int = 0


class SpotSide(PrivateSide):
    venue: BinanceVenue

    def __init__(self, venue: BinanceVenue) -> None:
        super().__init__(venue)
        self._executions = 0
        self._questions = questions(self)
        self._by_method = {question.method: question for question in self._questions}

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/ws-api/v3", self.venue.websocket)
        rest = SignedRest(self.venue, self)
        for question in self._questions:
            rest.add(router, question.path, question.weigh, question.query)
        rest.add_of_key(router, "GET", "/sapi/v1/account/apiRestrictions", restrictions, signed=True)

    def publish(self, update: Update) -> None:
        self._executions += 1
        topic = self.topics.get((update.account.name, KIND))
        if topic is not None and topic.outlets:
            for text in events(update, self._executions, self.venue.now_ns() // 1_000_000):
                topic.emit(text.encode())

    # -- sessions

    def on_open(self, connection: Connection) -> None:
        # The streams' limit of client messages is not the API's: weight is.
        connection.rate = None
        shown = connection.request.query.get("returnRateLimits", "") != "false"
        connection.state["session"] = Session(self.venue.now_ns() // 1_000_000, shown)
        self.venue.weights_of(connection.address).take(2, time.time())

    def on_message(self, connection: Connection, text: str) -> None:
        try:
            request = json.loads(text)
        except ValueError:
            request = None
        ident = request.get("id") if isinstance(request, dict) else None
        session: Session = connection.state["session"]
        joined: list[Topic] = []
        try:
            if not isinstance(request, dict) or not isinstance(request.get("method"), str):
                raise Refused(-1100, "Illegal characters found in a parameter.")
            params = request.get("params") or {}
            if not isinstance(params, dict):
                raise Refused(-1100, "Illegal characters found in parameter 'params'.")
            result = self._call(connection, session, request["method"], params, joined)
            body: dict[str, Any] = {"id": ident, "status": 200, "result": result}
        except Refused as refused:
            self.venue.count("refused", str(refused.body["code"]))
            body = {"id": ident, "status": refused.status, "error": refused.body}
        if session.show_limits:
            body["rateLimits"] = [self._limit(connection)]
        connection.send(compact(body))
        if joined:
            self.venue.subscribed(connection, joined)

    def _limit(self, connection: Connection) -> dict[str, Any]:
        used = self.venue.weights_of(connection.address).take(0, time.time()).used
        limit = self.venue.limits.weight
        return {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": limit,
            "count": used,
        }

    def _pay(self, connection: Connection, weight: int) -> None:
        verdict = self.venue.weights_of(connection.address).take(weight, time.time())
        if verdict.status == 200:
            return
        self.venue.count("rest_limited", str(verdict.status))
        now_ms = self.venue.now_ns() // 1_000_000
        retry_ms = now_ms + int((verdict.retry_after + 1) * 1000)
        refused = Refused(-1003, too_much_text(verdict.status, retry_ms), verdict.status)
        refused.body["data"] = {"serverTime": now_ms, "retryAfter": retry_ms}
        raise refused

    def _call(
        self, connection: Connection, session: Session, method: str, params: dict[str, Any], joined: list[Topic]
    ) -> Any:
        question = self._by_method.get(method)
        # JSON numbers and booleans as the text that is signed.
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}
        self._pay(connection, question.weigh(texts) if question else 1 if method in ("ping", "time") else 2)
        now_ms = self.venue.now_ns() // 1_000_000
        if method == "ping":
            return {}
        if method == "time":
            return {"serverTime": now_ms}
        if question is not None:
            signed = "signature" in texts
            key = self._signed(connection, texts) if signed else self._logged_on(session)
            return question.query(self.accounts[key.account], texts)
        if method == "session.logon":
            key = self._signed(connection, texts)
            if key.kind != "ed25519":
                raise Refused(-4056, "HMAC_SHA256 API key is not supported.")
            session.logon, session.logon_ms = key, now_ms
            return self._status(session)
        if method == "session.status":
            return self._status(session)
        if method == "session.logout":
            self._end(connection, session, [at for at, each in session.subscriptions.items() if each.by_logon])
            session.logon = None
            return self._status(session)
        if method == "session.subscriptions":
            return [{"subscriptionId": at} for at in session.subscriptions]
        if method == "userDataStream.subscribe":
            return self._subscribe(connection, session, Subscription(self._logged_on(session), True), joined)
        if method == "userDataStream.subscribe.signature":
            return self._subscribe(connection, session, Subscription(self._signed(connection, texts), False), joined)
        if method == "userDataStream.unsubscribe":
            wanted = params.get("subscriptionId")
            if wanted is not None and wanted not in session.subscriptions:
                raise Refused(-2036, "User Data Stream subscription not active.")
            self._end(connection, session, list(session.subscriptions) if wanted is None else [wanted])
            return {}
        raise Refused(-1104, f"Unknown method '{method}'.")

    def _signed(self, connection: Connection, params: dict[str, str]) -> ApiKey:
        now_ms = self.venue.now_ns() // 1_000_000
        key = known_key(self.keys, params.get("apiKey", ""), connection.address, now_ms)
        payload = "&".join(f"{name}={params[name]}" for name in sorted(params) if name != "signature")
        check_signed(key, params, payload, now_ms)
        return key

    def _logged_on(self, session: Session) -> ApiKey:
        if session.logon is None:
            raise Refused(*BAD_KEY)
        return session.logon

    def _status(self, session: Session) -> dict[str, Any]:
        on = session.logon is not None
        return {
            "apiKey": session.logon.id if session.logon else None,
            "authorizedSince": session.logon_ms if on else None,
            "connectedSince": session.connected_ms,
            "returnRateLimits": session.show_limits,
            "serverTime": self.venue.now_ns() // 1_000_000,
            "userDataStream": any(each.by_logon for each in session.subscriptions.values()) if on else None,
        }

    # -- subscriptions

    def _subscribe(
        self, connection: Connection, session: Session, made: Subscription, joined: list[Topic]
    ) -> dict[str, int]:
        account = made.key.account
        if any(each.key.account == account for each in session.subscriptions.values()):
            raise Refused(-2035, "User Data Stream subscription already active.")
        if len(session.subscriptions) >= MAX_ACTIVE or session.next_id >= MAX_EVER:
            raise Refused(-2042, "Maximum subscription ids reached for this connection.")
        ident = session.next_id
        session.next_id += 1
        session.subscriptions[ident] = made
        topic = self.topic(account, KIND)
        name = f"{KIND}:{ident}"
        connection.topics[name] = topic
        topic.join(connection, name, f'{{"subscriptionId":{ident},"event":'.encode(), b"}")
        self.venue.count("subscribes", "Account")
        joined.append(topic)
        return {"subscriptionId": ident}

    def _end(self, connection: Connection, session: Session, idents: list[int]) -> None:
        """End subscriptions: each says so as its last event."""
        for ident in idents:
            del session.subscriptions[ident]
            name = f"{KIND}:{ident}"
            connection.topics.pop(name).leave(connection, name)
            event = {"e": "eventStreamTerminated", "E": self.venue.now_ns() // 1_000_000}
            connection.send(compact({"subscriptionId": ident, "event": event}))

    def _sessions(self) -> list[tuple[Connection, Session]]:
        return [
            (connection, connection.state["session"])
            for connection in self.venue.connections.values()
            if "session" in connection.state
        ]

    def revoked(self, key: ApiKey) -> None:
        for connection, session in self._sessions():
            self._end(connection, session, [at for at, each in session.subscriptions.items() if each.key is key])
            if session.logon is key:
                session.logon = None
                code, message, status = BAD_KEY
                connection.send(compact({"id": None, "status": status, "error": {"code": code, "msg": message}}))

    def expire(self, account: str) -> int:
        hit = 0
        for connection, session in self._sessions():
            ended = [at for at, each in session.subscriptions.items() if account in ("", each.key.account)]
            self._end(connection, session, ended)
            hit += len(ended)
        return hit
