"""Which backup a restore or a drill takes, opened."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from feedmill.accounts.keyring import Keyring
from feedmill.general.backup.catalogue import Catalogue, Entry, read_catalogue
from feedmill.general.backup.content import Content, ContentError, logical_content, require_readable
from feedmill.general.backup.manifest import Manifest
from feedmill.general.backup.names import kind_of
from feedmill.general.backup.pitr import moment_content
from feedmill.general.backup.progress import Progress
from feedmill.general.backup.target import Target
from feedmill.general.backup.wal_plan import Log, NoWay, Reach, logs_of
from feedmill.general.backup.wal_plan import choose as furthest


class NoSuchBackup(ContentError):
    """There is none, or none of that name."""


def choose(catalogue: Catalogue, backup_id: str | None, where: str) -> Entry:
    """The backup of that id, or the newest good one. Raises NoSuchBackup, and ContentError where it is not whole."""
    if backup_id is None:
        found = catalogue.newest("logical")
        if found is None:
            bad = len(catalogue.of("logical"))
            raise NoSuchBackup(
                f"{where}: holds no good backup"
                + (f" ({bad} are damaged, or a drill failed on them: see feedmill backup list)" if bad else "")
                + ": make one with feedmill backup run"
            )
        return found
    entry = catalogue.find(backup_id)
    if entry is None:
        raise NoSuchBackup(f"{where}: holds no backup {backup_id!r}: feedmill backup list shows what there is")
    if not entry.whole:
        size = "nothing" if entry.stored_bytes is None else f"{entry.stored_bytes} bytes"
        raise ContentError(
            f"{where}: of backup {backup_id} {size} of {entry.manifest.size_bytes} bytes are there: take another one "
            "(feedmill backup list)"
        )
    return entry


@dataclass(frozen=True, slots=True)
class Picked:
    """A backup that was chosen, and how its content is had."""

    manifest: Manifest
    open: Callable[[], AbstractAsyncContextManager[Content]]
    """Raises ContentError, SealedError, StoreError, and of a base backup EmbeddedError, ProgramError, OSError."""


@contextlib.asynccontextmanager
async def opened(
    target: Target, ring: Keyring, backup_id: str | None, to_ns: int | None, folder: Path | None, progress: Progress
) -> AsyncGenerator[Content, None]:
    """What to restore. Raises as :func:`pick` and opening that."""
    picked = await pick(target, ring, backup_id, to_ns, folder, progress)
    async with picked.open() as content:
        yield content


async def pick(
    target: Target,
    ring: Keyring,
    backup_id: str | None,
    to_ns: int | None,
    folder: Path | None,
    progress: Progress,
    *,
    drill: bool = False,
) -> Picked:
    """What to restore. Raises NoSuchBackup, ContentError, KeyMissing, StoreError.

    ``to_ns``: the moment to restore to; None = as far as there is anything. ``folder``: for what must be put aside.
    Where nothing is named the newest content is taken; a ``drill`` takes turns between the two kinds.
    """
    store, names, where = target.store, target.names, target.store.where
    catalogue = await read_catalogue(store, names)

    def logical(manifest: Manifest) -> Picked:
        content = logical_content(store, ring, manifest, progress)
        return Picked(manifest, lambda: contextlib.nullcontext(content))

    entry = choose(catalogue, backup_id, where) if backup_id is not None else None
    if entry is not None and entry.manifest.kind == "logical":
        if to_ns is not None:
            raise NoSuchBackup(
                f"{where}: {backup_id} is a logical backup, of one moment: name a base backup for another, or none"
            )
        return logical(entry.manifest)
    logs = logs_of(await store.list(names.wals))
    bases = [entry] if entry is not None else [each for each in catalogue.of("base") if each.good]
    reach, no_way = _reach([each.manifest for each in bases], logs, to_ns)
    if entry is None and to_ns is None:
        newest = catalogue.newest("logical")
        if reach is None or (newest is not None and _prefers_logical(catalogue, newest, reach, drill)):
            return logical(choose(catalogue, None, where).manifest)
    if reach is None:
        raise NoSuchBackup(f"{where}: {no_way}")
    require_readable(reach.base, ring)
    found, log = reach, logs[reach.base.system]
    return Picked(found.base, lambda: moment_content(store, ring, found, log, to_ns, folder, progress))


def _reach(bases: Sequence[Manifest], logs: Mapping[str, Log], to_ns: int | None) -> tuple[Reach | None, str]:
    try:
        return furthest(bases, logs, to_ns), ""
    except NoWay as error:
        return None, str(error)


def _prefers_logical(catalogue: Catalogue, logical: Entry, reach: Reach, drill: bool) -> bool:
    """What reaches further; of drills, the kind whose last one is longer ago."""
    if not drill:
        return logical.manifest.snapshot_ns > reach.until_ns
    last = {"logical": 0, "base": 0}
    for _, made in catalogue.drills:
        kind = kind_of(made.backup_id)
        if kind is not None:
            last[kind] = max(last[kind], made.ended_ns)
    return last["logical"] <= last["base"]
