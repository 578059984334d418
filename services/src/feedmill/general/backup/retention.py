"""Which backups are kept. Pure.

Of each kind: those that are not older than the age, at most so many of them, the newest first. Whatever the age and the
count say, the newest good one stays, and so does the newest one that a drill has proven. One that is not good (its
object is missing or short, or a drill failed on it) takes no good one's place, and goes when it is too old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feedmill.general.backup.catalogue import Catalogue, Entry
from feedmill.general.backup.names import KINDS
from feedmill.general.backup.stores.base import Found
from feedmill.shared.clock import SECOND

GRACE_NS = 2 * 86400 * SECOND
"""What has no manifest, or is an unfinished upload, is left for so long: it may be a backup under way."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one backup, and why."""

    entry: Entry
    keep: bool
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of everything."""

    backups: tuple[Decision, ...]
    """The newest first."""
    leftovers: tuple[Found, ...]
    """Objects without a manifest that are to be deleted."""
    drills: tuple[Found, ...]
    """Records of drills that are to be deleted: old ones, of backups that are gone."""

    @property
    def kept(self) -> tuple[Entry, ...]:
        return tuple(decision.entry for decision in self.backups if decision.keep)


def plan(catalogue: Catalogue, now_ns: int, max_age_ns: int, max_count: int) -> Plan:
    """What is to be kept and deleted. The age is that of the content."""
    decisions = [
        decision for kind in KINDS for decision in _of_one_kind(catalogue.of(kind), now_ns, max_age_ns, max_count)
    ]
    decisions.sort(key=lambda decision: (decision.entry.manifest.snapshot_ns, decision.entry.manifest.id), reverse=True)
    kept = {decision.entry.manifest.id for decision in decisions if decision.keep}
    return Plan(
        tuple(decisions),
        tuple(found for found in catalogue.leftovers if found.modified_ns < now_ns - GRACE_NS),
        tuple(
            found
            for found, drill in catalogue.drills
            if drill.backup_id not in kept and drill.ended_ns < now_ns - max_age_ns
        ),
    )


def _of_one_kind(entries: Sequence[Entry], now_ns: int, max_age_ns: int, max_count: int) -> list[Decision]:
    """``entries``: the newest first."""
    newest_good = next((entry for entry in entries if entry.good), None)
    newest_proven = next((entry for entry in entries if entry.proven), None)
    decisions, count = [], 0
    for entry in entries:
        count += entry.good
        too_old = entry.manifest.snapshot_ns < now_ns - max_age_ns
        too_many = entry.good and count > max_count
        if not too_old and not too_many:
            decisions.append(Decision(entry, True, "within age and count" if entry.good else "not good, but young"))
        elif entry is newest_good:
            decisions.append(Decision(entry, True, "the newest good one"))
        elif entry is newest_proven:
            decisions.append(Decision(entry, True, "the newest one that a drill has proven"))
        else:
            decisions.append(
                Decision(entry, False, "too old" if too_old else "more than spec.backup.retention.maxCount")
            )
    return decisions
