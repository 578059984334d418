"""A topic is one flow of messages of one instrument; an outlet is a name under which connections receive it.

The payload of a message is made once, framed once an outlet, and appended to every connection's buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from feedmill.simulator.wire import TEXT_HEADERS

if TYPE_CHECKING:
    from feedmill.simulator.connection import Connection
    from feedmill.simulator.faults import Rule

Sink = Callable[[bytes], None]


class Outlet:
    """``prefix + payload + suffix`` is the message on the wire."""

    __slots__ = ("extra", "members", "name", "prefix", "sinks", "suffix")

    def __init__(self, name: str, prefix: bytes, suffix: bytes) -> None:
        self.name = name
        self.prefix = prefix
        self.suffix = suffix
        self.extra = len(prefix) + len(suffix)
        self.members: list[Connection] = []
        self.sinks: list[Sink] = []

    def frame(self, payload: bytes) -> bytes:
        return TEXT_HEADERS[self.extra + len(payload)] + self.prefix + payload + self.suffix


class Topic:
    """``kind`` is the venue's word (trade, depth, book ...), ``channel`` ours (Trades, Ticker, Book, Candles)."""

    __slots__ = (
        "_by_name", "bad_prices", "channel", "delivered", "emitted", "kind", "native", "outlets", "rules", "started",
        "symbol",
    )  # fmt: skip

    def __init__(self, native: str, symbol: str, kind: str, channel: str) -> None:
        self.native = native
        self.symbol = symbol
        self.kind = kind
        self.channel = channel
        self.outlets: list[Outlet] = []
        """Those with at least one member."""
        self._by_name: dict[str, Outlet] = {}
        self.rules: list[Rule] = []
        self.bad_prices = 0
        """How many of the next trades get a price that is not a number."""
        self.started = False
        self.emitted = 0
        self.delivered = 0

    def join(self, connection: Connection, name: str, prefix: bytes, suffix: bytes) -> None:
        outlet = self._by_name.get(name)
        if outlet is None:
            outlet = self._by_name[name] = Outlet(name, prefix, suffix)
            self.outlets.append(outlet)
        if connection not in outlet.members:
            outlet.members.append(connection)
            outlet.sinks.append(connection.parts.append)

    def leave(self, connection: Connection, name: str) -> None:
        outlet = self._by_name.get(name)
        if outlet is None or connection not in outlet.members:
            return
        at = outlet.members.index(connection)
        del outlet.members[at], outlet.sinks[at]
        if not outlet.members:
            del self._by_name[name]
            self.outlets.remove(outlet)

    @property
    def members(self) -> list[Connection]:
        return [member for outlet in self.outlets for member in outlet.members]

    def emit(self, payload: bytes) -> None:
        """Send one message to everybody subscribed, as the faults in force say."""
        self.emitted += 1
        if self.rules:
            self._emit_by_rule(payload)
            return
        for outlet in self.outlets:
            frame = TEXT_HEADERS[outlet.extra + len(payload)] + outlet.prefix + payload + outlet.suffix
            for sink in outlet.sinks:
                sink(frame)
            self.delivered += len(outlet.sinks)

    def _emit_by_rule(self, payload: bytes) -> None:
        rule = self.rules[0]
        changed = rule.apply(self, payload)
        victim = self.outlets[0].members[0] if rule.one_connection and self.outlets else None
        self._send(changed, payload, victim)
        if rule.finished:
            self.rules.remove(rule)

    def _send(self, changed: list[bytes], payload: bytes, victim: Connection | None) -> None:
        for outlet in self.outlets:
            for member, sink in zip(outlet.members, outlet.sinks, strict=True):
                for message in changed if victim is None or member is victim else [payload]:
                    sink(outlet.frame(message))
                    self.delivered += 1

    def release(self) -> None:
        """Send what a rule still holds back (end of the emission)."""
        for rule in self.rules:
            held = rule.release()
            if held:
                victim = self.outlets[0].members[0] if rule.one_connection and self.outlets else None
                for outlet in self.outlets:
                    for member, sink in zip(outlet.members, outlet.sinks, strict=True):
                        if victim is None or member is victim:
                            for message in held:
                                sink(outlet.frame(message))
        self.rules.clear()
