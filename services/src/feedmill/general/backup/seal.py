"""Sealing of a backup's objects: AES-256-GCM in chunks, streamed both ways in constant memory.

An object has a random data key of its own, wrapped by the current key of the key file (feedmill.accounts.keyring).
Every chunk says in the clear which object it is of and which number it has, and is authenticated together with that and
with the header, which names the object. So a cut, a missing, a swapped, a foreign and an altered chunk are each told
apart, and an object that lies under another name does not open.

    header   8 bytes FMSEALED, u16 format, u32 length, that many bytes of JSON (name, keyId, keyCheck, wrappedKey, mark,
             chunkBytes), u32 CRC-32 of all before
    chunk    8 bytes mark of the object, u32 number from 0, u32 length with the highest bit set in the last one,
             ciphertext of that length, 16 bytes tag; every chunk but the last holds chunkBytes

All numbers are big-endian. A chunk's nonce is its number, which is safe because no two objects share a data key.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import struct
import zlib
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from feedmill.accounts.keyring import Keyring

FORMAT = 1
CHUNK_BYTES = 1 << 20
_MAGIC = b"FMSEALED"
_FIRST = struct.Struct(">8sHI")
_CRC = struct.Struct(">I")
_FRAME = struct.Struct(">8sII")
_LAST = 1 << 31
_TAG = 16
_MAX_HEADER = 16 * 1024
_MAX_CHUNK = 64 << 20


class SealedError(Exception):
    """A sealed object does not open; the message names the object, what is wrong and the remedy, never content."""


class NotSealed(SealedError):
    """It does not begin as a sealed object does, or its beginning was altered."""


class FormatNewer(SealedError):
    """A later version of Feedmill sealed it."""


class ObjectMoved(SealedError):
    """It was sealed under another name."""


class KeyMissing(SealedError):
    """The key file does not hold the key that it was sealed with."""


class WrongKey(SealedError):
    """The key file holds another key under that id."""


class ObjectCut(SealedError):
    """It ends before its last chunk does."""


class ChunkMissing(SealedError):
    """A later or an earlier chunk stands where one belongs: chunks are missing, doubled or in another order."""


class ChunkForeign(SealedError):
    """A chunk of another object stands in it."""


class ChunkDamaged(SealedError):
    """A chunk is not what was written: a bit has flipped, or somebody changed it."""


class MoreThanWhole(SealedError):
    """Something follows after the last chunk."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the beginning of a sealed object says."""

    name: str
    key_id: str
    key_check: str
    wrapped_key: bytes
    mark: bytes
    chunk_bytes: int
    digest: bytes
    """Of the header's bytes: binds every chunk to them."""

    def key_bound(self) -> bytes:
        """Associated data of the wrapped key. JSON of a list: no two headers have the same bytes."""
        parts = ["feedmill-backup", FORMAT, self.name, self.key_id, self.mark.hex(), self.chunk_bytes]
        return json.dumps(parts, separators=(",", ":")).encode()


def key_check(key: bytes) -> str:
    """Tells keys under one id apart, and says nothing about the key itself."""
    return hmac.new(key, b"feedmill backup key check", hashlib.sha256).hexdigest()[:16]


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _header(name: str, ring: Keyring, data_key: bytes, chunk_bytes: int) -> tuple[Header, bytes]:
    key, mark = ring.key(ring.current), os.urandom(8)
    header = Header(name, ring.current, key_check(key), b"", mark, chunk_bytes, b"")
    nonce = os.urandom(12)
    wrapped = nonce + AESGCM(key).encrypt(nonce, data_key, header.key_bound())
    fields = {
        "name": name,
        "keyId": header.key_id,
        "keyCheck": header.key_check,
        "wrappedKey": base64.b64encode(wrapped).decode(),
        "mark": mark.hex(),
        "chunkBytes": chunk_bytes,
    }
    text = json.dumps(fields, separators=(",", ":")).encode()
    if len(text) > _MAX_HEADER:
        raise ValueError(f"the object's name has {len(name)} characters: that is too long")
    content = _FIRST.pack(_MAGIC, FORMAT, len(text)) + text
    content += _CRC.pack(zlib.crc32(content))
    return Header(name, header.key_id, header.key_check, wrapped, mark, chunk_bytes, _digest(content)), content


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


