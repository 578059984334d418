"""Which backup a restore or a drill takes, opened."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from feedmill.accounts.keyring import Keyring
from feedmill.general.backup.catalogue import Catalogue, Entry, read_catalogue
from feedmill.general.backup.content import Content, ContentError, logical_content
from feedmill.general.backup.progress import Progress
from feedmill.general.backup.target import Target


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


@contextlib.asynccontextmanager
async def opened(
    target: Target, ring: Keyring, backup_id: str | None, to_ns: int | None, folder: Path | None, progress: Progress
) -> AsyncGenerator[Content, None]:
    """What to restore. Raises NoSuchBackup, ContentError, SealedError, StoreError.

    ``to_ns``: the moment to restore to; None = as far as there is anything. ``folder``: for what must be put aside.
    """
    catalogue = await read_catalogue(target.store, target.names)
    entry = choose(catalogue, backup_id, target.store.where)
    yield logical_content(target.store, ring, entry.manifest, progress)
