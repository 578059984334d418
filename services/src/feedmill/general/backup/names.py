"""Names of a backup's objects below the destination's prefix: the one place that knows the layout. Pure.

    <namespace>/<pipeline>/logical/<id>/data            sealed pg_dump, custom format
    <namespace>/<pipeline>/logical/<id>/manifest.json   written last: without it there is no backup
    <namespace>/<pipeline>/base/<id>/data               sealed base backup (tar); manifest.json beside it
    <namespace>/<pipeline>/wal/<system>/<timeline>/<file>   sealed and gzipped, one object a finished WAL file; the
                                                            one being written as <file>.<time>.partial
    <namespace>/<pipeline>/drills/<id>.json             a restore drill

``<system>`` is PostgreSQL's system identifier: a database that was made anew begins again with the same timeline and
file names, and must not write over what the destroyed one left.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

Kind = Literal["logical", "base"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-(logical|base)-[0-9a-f]{6}")
_WAL = re.compile(r"([0-9A-F]{8})(?:[0-9A-F]{16}(?:\.[0-9A-F]{16}\.partial)?|\.history)")


def new_id(kind: Kind, now_ns: int) -> str:
    """``20261126T030000Z-logical-3f9a1c``: sorts by time, and two of one second differ."""
    at = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC)
    return f"{at:%Y%m%dT%H%M%SZ}-{kind}-{secrets.token_hex(3)}"


def kind_of(backup_id: str) -> Kind | None:
    """The kind that an id names; None when it is not one."""
    found = _ID.fullmatch(backup_id)
    return None if found is None else "base" if found[1] == "base" else "logical"


def timeline_of(wal_file: str) -> int | None:
    """The timeline of a WAL file (finished or partial) or a history file; None for any other name."""
    found = _WAL.fullmatch(wal_file)
    return int(found[1], 16) if found else None


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one pipeline's objects."""

    namespace: str
    pipeline: str

    @property
    def root(self) -> str:
        return f"{self.namespace}/{self.pipeline}/"

    def backups(self, kind: Kind) -> str:
        """What the names of all backups of a kind begin with."""
        return f"{self.root}{kind}/"

    def data(self, backup_id: str) -> str:
        return f"{self._folder(backup_id)}data"

    def manifest(self, backup_id: str) -> str:
        return f"{self._folder(backup_id)}manifest.json"

    def _folder(self, backup_id: str) -> str:
        kind = kind_of(backup_id)
        if kind is None:
            raise ValueError(f"{backup_id!r} is not a backup's id: feedmill backup list shows them")
        return f"{self.backups(kind)}{backup_id}/"

    @property
    def wals(self) -> str:
        """What the names of all WAL files begin with."""
        return f"{self.root}wal/"

    def wal(self, system: str, wal_file: str) -> str:
        """``system``: PostgreSQL's system identifier, in decimal."""
        timeline = timeline_of(wal_file)
        if timeline is None:
            raise ValueError(f"{wal_file!r} is not a WAL file")
        return f"{self.wals}{system}/{timeline:08X}/{wal_file}"

    @property
    def drills(self) -> str:
        return f"{self.root}drills/"

    def drill(self, drill_id: str) -> str:
        return f"{self.drills}{drill_id}.json"


def backup_of(name: str) -> str | None:
    """The id of the backup that an object (``.../<id>/data`` or ``.../<id>/manifest.json``) belongs to."""
    parts = name.rsplit("/", 2)
    if len(parts) == 3 and parts[2] in ("data", "manifest.json") and kind_of(parts[1]):
        return parts[1]
    return None


def wal_of(name: str) -> tuple[str, str] | None:
    """(system identifier, file) of a WAL object; None for any other object."""
    parts = name.rsplit("/", 4)
    if len(parts) == 5 and parts[1] == "wal" and timeline_of(parts[4]) is not None:
        return parts[2], parts[4]
    return None
