"""What a place for backups can do, whichever it is: a folder, S3 or B2.

Names of objects are parts of letters, digits and ``. _ -`` with ``/`` between them, none of which begins with a dot; a
store puts the destination's prefix before them, so they mean the same wherever the objects are copied to.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from typing import Protocol

PIECE = 1 << 20
MAX_SMALL_BYTES = 16 << 20
"""Most that :func:`get_bytes` reads: manifests have a few kilobytes."""


_NAME = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")


class StoreError(Exception):
    """A place for backups did not do what it was asked to; the message names it and the remedy, never a secret."""


class StoreAway(StoreError):
    """It does not answer, or answers that it cannot now: worth another try later."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that it asked to be left alone; None when it said nothing."""


class StoreRefused(StoreError):
    """The credentials are wrong or may not do this, or the bucket is not there: trying again changes nothing."""


class StoreFull(StoreError):
    """No room: the disk, the cap of the account, or more than one object may have."""


class ObjectMissing(StoreError):
    """There is no object of that name, or it is another one than when reading began."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was stored."""

    size_bytes: int
    sha256: str
    """Of the bytes as stored (sealed ones), in hex."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object that is there, whole."""

    name: str
    size_bytes: int
    modified_ns: int
    """When it was stored, by the store's clock. B2 and S3 tell seconds or milliseconds."""


class ObjectStore(Protocol):
    """A place for backups. Every method may raise StoreAway, after it has tried for a while, and StoreRefused."""

    @property
    def where(self) -> str:
        """The destination for a reader: kind, bucket and prefix, no secret."""

    async def put(self, name: str, source: AsyncIterable[bytes]) -> Stored:
        """Store what ``source`` yields, in pieces of any size; one that is there under ``name`` is replaced.

        Visible only when whole: when ``source`` raises, the call is cancelled, or the process dies, there is nothing,
        or what there was. A part that fails is sent again alone. Raises StoreFull, and whatever ``source`` raises.
        """

    def get(self, name: str) -> AsyncGenerator[bytes, None]:
        """The object's bytes in pieces of at most PIECE; after a cut it goes on where it was. Raises ObjectMissing."""

    async def list(self, prefix: str) -> tuple[Found, ...]:
        """All whole objects whose names begin with ``prefix``, by name. What is called as no object of ours may be (a
        folder's mark, a file of the system's) is somebody else's, and left out."""

    async def delete(self, name: str) -> None:
        """Remove it; nothing happens when it is not there."""

    async def sweep(self, prefix: str, older_than_ns: int) -> int:
        """Remove unfinished uploads below ``prefix`` that began before ``older_than_ns``; how many."""

    async def check(self) -> None:
        """See that it can be reached and allows what a backup needs, without leaving anything there."""

    async def close(self) -> None:
        """Let go of threads and connections. A call under way may fail."""


def is_name(name: str) -> bool:
    """Whether an object may be called so."""
    return _NAME.fullmatch(name) is not None


def checked(name: str) -> str:
    """``name``, when an object may be called so; raises ValueError."""
    if not is_name(name):
        raise ValueError(f"{name!r} is not a name for an object")
    return name


async def put_bytes(store: ObjectStore, name: str, content: bytes) -> Stored:
    """Store a small object. Raises as :meth:`ObjectStore.put`."""

    async def once() -> AsyncGenerator[bytes, None]:
        yield content

    return await store.put(name, once())


async def get_bytes(store: ObjectStore, name: str) -> bytes:
    """A small object. Raises as :meth:`ObjectStore.get`, and StoreError when it is larger than MAX_SMALL_BYTES."""
    content = bytearray()
    async with contextlib.aclosing(store.get(name)) as pieces:
        async for piece in pieces:
            content += piece
            if len(content) > MAX_SMALL_BYTES:
                raise StoreError(f"{store.where}: {name} is larger than {MAX_SMALL_BYTES} bytes: it is not a manifest")
    return bytes(content)
