"""Faults on demand: what can be asked for, which topics and connections it hits, and what was done (``faults.tsv``)."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from feedmill.simulator.config import ConfigError
from feedmill.simulator.topics import Topic

TOPIC_KINDS = ("drop", "double", "swap", "bad_bytes", "bad_price", "unknown_fields")
SOCKET_KINDS = ("close", "abort", "silence", "half_open", "slow", "cut")
REST_KINDS = ("rest_429", "rest_418", "rest_500", "latency")
LISTING_KINDS = ("list", "expire")
OTHER_KINDS = ("skew", "forget", "expire_session", "clear")
KINDS = TOPIC_KINDS + SOCKET_KINDS + REST_KINDS + LISTING_KINDS + OTHER_KINDS
VARIANTS = ("cut", "json", "utf8")
CHANNELS = ("Trades", "Ticker", "Book", "Candles", "Account")
"""Account: private events; the symbol of their faults is the name of the account."""


@dataclass(slots=True)
class Fault:
    """One fault as asked for.

    ``count``: messages (topic kinds), connections (socket kinds) or requests (REST kinds) it hits; None = all there are
    now (socket kinds: those connected; with ``every`` and REST kinds: until ``clear``).
    ``every="subscribe"`` (socket kinds) strikes after each subscribe acknowledgement instead of at once.
    ``cut`` announces where the venue does so, and ends the connection ``seconds`` later (None = at once).
    """

    kind: str
    symbol: str = ""
    channel: str = ""
    count: int | None = None
    every: str = ""
    seconds: float | None = None
    """How long silence, half_open and slow last (None = until the connection ends), how far skew and latency go, in how
    many an instrument that is listed expires (None = as its name says)."""
    code: int = 1000
    reason: str = ""
    variant: str = "cut"
    """bad_bytes: cut (half a message), json (not JSON), utf8 (invalid UTF-8)."""
    connections: str = "all"
    """Topic kinds: all, or one (only the first subscribed connection sees it)."""
    path: str = ""
    """REST kinds: only requests whose path contains this."""
    delay: float = 1.0
    """slow: seconds between two bursts."""
    hits: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"fault kind {self.kind!r} is unknown: choose one of {', '.join(KINDS)}")
        if self.variant not in VARIANTS:
            raise ConfigError(f"fault variant {self.variant!r} is unknown: choose one of {', '.join(VARIANTS)}")
        if self.channel and self.channel not in CHANNELS:
            raise ConfigError(f"fault channel {self.channel!r} is unknown: choose one of {', '.join(CHANNELS)}")
        if self.every not in ("", "subscribe"):
            raise ConfigError(f'fault every {self.every!r} is unknown: leave it out or write "subscribe"')
        if self.connections not in ("all", "one"):
            raise ConfigError(f"fault connections {self.connections!r} is unknown: write all or one")
        if self.count is not None and self.count < 1:
            raise ConfigError(f"fault count {self.count} is too small: give at least 1, or leave it out")
        if self.kind in ("skew", "latency") and self.seconds is None:
            raise ConfigError(f"fault {self.kind} needs seconds")
        if self.kind in LISTING_KINDS and not self.symbol:
            raise ConfigError(f"fault {self.kind} needs a symbol")

    def matches(self, topic: Topic) -> bool:
        return self.symbol in ("", topic.symbol, topic.native) and self.channel in ("", topic.channel)

    @property
    def spent(self) -> bool:
        return self.count is not None and self.hits >= self.count


Log = Callable[[str, str, str, str], None]
"""(kind, symbol, channel, detail)"""


class Rule(ABC):
    """A topic fault in force. Rules of one topic act one after another, each until its count is used up."""

    def __init__(self, fault: Fault, log: Log) -> None:
        self.left = fault.count or 1
        self.one_connection = fault.connections == "one"
        self.fault = fault
        self._log = log

    @property
    def finished(self) -> bool:
        return self.left <= 0

    def note(self, topic: Topic, payload: bytes) -> None:
        self.left -= 1
        self.fault.hits += 1
        self._log(self.fault.kind, topic.symbol, topic.channel, payload.decode("utf-8", "backslashreplace"))

    @abstractmethod
    def apply(self, topic: Topic, payload: bytes) -> list[bytes]:
        """What goes out instead of ``payload``."""

    def release(self) -> list[bytes]:
        """What is still held back when the emission ends."""
        return []


class Drop(Rule):
    def apply(self, topic: Topic, payload: bytes) -> list[bytes]:
        self.note(topic, payload)
        return []


class Double(Rule):
    def apply(self, topic: Topic, payload: bytes) -> list[bytes]:
        self.note(topic, payload)
        return [payload, payload]


class Swap(Rule):
    """Two consecutive messages change places."""

    _held: bytes | None = None

    @property
    def finished(self) -> bool:
        return self.left <= 0 and self._held is None

    def apply(self, topic: Topic, payload: bytes) -> list[bytes]:
        if self._held is None:
            self._held = payload
            return []
        first, self._held = self._held, None
        self.note(topic, first)
        return [payload, first]

    def release(self) -> list[bytes]:
        held = [] if self._held is None else [self._held]
        self._held = None
        return held


class BadBytes(Rule):
    """An extra message that cannot be read; the good one goes out as it is."""

    def apply(self, topic: Topic, payload: bytes) -> list[bytes]:
        if self.fault.variant == "cut":
            bad = payload[: len(payload) // 2]
        elif self.fault.variant == "json":
            bad = b'{"e":nonsense,' + payload[1:]
        else:
            bad = payload[:-1] + b',"x":"\xff\xfe"' + payload[-1:]
        self.note(topic, bad)
        return [payload, bad]


class UnknownFields(Rule):
    """Every object of the message has one more field, as when a venue adds some."""

    def apply(self, topic: Topic, payload: bytes) -> list[bytes]:
        # The generators write no braces in texts, and no empty objects in data.
        more = re.sub(rb"(?<!\{)\}", b',"added":{"deep":[1,null,"x"]}}', payload)
        self.note(topic, more)
        return [more]


_RULES: dict[str, type[Rule]] = {
    "drop": Drop,
    "double": Double,
    "swap": Swap,
    "bad_bytes": BadBytes,
    "unknown_fields": UnknownFields,
}


@dataclass(slots=True)
class RestFault:
    """What a REST request meets: ``status`` 0 = only late."""

    status: int
    delay: float
    retry_after: int


@dataclass(slots=True)
class FaultBoard:
    """The faults of one venue that are waiting or in force."""

    log: Log
    armed: list[Fault] = field(default_factory=list)
    """Struck at each subscribe."""
    rest: list[Fault] = field(default_factory=list)

    def strike_topic(self, fault: Fault, topic: Topic) -> None:
        if fault.kind == "bad_price":
            topic.bad_prices += fault.count or 1
        else:
            topic.rules.append(_RULES[fault.kind](fault, self.log))

    def on_subscribe(self, topics: list[Topic]) -> Fault | None:
        """The armed socket fault that this acknowledgement sets off."""
        for fault in self.armed:
            if any(fault.matches(topic) for topic in topics) or (not topics and not fault.symbol and not fault.channel):
                fault.hits += 1
                if fault.spent:
                    self.armed.remove(fault)
                return fault
        return None

    def on_rest(self, path: str) -> RestFault | None:
        for fault in self.rest:
            if fault.path not in path:
                continue
            fault.hits += 1
            if fault.spent:
                self.rest.remove(fault)
            self.log(fault.kind, "", "", path)
            if fault.kind == "latency":
                return RestFault(0, fault.seconds or 0.0, 0)
            return RestFault(int(fault.kind[-3:]), 0.0, int(fault.seconds or (1 if fault.kind == "rest_429" else 2)))
        return None

    def clear(self) -> None:
        self.armed.clear()
        self.rest.clear()


def fault_from(fields: dict[str, Any]) -> Fault:
    """Read a fault from JSON. Raises ConfigError naming the key that is wrong."""
    known = set(Fault.__dataclass_fields__) - {"hits"}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise ConfigError(f"fault key {unknown[0]!r} is unknown: use {', '.join(sorted(known))}")
    if "kind" not in fields:
        raise ConfigError(f"fault needs the key kind: one of {', '.join(KINDS)}")
    try:
        return Fault(**fields)
    except TypeError as error:
        raise ConfigError(f"fault {fields!r} is not understood: {error}") from None
