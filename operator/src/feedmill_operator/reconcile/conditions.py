"""Conditions: made of findings, carried over from the last status, never younger than they are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from feedmill_operator.reconcile.reasons import Reason, Type

State = Literal["True", "False", "Unknown"]
LONGEST = 2000
"""Characters of a message (the schema allows 2048)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said of one thing."""

    status: State
    reason: Reason
    message: str = ""

    @property
    def holds(self) -> bool:
        return self.status == "True"

    @property
    def fails(self) -> bool:
        """Known not to hold; unknown is not that."""
        return self.status == "False"


def yes(reason: Reason, message: str = "") -> Finding:
    return Finding("True", reason, message)


def no(reason: Reason, message: str = "") -> Finding:
    return Finding("False", reason, message)


def unknown(reason: Reason, message: str = "") -> Finding:
    return Finding("Unknown", reason, message)


def conditions(
    findings: Mapping[Type, Finding], before: Sequence[Mapping[str, Any]], generation: int, now: str
) -> list[dict[str, Any]]:
    """``status.conditions`` in the order of ``findings``; times of transitions are kept while the status is the same.

    ``before``: the conditions of the last status; ``now``: RFC 3339.
    """
    old = by_type(before)
    made = []
    for kind, finding in findings.items():
        last = old.get(kind.value, {})
        since = last.get("lastTransitionTime") if last.get("status") == finding.status else None
        made.append(
            {
                "type": kind.value,
                "status": finding.status,
                "observedGeneration": generation,
                "lastTransitionTime": since or now,
                "reason": finding.reason.value,
                "message": shorten(finding.message),
            }
        )
    return made


def by_type(written: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Type -> condition."""
    return {str(item.get("type", "")): item for item in written}


def shorten(text: str) -> str:
    """At most what the schema allows."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
