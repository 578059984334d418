"""What stands in a segment file: one head, then records. Pure.

A segment belongs to one session. Head: magic, length and CRC of its body (MessagePack ``SegmentHead``). Record: magic,
length and CRC of the payload (a batch exactly as it goes to Redis), how many frames are in it, its number, the receive
time of its last record, and a CRC of these fields. Two CRCs, because a record whose fields hold true tells what is
missing even where its payload does not, and is stepped over without reading it.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from feedmill.shared.frames import decode_batch

VERSION = 1
MAGIC = b"FMSPILL\n"
RECORD = b"\xf5FMb"
_HEAD = struct.Struct("<8sII")
_FIELDS = struct.Struct("<4sIIIQQ")
_CRC = struct.Struct("<I")
RECORD_HEAD = _FIELDS.size + _CRC.size
"""Bytes a record takes beside its payload."""
MAX_HEAD = 64 * 1024 * 1024
"""No body of a head is longer (the topics of thousands of instruments are a few hundred kilobytes)."""
_SEARCH = 1024 * 1024

Read = Callable[[int, int], bytes]
"""(offset, length) -> what is there, shorter at the end."""


class SegmentHead(msgspec.Struct, array_like=True):
    """Whose batches follow, and what a reader must know that begins here."""

    version: int
    shard: str
    """Whose raw stream they are for; empty = not known (the head was damaged)."""
    session: str
    replica: str
    started_ns: int
    """Of the session."""
    first: int
    """Number of the first batch."""
    created_ns: int
    view: list[tuple[int, bytes]] = []
    """(connection, control record): what was live before the first batch."""


class RecordHead(NamedTuple):
    n: int
    length: int
    """Of the payload, bytes."""
    crc: int
    frames: int
    at_ns: int
    """Receive time of its last record."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SegmentHead)


def encode_head(head: SegmentHead) -> bytes:
    body = _encoder.encode(head)
    return _HEAD.pack(MAGIC, len(body), zlib.crc32(body)) + body


def encode_record(n: int, payload: bytes, frames: int, at_ns: int) -> bytes:
    """The fields that stand before ``payload``."""
    fields = _FIELDS.pack(RECORD, len(payload), zlib.crc32(payload), frames, n, at_ns)
    return fields + _CRC.pack(zlib.crc32(fields))


def decode_record(data: bytes, at: int = 0) -> RecordHead | None:
    """The fields at ``at``; None when these are none."""
    if len(data) - at < RECORD_HEAD or not data.startswith(RECORD, at):
        return None
    _, length, crc, frames, n, at_ns = _FIELDS.unpack_from(data, at)
    (check,) = _CRC.unpack_from(data, at + _FIELDS.size)
    if check != zlib.crc32(memoryview(data)[at : at + _FIELDS.size]):
        return None
    return RecordHead(n, length, crc, frames, at_ns)


def intact(head: RecordHead, payload: bytes) -> bool:
    return len(payload) == head.length and zlib.crc32(payload) == head.crc


@dataclass(slots=True)
class Piece:
    """Records one after another whose numbers are too."""

    first: int
    starts: array[int] = field(default_factory=lambda: array("Q"))
    """Offset of each record."""
    end: int = 0
    """Offset behind the last one."""
    at_ns: int = 0
    """Receive time of the last record of the last batch."""
    from_ns: int = 0
    """The same of the first batch."""

    @property
    def last(self) -> int:
        return self.first + len(self.starts) - 1

    def start(self, n: int) -> int:
        return self.starts[n - self.first]

    def stop(self, n: int) -> int:
        """Offset behind batch ``n``."""
        return self.starts[n - self.first + 1] if n < self.last else self.end

    def after(self, n: int) -> Piece:
        """The part behind batch ``n``."""
        return Piece(n + 1, self.starts[n + 1 - self.first :], self.end, self.at_ns, self.from_ns)


@dataclass(slots=True)
class Scanned:
    """What a segment holds. ``head`` is None when nothing at all can be read."""

    head: SegmentHead | None = None
    pieces: list[Piece] = field(default_factory=list)
    damaged: int = 0
    """Bytes between records that are none."""
    torn: int = 0
    """Bytes at the end that are no whole record: what a write had begun when it was interrupted."""


def scan(read: Read, size: int) -> Scanned:
    """Find the records of a segment of ``size`` bytes, whatever was cut off or overwritten. Payloads are not checked.

    Never raises for what stands in it. Numbers rise; a record that repeats or falls back is left out.
    """
    found = Scanned()
    found.head, at = _read_head(read, size)
    last = 0
    begun = at
    while at < size:
        head = decode_record(read(at, RECORD_HEAD))
        if head is None or at + RECORD_HEAD + head.length > size:
            at = _next_record(read, at + 1, size)
            continue
        if begun != at:
            found.damaged += at - begun
        end = at + RECORD_HEAD + head.length
        if head.n > last:
            if not found.pieces or found.pieces[-1].last + 1 != head.n or found.pieces[-1].end != at:
                found.pieces.append(Piece(head.n, from_ns=head.at_ns))
            piece = found.pieces[-1]
            piece.starts.append(at)
            piece.end, piece.at_ns = end, head.at_ns
            last = head.n
        begun = at = end
    found.torn = size - begun if begun < size else 0
    if found.head is None:
        found.head = _guess_head(read, found.pieces)
    return found


def _read_head(read: Read, size: int) -> tuple[SegmentHead | None, int]:
    """(head, offset behind it); (None, 0) when it is damaged."""
    start = read(0, _HEAD.size)
    if len(start) == _HEAD.size:
        magic, length, crc = _HEAD.unpack(start)
        if magic == MAGIC and length <= min(size, MAX_HEAD):
            body = read(_HEAD.size, length)
            if len(body) == length and zlib.crc32(body) == crc:
                try:
                    head = _decoder.decode(body)
                except (msgspec.DecodeError, ValueError):
                    return None, 0
                if head.version == VERSION:
                    return head, _HEAD.size + length
    return None, 0


def _next_record(read: Read, at: int, size: int) -> int:
    """Offset of the next thing that may be a record, ``size`` when there is none."""
    while at < size:
        data = read(at, _SEARCH + len(RECORD) - 1)
        index = data.find(RECORD)
        if index >= 0:
            return at + index
        if not data:
            break
        at += max(1, len(data) - len(RECORD) + 1)
    return size


def _guess_head(read: Read, pieces: list[Piece]) -> SegmentHead | None:
    """From the first batch that can be read, as each names its session; what was live is not known then."""
    for piece in pieces:
        for n in range(piece.first, piece.last + 1):
            fields = read(piece.start(n), RECORD_HEAD)
            head = decode_record(fields)
            payload = read(piece.start(n) + RECORD_HEAD, piece.stop(n) - piece.start(n) - RECORD_HEAD)
            if head is None or not intact(head, payload):
                continue
            try:
                session = decode_batch(payload).session
                started_ns = int(session.rpartition("-")[2][:12], 16) * 1_000_000
            except (msgspec.DecodeError, ValueError):
                continue
            return SegmentHead(VERSION, "", session, session.rpartition("-")[0], started_ns, piece.first, head.at_ns)
    return None
