"""A bucket behind an API over HTTP: what S3 and B2 have in common.

An object that fits into one part is sent in one request. A larger one is a multipart upload (B2: a large file): some
parts are on their way at a time, each is tried again alone, and the object appears when all are there. Reading goes on
by range after a cut. Credentials that are refused are read again, since a Secret may have been rotated meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from feedmill.general.backup.stores.base import (
    Found,
    ObjectMissing,
    StoreAway,
    Stored,
    StoreError,
    StoreFull,
    StoreRefused,
    checked,
    is_name,
)
from feedmill.general.backup.stores.calls import PATIENCE, Calls
from feedmill.shared.config import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

PART_BYTES = 5 << 20
"""Of the first parts: the least that S3 takes. See :func:`part_bytes`."""
MAX_PARTS = 10_000
"""Most that both APIs take."""
PARALLEL = 3
"""Parts on their way at a time, fewer of larger ones; these, and the one being filled, are in memory."""
_GIVE_UP = 10.0
"""Seconds that taking back an upload may take."""


@dataclass(frozen=True, slots=True)
class Reading:
    """An object being read. ``read`` and ``close`` block."""

    version: str
    """Tells a replaced object from the one that was begun with."""
    size_bytes: int
    """Of the whole object."""
    read: Callable[[], bytes]
    """At most PIECE bytes; nothing at the end, or where the connection was cut."""
    close: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An upload that was begun and neither finished nor taken back."""

    key: str
    upload: str
    began_ns: int


class Bucket(Protocol):
    """One API. Everything blocks and tries once. ``key`` is a whole name, prefix included; ``after`` is the mark of the
    next page, None for the first one."""

    where: str
    prefix: str
    """Empty, or ending in ``/``."""

    def translated(self, error: Exception) -> StoreError | None:
        """A StoreError for what the library raised; None when it is not of its making."""

    @property
    def credentials(self) -> int:
        """Version of the credentials that a call made now would use."""

    def renew(self, used: int) -> bool:
        """Read the credentials again; False when they still are those of version ``used``. Raises ConfigError."""

    def check(self) -> None: ...

    def small(self, key: str, content: bytes) -> None: ...

    def begin(self, key: str) -> str: ...

    def part(self, key: str, upload: str, number: int, content: bytes) -> str: ...

    def finish(self, key: str, upload: str, tags: list[str]) -> None:
        """Raises ObjectMissing when there is no such upload (any more)."""

    def abandon(self, key: str, upload: str) -> None: ...

    def open(self, key: str, start: int, size_bytes: int | None) -> Reading:
        """From byte ``start`` on; ``size_bytes`` is the object's, given when ``start`` is not 0."""

    def page(self, prefix: str, after: str | None) -> tuple[list[Found], str | None]:
        """Names are whole keys."""

    def unfinished(self, prefix: str, after: str | None) -> tuple[list[Unfinished], str | None]: ...

    def delete(self, key: str) -> None: ...


