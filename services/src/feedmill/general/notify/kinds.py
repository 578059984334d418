"""What can be told: its weight, how long it must last before it is told, and whether it has an end. Pure.

A *state* is something that is so for a while (a feed is stale): told once when it has lasted for ``hold``, and once
more when it is over. An *event* happened (a backup failed): it is put into the outbox by a trigger of its table.
"""

from __future__ import annotations

from dataclasses import dataclass

from feedmill.resources.types import AccountEvent, Severity

WEIGHT = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


@dataclass(frozen=True, slots=True)
class Kind:
    """``hold``: seconds a state must last before it is told; None = an event. ``about`` is for the docs."""

    severity: Severity
    hold: float | None
    about: str


_INFO, _WARNING, _CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL

KINDS: dict[str, Kind] = {
    "FeedStale": Kind(_CRITICAL, 60.0, "no receiver of a shard gets data from the exchange"),
    "ProcessDown": Kind(_CRITICAL, 60.0, "a process that the manifests ask for does not answer"),
    "ServerAway": Kind(_CRITICAL, 15.0, "processes cannot reach Redis or PostgreSQL (a breaker is open)"),
    "SpillFull": Kind(_CRITICAL, 0.0, "a receiver has no room left for what it captures, and sheds"),
    "Spilling": Kind(_WARNING, 60.0, "a receiver keeps what it captures on disk, since Redis does not take it"),
    "Lagging": Kind(_WARNING, 60.0, "what was captured is stored more than a minute later"),
    "GapOpen": Kind(_WARNING, 120.0, "something is missing, and was not repaired in two minutes"),
    "TopicSilent": Kind(_WARNING, 30.0, "an instrument's channel is silent far beyond what is usual of it"),
    "ConfigRefused": Kind(_WARNING, 10.0, "a changed manifest is not taken up"),
    "SecretRefused": Kind(_WARNING, 30.0, "a changed Secret cannot be read, or does not work"),
    "AccountProblem": Kind(_WARNING, 30.0, "an account is not listened to: refused by the exchange, or no valid key"),
    "KeyExpires": Kind(_WARNING, 0.0, "an exchange key expires within seven days"),
    "BackupStale": Kind(_CRITICAL, 0.0, "no backup succeeded although two were due, or none ever did"),
    "MaintenanceFailed": Kind(_WARNING, 0.0, "the last run of maintenance, or a part of it, failed"),
    "DatabaseTrouble": Kind(
        _WARNING, 0.0, "maintenance found what must not stay: autovacuum off, WAL kept, wraparound"
    ),
    "MaintenanceStale": Kind(_WARNING, 0.0, "maintenance has not run for a day"),
    "BackupFailed": Kind(_CRITICAL, None, "a backup failed"),
    "RestoreFailed": Kind(_CRITICAL, None, "a restore failed"),
    "DrillFailed": Kind(_CRITICAL, None, "a drill (backup verify) failed: the backup may not be of use"),
    "DeadLetters": Kind(_WARNING, None, "frames or events could not be handled; they are kept"),
    "DataLost": Kind(_INFO, None, "a gap of what exchanges do not repeat (quotes, books, candles) has ended"),
    "BackupDone": Kind(_INFO, None, "a backup succeeded"),
    "RestoreDone": Kind(_INFO, None, "a restore succeeded"),
    "DrillDone": Kind(_INFO, None, "a drill succeeded"),
    "Fill": Kind(_INFO, None, "a fill of an account (`accountEvents: [Fills]`)"),
    "Order": Kind(_INFO, None, "a new state of an order (`accountEvents: [Orders]`)"),
    "Transfer": Kind(_INFO, None, "a deposit, withdrawal or transfer (`accountEvents: [Transfers]`)"),
}

ASKED_FOR = {AccountEvent.FILLS: "Fill", AccountEvent.ORDERS: "Order", AccountEvent.TRANSFERS: "Transfer"}
"""Told whatever their weight, where the user names them, and never otherwise."""


def weighs(severity: Severity, least: Severity) -> bool:
    """Whether ``severity`` is ``least`` or more."""
    return WEIGHT[severity] >= WEIGHT[least]


def wanted(least: Severity, account_events: frozenset[AccountEvent]) -> frozenset[str]:
    """The kinds that are to be told."""
    asked = {kind for event, kind in ASKED_FOR.items() if event in account_events}
    others = KINDS.keys() - set(ASKED_FOR.values())
    return frozenset(asked | {name for name in others if weighs(KINDS[name].severity, least)})
