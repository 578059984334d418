"""What one run did and found, as it is kept in ``maintenance_runs`` and shown by ``feedmill maintain``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person may want to change."""

    kind: str
    """Of a fixed list: a label of a metric."""
    subject: str
    """Table, index, setting, slot, shard, ..."""
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class TableFigures:
    """A table with all its partitions, after the run."""

    rows: int
    """PostgreSQL's estimate."""
    dead_rows: int
    size_bytes: int
    """With indexes and what is stored out of line."""
    index_bytes: int
    partitions: int


@dataclass(slots=True)
class Report:
    """What one run did, or (``dry_run``) would do. Days are written as dates."""

    dry_run: bool = False
    made: dict[str, list[str]] = field(default_factory=dict)
    """Partitions."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    put_off: dict[str, str] = field(default_factory=dict)
    """Table -> why its old partitions stay until the next run."""
    aged: dict[str, int] = field(default_factory=dict)
    """Table -> rows that were older than is kept."""
    analyzed: list[str] = field(default_factory=list)
    """Tables whose statistics were made anew."""
    removed: dict[str, int] = field(default_factory=dict)
    """Shard or account whose streams were orphaned -> bytes of Redis they took."""
    kept: dict[str, str] = field(default_factory=dict)
    """Orphaned streams that stay -> why."""
    released: dict[str, int] = field(default_factory=dict)
    """Replication slot of a continuous backup that nobody wants, or that nobody reads -> bytes of log it kept."""
    findings: list[Finding] = field(default_factory=list)
    suspects: list[str] = field(default_factory=list)
    """``kind subject`` of what may mend itself soon: a finding if the next run sees it too."""
    tables: dict[str, TableFigures] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """Part of the run -> why it did not come about; the others did their work."""

    @property
    def outcome(self) -> str:
        return "partly" if self.errors else "succeeded"

    def document(self) -> dict[str, Any]:
        """As JSON takes it, empty parts left out."""
        found = {
            "made": self.made,
            "dropped": self.dropped,
            "putOff": self.put_off,
            "aged": self.aged,
            "analyzed": self.analyzed,
            "removed": self.removed,
            "kept": self.kept,
            "released": self.released,
            "findings": [asdict(finding) for finding in self.findings],
            "suspects": self.suspects,
            "tables": {name: asdict(figures) for name, figures in self.tables.items()},
            "errors": self.errors,
        }
        return {name: value for name, value in found.items() if value}


def read_report(document: Mapping[str, Any]) -> Report:
    """The opposite of :meth:`Report.document`; what an older version did not write is empty."""
    return Report(
        made=dict(document.get("made", {})),
        dropped=dict(document.get("dropped", {})),
        put_off=dict(document.get("putOff", {})),
        aged=dict(document.get("aged", {})),
        analyzed=list(document.get("analyzed", [])),
        removed=dict(document.get("removed", {})),
        kept=dict(document.get("kept", {})),
        released=dict(document.get("released", {})),
        findings=[Finding(**found) for found in document.get("findings", [])],
        suspects=list(document.get("suspects", [])),
        tables={name: TableFigures(**found) for name, found in document.get("tables", {}).items()},
        errors=dict(document.get("errors", {})),
    )
