"""Deletes what :mod:`feedmill.general.backup.retention` says: old backups, what cut-off ones left, WAL nobody needs.

A manifest goes before its object: cut off in between, what is left is an object without a manifest, which the next run
finds. Nothing here needs the database or the key.
"""

from __future__ import annotations

from dataclasses import dataclass

from feedmill.general.backup.catalogue import read_catalogue
from feedmill.general.backup.names import Names
from feedmill.general.backup.retention import GRACE_NS, Plan, plan
from feedmill.general.backup.stores.base import ObjectStore
from feedmill.general.backup.wal_plan import unneeded
from feedmill.resources.backup_policy import BackupRetention
from feedmill.shared.clock import MS
from feedmill.shared.log import get_logger

log = get_logger()


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one run did, or would do."""

    plan: Plan
    wal_files: int
    """Files of the log that were deleted."""
    wal_bytes: int
    unfinished: int
    """Uploads that were begun and never finished; 0 in a dry run, which does not look for them."""
    unreadable: tuple[str, ...]
    """Manifests that cannot be read and are left alone, with their backups."""

    @property
    def deleted_bytes(self) -> int:
        backups = sum(each.entry.stored_bytes or 0 for each in self.plan.backups if not each.keep)
        return backups + self.wal_bytes + sum(found.size_bytes for found in self.plan.leftovers)


async def prune(
    store: ObjectStore, names: Names, retention: BackupRetention, now_ns: int, *, dry_run: bool = False
) -> Pruned:
    """Raises StoreError; what was deleted by then stays deleted, and the next run does the rest."""
    catalogue = await read_catalogue(store, names)
    todo = plan(catalogue, now_ns, retention.max_age.milliseconds * MS, retention.max_count)
    bases = [entry.manifest for entry in todo.kept if entry.manifest.kind == "base"]
    wal = unneeded(await store.list(names.wals), bases, now_ns)
    if catalogue.unreadable:
        # One of them may be a base backup, whose log would be taken for nobody's.
        wal = ()
    unfinished = 0
    if not dry_run:
        for decision in todo.backups:
            if not decision.keep:
                manifest = decision.entry.manifest
                await store.delete(names.manifest(manifest.id))
                await store.delete(manifest.object)
                log.info("backup.deleted", backup=manifest.id, reason=decision.why)
        for found in (*todo.leftovers, *todo.drills, *wal):
            await store.delete(found.name)
        unfinished = await store.sweep(names.root, now_ns - GRACE_NS)
    return Pruned(todo, len(wal), sum(found.size_bytes for found in wal), unfinished, catalogue.unreadable)
