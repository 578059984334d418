"""What is told, as the outbox keeps it. Pure data; a number that is not known is absent, never 0."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from feedmill.resources.types import Severity
from feedmill.shared.clock import SECOND

KEPT = 30 * 86_400 * SECOND
"""Rows of the outbox are removed by maintenance when they are so old, told or not: who could not be told for so long
wants no such news, and the table must not grow for ever."""
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell. ``at_ns``: when it happened; ``body``: what its text is made of, no secret."""

    kind: str
    severity: Severity
    subject: str
    """What it is about: namespace/name of a feed or an account, a server, ..."""
    key: str
    """Those with the same key that follow each other are told as one."""
    body: Mapping[str, Any] = field(default_factory=dict)
    at_ns: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row of the outbox that was not sent yet."""

    id: int
    notice: Notice
    not_before_ns: int = 0
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """A state that is so now. ``since_ns``: since when, where that is known better than by the first look."""

    kind: str
    subject: str
    key: str
    body: Mapping[str, Any] = field(default_factory=dict)
    since_ns: int | None = None

    def storable(self) -> Finding:
        """Without what PostgreSQL takes in no text: one such character, told by an exchange, would hold up all."""
        return Finding(self.kind, _clean(self.subject), _clean(self.key), _clean(self.body), self.since_ns)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _NO_TEXT.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_clean(key): _clean(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(each) for each in value]
    return value


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found. ``blind``: beginnings of keys of which it could not tell whether they are so."""

    findings: tuple[Finding, ...] = ()
    blind: tuple[str, ...] = ()

    def __add__(self, other: Look) -> Look:
        return Look(self.findings + other.findings, self.blind + other.blind)
