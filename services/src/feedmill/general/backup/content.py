"""What a restore or a drill reads: a dump as a stream that is proven whole and unchanged only at its end."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from dataclasses import dataclass, field

from feedmill.accounts.keyring import Keyring
from feedmill.general.backup.manifest import Manifest
from feedmill.general.backup.progress import Progress, counted, silent
from feedmill.general.backup.seal import KeyMissing, SealedError, Unsealer, unseal
from feedmill.general.backup.stores.base import ObjectStore
from feedmill.shared import postgres


class ContentError(Exception):
    """A backup cannot be restored with this version, or is not what its manifest says; the message names the remedy."""


class MomentMissing(ContentError):
    """The moment that was asked for is not in it."""


class SchemaNewer(ContentError):
    """A later version of Feedmill made it."""


@dataclass(frozen=True, slots=True)
class Content:
    """A dump in pg_dump's custom format, and what is known of it."""

    backup: Manifest
    """What it comes from."""
    content_ns: int
    """The moment it is of, ns since the epoch, UTC."""
    schema: str
    revision: str
    read: Callable[[], AsyncGenerator[bytes, None]]
    """The bytes, in pieces none of which is empty. Raises at its end at the latest where they are not what was backed
    up: until then nothing may be made of the last piece."""
    row_counts: Mapping[str, int] = field(default_factory=dict)
    """Expected; empty = not known."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    """What people should know of it; empty = nothing."""


def require_readable(manifest: Manifest, ring: Keyring) -> None:
    """Whether this version and these keys can do anything with it, before anything is read or touched.

    Raises SchemaNewer, KeyMissing.
    """
    if manifest.schema_version > postgres.HEAD:
        raise SchemaNewer(
            f"backup {manifest.id} has schema {manifest.schema_version} (feedmill {manifest.feedmill_version}), this "
            f"version knows {postgres.HEAD}: use that feedmill, or a newer one"
        )
    if manifest.key_id not in ring:
        raise KeyMissing(
            f"backup {manifest.id} is sealed with key {manifest.key_id!r}, the key file holds {', '.join(ring.ids)}: "
            "put that key back as a further line"
        )


def logical_content(store: ObjectStore, ring: Keyring, manifest: Manifest, progress: Progress = silent) -> Content:
    """Of a logical backup. Raises SchemaNewer, KeyMissing; reading it raises StoreError, SealedError, ContentError."""
    require_readable(manifest, ring)
    return Content(
        manifest, manifest.snapshot_ns, manifest.schema_name, manifest.schema_version,
        lambda: read_object(store, ring, manifest, progress, "restore"), manifest.row_counts, manifest.checksums,
    )  # fmt: skip


async def read_object(
    store: ObjectStore, ring: Keyring, manifest: Manifest, progress: Progress, what: str
) -> AsyncGenerator[bytes, None]:
    """What a backup's object holds, opened; nothing may be made of its last piece before the end.

    Raises StoreError, SealedError.
    """
    digest = hashlib.sha256()

    async def sealed(source: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        async for piece in source:
            digest.update(piece)
            yield piece

    unsealer = Unsealer(manifest.object, ring, store.where)
    async with contextlib.aclosing(store.get(manifest.object)) as pieces:
        whole = counted(sealed(pieces), progress, what, manifest.size_bytes)
        async for chunk in unseal(whole, unsealer):
            if chunk:
                yield chunk
    if digest.hexdigest() != manifest.sha256:
        raise SealedError(
            f"{store.where}: {manifest.object} is whole, but not the object that its manifest describes; take "
            "another backup (feedmill backup list)"
        )
