"""What a destination holds of one pipeline's backups: read from there alone, the database need not be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from feedmill.general.backup.manifest import Drill, Manifest, ManifestError, decode_drill, decode_manifest
from feedmill.general.backup.names import KINDS, Kind, Names, backup_of
from feedmill.general.backup.stores.base import Found, ObjectMissing, ObjectStore, get_bytes

T = TypeVar("T")
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One backup."""

    manifest: Manifest
    stored_bytes: int | None
    """Of its object as it is there now; None when it is not."""
    drill: Drill | None
    """The newest one of it."""

    @property
    def whole(self) -> bool:
        """Whether its object is there in the size that the manifest says. Its content is checked by a drill."""
        return self.stored_bytes == self.manifest.size_bytes

    @property
    def good(self) -> bool:
        """Whether it counts as one that can be restored: whole, and no drill has failed on it since."""
        return self.whole and (self.drill is None or self.drill.passed)

    @property
    def proven(self) -> bool:
        """Whether a drill has restored it."""
        return self.whole and self.drill is not None and self.drill.passed


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All of them."""

    entries: tuple[Entry, ...]
    """The newest content first."""
    unreadable: tuple[str, ...]
    """Why a manifest cannot be used, each with its name."""
    leftovers: tuple[Found, ...]
    """Objects of backups without a manifest: under way, or left by one that was cut off."""
    drills: tuple[tuple[Found, Drill], ...]
    unreadable_drills: tuple[str, ...] = ()
    """Why the record of a drill cannot be used, each with its name."""

    def of(self, kind: Kind) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.manifest.kind == kind)

    def newest(self, kind: Kind) -> Entry | None:
        """The newest good one."""
        return next((entry for entry in self.of(kind) if entry.good), None)

    def find(self, backup_id: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.manifest.id == backup_id), None)


async def read_catalogue(store: ObjectStore, names: Names) -> Catalogue:
    """Raises StoreError. A manifest that cannot be read is told of, not raised for."""
    objects = [found for kind in KINDS for found in await store.list(names.backups(kind))]
    there = {found.name: found for found in objects}
    manifests, wrong = await _read(
        store,
        (found for found in objects if found.name.endswith("/manifest.json") and backup_of(found.name)),
        partial(_in_its_place, names),
    )
    drills, wrong_too = await _read(store, await store.list(names.drills), decode_drill)
    newest: dict[str, Drill] = {}
    for _, drill in sorted(drills, key=lambda each: each[1].ended_ns):
        newest[drill.backup_id] = drill
    entries = []
    for _, manifest in manifests:
        data = there.get(manifest.object)
        size = data.size_bytes if data is not None else None
        entries.append(Entry(manifest, size, newest.get(manifest.id)))
    entries.sort(key=lambda entry: (entry.manifest.snapshot_ns, entry.manifest.id), reverse=True)
    with_manifest = {backup_of(name) for name in there if name.endswith("/manifest.json")}
    # What is in no backup's place (a copy that somebody made under another name, a note) is not ours to delete.
    leftovers = tuple(
        found
        for found in objects
        if (made := backup_of(found.name)) is not None and made not in with_manifest and found.name == names.data(made)
    )
    return Catalogue(tuple(entries), tuple(wrong), leftovers, tuple(drills), tuple(wrong_too))


def _in_its_place(names: Names, content: bytes, name: str) -> Manifest:
    manifest = decode_manifest(content, name)
    if names.manifest(manifest.id) != name or manifest.object != names.data(manifest.id):
        raise ManifestError(
            f"{name}: is the manifest of {manifest.object}: it was moved here, where what it tells of does not "
            f"open; use the pipeline {manifest.namespace}/{manifest.pipeline}"
        )
    return manifest


async def _read(
    store: ObjectStore, found: Iterable[Found], decode: Callable[[bytes, str], T]
) -> tuple[list[tuple[Found, T]], list[str]]:
    """Some at a time. One that is deleted meanwhile is left out."""
    room = asyncio.Semaphore(_AT_ONCE)
    read: list[tuple[Found, T]] = []
    wrong: list[str] = []

    async def one(item: Found) -> None:
        async with room:
            try:
                read.append((item, decode(await get_bytes(store, item.name), item.name)))
            except ObjectMissing:
                pass
            except ManifestError as error:
                wrong.append(str(error))

    try:
        async with asyncio.TaskGroup() as reading:
            for item in found:
                reading.create_task(one(item))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return read, sorted(wrong)