class RemoteStore:
    """Objects in a bucket. See ObjectStore."""

    def __init__(self, bucket: Bucket, *, patience: float = PATIENCE, pause: float = 0.5, part_bytes: int = PART_BYTES):
        self._bucket = bucket
        self.where = bucket.where
        self._calls = Calls("store", self._translated, threads=PARALLEL + 1, patience=patience, pause=pause)
        self._part_bytes = part_bytes

    def _translated(self, error: Exception) -> StoreError | None:
        if isinstance(error, ConfigError):  # Of the Secret with the credentials: it may be there again later.
            return StoreRefused(f"{self.where}: {error}")
        return self._bucket.translated(error)

    async def _call(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        used = self._bucket.credentials
        try:
            return await self._calls.again(call, *args, **kwargs)
        except StoreRefused:
            if not await self._calls.again(self._bucket.renew, used):
                raise
            return await self._calls.again(call, *args, **kwargs)

    def _key(self, name: str) -> str:
        return self._bucket.prefix + checked(name)

    async def put(self, name: str, source: AsyncIterable[bytes]) -> Stored:
        """See ObjectStore."""
        upload = _Upload(self._key(name))
        try:
            async with asyncio.TaskGroup() as sending, contextlib.aclosing(_parts(source, self._part_bytes)) as parts:
                async for content, last in parts:
                    await self._calls.once(upload.add, content)
                    if last and not upload.id:
                        await self._call(self._bucket.small, upload.key, content)
                        return upload.stored()
                    await self._begin_part(upload, content, sending)
            await self._finish(upload, name)
        except BaseExceptionGroup as errors:
            await self._abandon(upload)
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        except BaseException:
            await self._abandon(upload)
            raise
        return upload.stored()

    async def _begin_part(self, upload: _Upload, content: bytes, sending: asyncio.TaskGroup) -> None:
        if not upload.id:
            upload.id = await self._call(self._bucket.begin, upload.key)
        weight = min(PARALLEL, -(-len(content) // self._part_bytes))
        for _ in range(weight):
            await upload.room.acquire()
        upload.tags.append("")
        if len(upload.tags) > MAX_PARTS:
            raise StoreFull(f"{self.where}: {upload.key} has more than {upload.size_bytes} bytes: one object cannot")
        sending.create_task(self._send(upload, len(upload.tags), content, weight))

    async def _send(self, upload: _Upload, number: int, content: bytes, weight: int) -> None:
        upload.tags[number - 1] = await self._call(self._bucket.part, upload.key, upload.id, number, content)
        for _ in range(weight):  # Not when it failed: then nothing more is sent.
            upload.room.release()

    async def _finish(self, upload: _Upload, name: str) -> None:
        try:
            await self._call(self._bucket.finish, upload.key, upload.id, upload.tags)
        except ObjectMissing:
            # A try whose answer was lost may have finished it.
            found = [one for one in await self.list(name) if one.name == name]
            if not found or found[0].size_bytes != upload.size_bytes:
                raise
        upload.id = ""

    async def _abandon(self, upload: _Upload) -> None:
        """Best effort: what stays is swept later."""
        if upload.id:
            with contextlib.suppress(StoreError, TimeoutError):
                await asyncio.wait_for(self._calls.once(self._bucket.abandon, upload.key, upload.id), _GIVE_UP)

    async def get(self, name: str) -> AsyncGenerator[bytes, None]:
        """See ObjectStore."""
        key, at, trial = self._key(name), 0, self._calls.trial()
        first = await self._call(self._bucket.open, key, 0, None)
        reading: Reading | None = first
        try:
            while at < first.size_bytes:
                try:
                    if reading is None:
                        reading = await self._call(self._bucket.open, key, at, first.size_bytes)
                        if reading.version != first.version:
                            raise ObjectMissing(f"{self.where}: {name} was replaced while it was read: begin again")
                    piece = await self._calls.once(reading.read)
                    if not piece:
                        raise StoreAway(f"{self.where}: {name} was cut after {at} of {first.size_bytes} bytes")
                except StoreAway as error:
                    if reading is not None:
                        await self._calls.once(reading.close)
                        reading = None
                    await trial.wait(error)
                else:
                    at += len(piece)
                    yield piece
                    trial.progress()  # Now, since whoever reads may have taken longer than our patience.
        finally:
            if reading is not None:
                await self._calls.once(reading.close)

    async def list(self, prefix: str) -> tuple[Found, ...]:
        """See ObjectStore."""
        found: list[Found] = []
        after = None
        while True:
            page, after = await self._call(self._bucket.page, self._bucket.prefix + prefix, after)
            for one in page:
                name = one.name.removeprefix(self._bucket.prefix)
                if is_name(name):
                    found.append(Found(name, one.size_bytes, one.modified_ns))
            if after is None:
                return tuple(sorted(found, key=lambda one: one.name))

    async def delete(self, name: str) -> None:
        """See ObjectStore."""
        with contextlib.suppress(ObjectMissing):
            await self._call(self._bucket.delete, self._key(name))

    async def sweep(self, prefix: str, older_than_ns: int) -> int:
        """See ObjectStore."""
        count, after = 0, None
        while True:
            page, after = await self._call(self._bucket.unfinished, self._bucket.prefix + prefix, after)
            for one in page:
                if one.began_ns < older_than_ns:
                    with contextlib.suppress(ObjectMissing):
                        await self._call(self._bucket.abandon, one.key, one.upload)
                        count += 1
            if after is None:
                return count

    async def check(self) -> None:
        """See ObjectStore."""
        await self._call(self._bucket.check)

    async def close(self) -> None:
        """See ObjectStore."""
        self._calls.close()


async def _parts(source: AsyncIterable[bytes], first: int) -> AsyncGenerator[tuple[bytes, bool], None]:
    """(content, whether it is the last). None is empty but the first one of an empty source."""
    held, number = bytearray(), 0
    async for piece in source:
        held += piece
        # More than a part, not a whole one: the last part is known only at the end.
        while len(held) > (size := part_bytes(number, first)):
            content = bytes(held[:size])
            del held[:size]
            number += 1
            yield content, False
    yield bytes(held), True


def part_bytes(number: int, first: int = PART_BYTES) -> int:
    """Size of part ``number``, counted from 0: twice as large every 1,500 parts, 770 GiB in all 10,000.

    Memory stays about the same for the first 22 GiB, as two parts of 10 MiB are not on their way together.
    """
    return first << number // 1500


class _Upload:
    """One object on its way."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.id = ""
        """Of the multipart upload; empty when none is begun, or it is finished."""
        self.hash = hashlib.sha256()
        self.size_bytes = 0
        self.tags: list[str] = []
        """What the API calls each part, in order; empty while the part is on its way."""
        self.room = asyncio.Semaphore(PARALLEL)

    def add(self, content: bytes) -> None:
        self.hash.update(content)
        self.size_bytes += len(content)

    def stored(self) -> Stored:
        return Stored(self.size_bytes, self.hash.hexdigest())
