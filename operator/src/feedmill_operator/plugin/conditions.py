"""What the conditions of an object come to, for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TROUBLE_WHEN_TRUE = ("Paused", "Suspended")
"""Conditions worth a line when they hold. Progressing is one only while Ready does not hold."""
GOOD_WHEN_TRUE = (
    "Accepted", "RedisReachable", "PostgresReachable", "ReceiverAvailable", "DistributorAvailable",
    "ProcessorAvailable", "AccountsAvailable", "Listening", "DataFresh", "KeySound", "BackupHealthy",
    "NotifierAvailable",
)  # fmt: skip
"""In the order in which one causes another."""


@dataclass(frozen=True, slots=True)
class Said:
    """One condition."""

    type: str
    status: str
    reason: str
    message: str
    since: str | None = None

    def __str__(self) -> str:
        return f"{self.type}={self.status} ({self.reason})" + (f": {self.message}" if self.message else "")


def conditions(manifest: Mapping[str, Any]) -> dict[str, Said]:
    """By type, in the order the operator wrote them."""
    found = (manifest.get("status") or {}).get("conditions") or []
    return {
        str(item["type"]): Said(
            str(item["type"]),
            str(item.get("status", "Unknown")),
            str(item.get("reason", "")),
            str(item.get("message", "")),
            item.get("lastTransitionTime"),
        )
        for item in found
        if isinstance(item, Mapping) and item.get("type")
    }


def readiness(manifest: Mapping[str, Any]) -> Said:
    """Ready, or Unknown with the reason why nobody says so for the spec as it is now."""
    found = conditions(manifest).get("Ready")
    generation = (manifest.get("metadata") or {}).get("generation")
    seen = (manifest.get("status") or {}).get("observedGeneration")
    if found is None:
        return Said(
            "Ready", "Unknown", "NotReconciled",
            "no operator has looked at it yet: does one run and watch this namespace? "
            "kubectl get pods -A -l app.kubernetes.io/part-of=feedmill,app.kubernetes.io/component=operator",
        )  # fmt: skip
    if isinstance(generation, int) and isinstance(seen, int) and seen < generation:
        return Said(
            "Ready", "Unknown", "NotObserved", f"the operator has not worked on the last change yet ({found})"
        )  # fmt: skip
    return found


def in_order(manifest: Mapping[str, Any]) -> bool:
    """Ready, or stopped because the user said so."""
    ready = readiness(manifest)
    return ready.status == "True" or ready.reason == "Suspended"


def troubles(manifest: Mapping[str, Any]) -> list[Said]:
    """What to read when it is not Ready, and what is worth knowing when it is. Causes first, no message twice."""
    found = conditions(manifest)
    ready = readiness(manifest)
    if ready.reason in ("NotReconciled", "NotObserved"):
        return [ready]
    accepted = found.get("Accepted")
    if accepted is not None and accepted.status == "False":
        return [accepted, *_standing(found)]
    lines = [said for name in GOOD_WHEN_TRUE if (said := found.get(name)) and said.status == "False"]
    if ready.reason == "Suspended":
        # Nothing runs, as the user wished: what follows from it is no trouble.
        return _standing(found)
    if ready.status != "True":
        reasons = {said.reason for said in lines}
        progressing = found.get("Progressing")
        if progressing is not None and progressing.status == "True" and progressing.reason not in reasons:
            lines.append(progressing)
        told = {said.message for said in lines}
        if ready.message not in told and not any(message and message in ready.message for message in told):
            lines.insert(0, ready)
    return [*_once(lines), *_standing(found)]


def _standing(found: Mapping[str, Said]) -> list[Said]:
    return [said for name in TROUBLE_WHEN_TRUE if (said := found.get(name)) and said.status == "True"]


def _once(lines: list[Said]) -> list[Said]:
    kept: dict[tuple[str, str], Said] = {}
    for said in lines:
        kept.setdefault((said.reason, said.message), said)
    return list(kept.values())
