"""Deribit's private side: who may ask, ``user.*`` subscriptions, and what ends with a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from feedmill.simulator.accounts.deribit_channels import NEEDED, UserChannel, notifications, parse
from feedmill.simulator.accounts.deribit_methods import PrivateMethods
from feedmill.simulator.accounts.keys import ApiKey
from feedmill.simulator.accounts.model import Update
from feedmill.simulator.accounts.side import PrivateSide
from feedmill.simulator.deribit_auth import Token
from feedmill.simulator.deribit_rpc import Raw, RpcError
from feedmill.simulator.topics import Topic

if TYPE_CHECKING:
    from feedmill.simulator.connection import Connection
    from feedmill.simulator.deribit_server import DeribitVenue


class DeribitSide(PrivateSide):
    venue: DeribitVenue

    def __init__(self, venue: DeribitVenue) -> None:
        super().__init__(venue)
        self._methods = PrivateMethods(self.listings, self.price)
        self._channels: dict[str, dict[str, UserChannel]] = {}
        """Account -> channel name -> what it is; those subscribed at least once."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Deribit's one route carries private methods too."""

    def publish(self, update: Update) -> None:
        for name, channel in self._channels.get(update.account.name, {}).items():
            topic = self.topics[update.account.name, name]
            if topic.outlets:
                for text in notifications(channel, update, self.listings, self.price):
                    topic.emit(text.encode())

    # -- who asks

    def token_of(self, connection: Connection | None, params: Mapping[str, Any], bearer: str = "") -> Token | None:
        """The valid token of a request: its own, or that of the connection."""
        now_ms = self.venue.now_ns() // 1_000_000
        access = str(params.get("access_token") or bearer)
        if access:
            return self.venue.tokens.find(access, now_ms)
        token = None if connection is None else connection.state.get("token")
        return token if isinstance(token, Token) and token.valid(now_ms) else None

    def call(self, token: Token | None, method: str, params: Mapping[str, Any]) -> Raw:
        """The result of a private method. Raises RpcError."""
        needed = self._methods.needed(method)
        account = self._account(token)
        assert token is not None
        if not token.may(needed):
            raise RpcError(13021, "forbidden", data={"reason": f"scope {needed} is missing"}, status=403)
        return self._methods.call(self.accounts[account], method, params, self.venue.now_ns() // 1_000_000)

    def _account(self, token: Token | None) -> str:
        if token is None or not token.account:
            raise RpcError(13009, "unauthorized", data={"reason": "invalid_token", "param": "token"}, status=401)
        return token.account

    # -- channels

    def join(self, connection: Connection, token: Token | None, channel: str) -> Topic | None:
        """The topic of a ``user.*`` channel for the token's account. None = unknown. Raises RpcError."""
        account = self._account(token)
        parsed = parse(channel, self.listings)
        if parsed is None:
            return None
        assert token is not None
        if not token.may(NEEDED[parsed.what]):
            raise RpcError(13021, "forbidden", data={"reason": f"scope {NEEDED[parsed.what]} is missing"})
        self._channels.setdefault(account, {})[channel] = parsed
        return self.topic(account, channel)

    def authorised(self, connection: Connection, token: Token) -> None:
        """A log-on on this connection: what an ended token had silenced speaks again."""
        connection.state["token"] = token
        paused: dict[str, Topic] = connection.state.pop("paused", {})
        for channel, topic in paused.items():
            if topic.symbol == token.account:
                connection.topics[channel] = topic
                self.venue.wrap(connection, channel, topic)

    def housekeep(self, now_ms: int) -> None:
        super().housekeep(now_ms)
        for connection in self.venue.connections.values():
            token = connection.state.get("token")
            if token is not None and not token.valid(now_ms):
                self._pause(connection)

    def _pause(self, connection: Connection) -> None:
        """Without a valid token private notifications stop; the subscriptions wait for the next log-on."""
        paused: dict[str, Topic] = connection.state.setdefault("paused", {})
        for channel, topic in list(connection.topics.items()):
            if topic.channel == "Account":
                del connection.topics[channel]
                topic.leave(connection, channel)
                paused[channel] = topic

    def revoked(self, key: ApiKey) -> None:
        self.venue.tokens.end(lambda token: token.client == key.id)

    def expire(self, account: str) -> int:
        return self.venue.tokens.end(lambda token: bool(token.account) and account in ("", token.account))
