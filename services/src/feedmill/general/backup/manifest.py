"""What is written beside a backup, and what a drill found: plain JSON, readable without any key. Pure.

A manifest is written last, so a backup without one does not exist. It names no secret: of the key its id only.
"""

from __future__ import annotations

import msgspec

from feedmill.general.backup.names import KINDS, Kind, kind_of

FORMAT = 1
_TORN = (msgspec.DecodeError, UnicodeDecodeError)
"""What is raised for content that is not what was written."""


class ManifestError(Exception):
    """A manifest cannot be used; the message names it and what is wrong."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One backup. Times are ns since the epoch, UTC."""

    id: str
    kind: Kind
    namespace: str
    """Of the pipeline that it is a backup of."""
    pipeline: str
    object: str
    """Name of the sealed content, below the destination's prefix."""
    size_bytes: int
    """Of the object as stored, sealed."""
    sha256: str
    """Of the object as stored, in hex: can be checked without the key."""
    plain_bytes: int
    """Of the content before it was sealed."""
    key_id: str
    """The key that the object was sealed with."""
    started_ns: int
    ended_ns: int
    """When the object was stored whole."""
    snapshot_ns: int
    """The moment that the content is of. Of a base backup: when it began; with the WAL it reaches further."""
    schema_version: str
    """The alembic revision of the database."""
    feedmill_version: str
    server_version: str
    """Of PostgreSQL, such as `18.6`."""
    schema_name: str = "public"
    """The schema of the database that holds the tables. Logical backups only."""
    row_counts: dict[str, int] = {}
    """Rows by table, of the same snapshot as the content. Empty for a base backup."""
    checksums: dict[str, str] = {}
    """Checksums by table of the content, as a restore computes them again."""
    system: str = ""
    """PostgreSQL's system identifier. Base backups only, as what follows."""
    timeline: int = 0
    wal_from: str = ""
    """The first WAL file that a restore of it needs."""
    wal_to: str = ""
    """The last WAL file without which it is not consistent."""
    wal_segment_bytes: int = 16 << 20
    """Size of a WAL file of that system."""
    database: str = ""
    """The pipeline's database among those of the system."""
    role: str = ""
    """Who owns it: the role that a restore reads it as."""
    format: int = FORMAT

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended_ns - self.started_ns) / 1e9


class Drill(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One restore into a scratch database, and what was found. Times are ns since the epoch, UTC."""

    id: str
    backup_id: str
    passed: bool
    started_ns: int
    ended_ns: int
    feedmill_version: str
    to_ns: int = 0
    """The time restored to; 0: as far as the backup reaches."""
    row_counts: dict[str, int] = {}
    error: str = ""
    """Why it did not pass."""


def encode(what: Manifest | Drill) -> bytes:
    """Indented, for a reader's eyes, and with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(what), indent=2) + b"\n"


def decode_manifest(content: bytes, name: str) -> Manifest:
    """The manifest stored under ``name``. Raises ManifestError."""
    try:
        version = msgspec.json.decode(content, type=_Version).format
    except _TORN as error:
        raise ManifestError(f"{name}: is not a backup's manifest: {error}") from None
    if version > FORMAT:
        raise ManifestError(f"{name}: has format {version}, this version reads {FORMAT}: use a newer feedmill")
    try:
        found = msgspec.json.decode(content, type=Manifest)
    except _TORN as error:
        raise ManifestError(f"{name}: is not a backup's manifest: {error}") from None
    if found.kind not in KINDS or kind_of(found.id) != found.kind:
        raise ManifestError(f"{name}: {found.id!r} is not the id of a {found.kind} backup")
    return found


def decode_drill(content: bytes, name: str) -> Drill:
    """The drill stored under ``name``. Raises ManifestError."""
    try:
        return msgspec.json.decode(content, type=Drill)
    except _TORN as error:
        raise ManifestError(f"{name}: is not the record of a drill: {error}") from None


class _Version(msgspec.Struct):
    format: int = FORMAT