class Sealer:
    """Seals one object, chunk by chunk. Pure; for one object only."""

    def __init__(self, name: str, ring: Keyring, chunk_bytes: int = CHUNK_BYTES) -> None:
        data_key = AESGCM.generate_key(256)
        self._cipher = AESGCM(data_key)
        self._header, self.header = _header(name, ring, data_key, chunk_bytes)
        """What the object begins with."""
        self.chunk_bytes = chunk_bytes
        self._number = 0

    @property
    def key_id(self) -> str:
        """Id of the key that wrapped the data key."""
        return self._header.key_id

    def chunk(self, plain: bytes, *, last: bool) -> bytes:
        """The next chunk. All but the last must have ``chunk_bytes``; the last one may be empty."""
        if self._number < 0 or (len(plain) != self.chunk_bytes and not (last and len(plain) < self.chunk_bytes)):
            raise ValueError("a chunk of the wrong size, or one after the last")
        frame = _FRAME.pack(self._header.mark, self._number, len(plain) | (_LAST if last else 0))
        sealed = self._cipher.encrypt(_nonce(self._number), plain, self._header.digest + frame)
        self._number = -1 if last else self._number + 1
        return frame + sealed


class Unsealer:
    """Opens one object from pieces of any size. Pure. Raises SealedError and its kinds."""

    def __init__(self, name: str, ring: Keyring, where: str = "") -> None:
        self._name = name
        self._ring = ring
        self._what = f"{where}: {name}" if where else name
        self._held = bytearray()
        self._header: Header | None = None
        self._cipher: AESGCM | None = None
        self._number = 0
        self._whole = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The chunks that are whole now, opened and authentic. Only :meth:`finish` tells that none is missing."""
        self._held += piece
        return list(iter(self._next, None))

    def finish(self) -> None:
        """No piece follows. Raises ObjectCut when the last chunk has not been seen."""
        if self._header is None:
            if not self._held or _MAGIC.startswith(self._held[:8]) or self._held.startswith(_MAGIC):
                raise ObjectCut(f"{self._what}: ends within its header: it was not stored whole; {_OTHER}")
            raise self._not_sealed()
        if not self._whole:
            raise ObjectCut(f"{self._what}: ends within chunk {self._number}: its end is missing; {_OTHER}")

    def _next(self) -> bytes | None:
        if self._whole:
            if self._held:
                raise MoreThanWhole(f"{self._what}: something follows after its last chunk; {_OTHER}")
            return None
        if self._cipher is None and not self._begin():
            return None
        if len(self._held) < _FRAME.size:
            return None
        header, cipher = self._header, self._cipher
        assert header is not None
        assert cipher is not None
        frame = bytes(self._held[: _FRAME.size])
        mark, number, length = _FRAME.unpack(frame)
        last, length = bool(length & _LAST), length & (_LAST - 1)
        if mark != header.mark:
            raise ChunkForeign(f"{self._what}: chunk {self._number} is one of another object; {_OTHER}")
        if number != self._number:
            raise ChunkMissing(
                f"{self._what}: chunk {number} stands where chunk {self._number} belongs: chunks are missing or in "
                f"another order; {_OTHER}"
            )
        if length > header.chunk_bytes or (not last and length != header.chunk_bytes):
            raise self._damaged()
        end = _FRAME.size + length + _TAG
        if len(self._held) < end:
            return None
        try:
            plain = cipher.decrypt(_nonce(number), bytes(self._held[_FRAME.size : end]), header.digest + frame)
        except InvalidTag:
            raise self._damaged() from None
        del self._held[:end]
        self._number += 1
        self._whole = last
        return plain

    def _damaged(self) -> ChunkDamaged:
        return ChunkDamaged(f"{self._what}: chunk {self._number} is not what was written; {_OTHER}")

    def _not_sealed(self) -> NotSealed:
        return NotSealed(f"{self._what}: is not an object that Feedmill sealed, or its beginning was altered; {_OTHER}")

    def _begin(self) -> bool:
        """Read the header and unwrap the data key; False while it is not whole."""
        if not _MAGIC.startswith(self._held[:8]):
            raise self._not_sealed()
        if len(self._held) < _FIRST.size:
            return False
        _, version, length = _FIRST.unpack_from(self._held)
        if version > FORMAT:
            raise FormatNewer(
                f"{self._what}: is sealed in format {version}, this version reads {FORMAT}: use a newer feedmill"
            )
        if version < 1 or length > _MAX_HEADER:
            raise self._not_sealed()
        size = _FIRST.size + length
        if len(self._held) < size + _CRC.size:
            return False
        content = bytes(self._held[: size + _CRC.size])
        if _CRC.unpack_from(content, size)[0] != zlib.crc32(content[:size]):
            raise self._not_sealed()
        header = self._read(content[_FIRST.size : size], _digest(content))
        self._cipher = AESGCM(self._unwrap(header))
        self._header = header
        del self._held[: len(content)]
        return True

    def _read(self, text: bytes, digest: bytes) -> Header:
        try:
            fields: dict[str, Any] = json.loads(text)
            header = Header(
                str(fields["name"]),
                str(fields["keyId"]),
                str(fields["keyCheck"]),
                base64.b64decode(fields["wrappedKey"], validate=True),
                bytes.fromhex(fields["mark"]),
                int(fields["chunkBytes"]),
                digest,
            )
        except (ValueError, KeyError, TypeError):
            raise self._not_sealed() from None
        if len(header.mark) != 8 or not 0 < header.chunk_bytes <= _MAX_CHUNK:
            raise self._not_sealed()
        return header

    def _unwrap(self, header: Header) -> bytes:
        if header.name != self._name:
            raise ObjectMoved(f"{self._what}: is another object, which was stored as {header.name}; {_OTHER}")
        if header.key_id not in self._ring:
            raise KeyMissing(
                f"{self._what}: is sealed with key {header.key_id!r}, the key file holds {', '.join(self._ring.ids)}: "
                "put that key back as a further line"
            )
        key = self._ring.key(header.key_id)
        if not hmac.compare_digest(key_check(key), header.key_check):
            raise WrongKey(
                f"{self._what}: the key file's {header.key_id!r} is another key than the one it was sealed with: put "
                "the right one back"
            )
        try:
            return AESGCM(key).decrypt(header.wrapped_key[:12], header.wrapped_key[12:], header.key_bound())
        except (InvalidTag, ValueError):
            raise self._not_sealed() from None


_OTHER = "take another backup (feedmill backup list)"


async def seal(source: AsyncIterable[bytes], sealer: Sealer) -> AsyncGenerator[bytes, None]:
    """What to store: the sealed form of ``source``, whose pieces may have any size. Encrypts in a thread."""
    yield sealer.header
    held = bytearray()
    size = sealer.chunk_bytes
    async for piece in source:
        held += piece
        # More than a chunk, not a whole one: the last chunk is known only at the end.
        while len(held) > size:
            plain = bytes(held[:size])
            del held[:size]
            yield await asyncio.to_thread(sealer.chunk, plain, last=False)
    yield await asyncio.to_thread(sealer.chunk, bytes(held), last=True)


async def unseal(source: AsyncIterable[bytes], unsealer: Unsealer) -> AsyncGenerator[bytes, None]:
    """The content of a sealed object. Decrypts in a thread. Raises SealedError.

    A cut is noticed only at the end: what is made of the content must not be used before this generator has ended.
    """
    async for piece in source:
        for chunk in await asyncio.to_thread(unsealer.feed, piece):
            yield chunk
    unsealer.finish()
