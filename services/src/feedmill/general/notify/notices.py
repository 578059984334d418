"""What is told, as the outbox keeps it. Pure data; a number that is not known is absent, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from feedmill.resources.types import Severity


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


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found. ``blind``: beginnings of keys of which it could not tell whether they are so."""

    findings: tuple[Finding, ...] = ()
    blind: tuple[str, ...] = ()

    def __add__(self, other: Look) -> Look:
        return Look(self.findings + other.findings, self.blind + other.blind)
