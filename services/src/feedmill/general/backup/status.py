"""What a run (a backup, a drill, a restore) says of itself: one JSON document, for the operator and for ``/health``.

The names are those of the objects' status (resources/backup_status.py).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feedmill.general.backup.manifest import Manifest
from feedmill.shared.clock import SECOND, monotonic
from feedmill.shared.log import redact

EVERY = 2.0
"""Least seconds between two writes because of progress."""
MAX_BYTES = 4000
"""Most that Kubernetes keeps of a container's last words is 4096."""


def moment(ns: int) -> str:
    """ns since the epoch as UTC, to the second."""
    return f"{datetime.fromtimestamp(ns // SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}"


def of_backup(manifest: Manifest, destination: str) -> dict[str, Any]:
    """The fields that tell of a backup that is stored."""
    return {
        "backupId": manifest.id,
        "destination": destination,
        "object": manifest.object,
        "sizeBytes": manifest.size_bytes,
        "sha256": manifest.sha256,
        "rows": sum(manifest.row_counts.values()),
        "contentAt": moment(manifest.snapshot_ns),
        "keyId": manifest.key_id,
        "schemaVersion": manifest.schema_version,
    }


class RunStatus:
    """Written to a file, where one is given, in place: the last words of a container are a mount. Never raises."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._written = 0.0
        self.document: dict[str, Any] = {"phase": "Running"}

    def progress(self, what: str, done: int, expected: int) -> None:
        """As :data:`feedmill.general.backup.progress.Progress`."""
        percent = min(99, 100 * done // expected) if expected else None
        self.document |= {"step": what, "bytes": done} | ({} if percent is None else {"progress": percent})
        if monotonic() - self._written >= EVERY:
            self._write()

    def succeeded(self, message: str, fields: dict[str, Any]) -> None:
        self._end("Succeeded", message, {**fields, "progress": 100})

    def failed(self, message: str) -> None:
        self._end("Failed", message, {})

    def _end(self, phase: str, message: str, fields: dict[str, Any]) -> None:
        kept = {name: value for name, value in self.document.items() if name not in ("step", "bytes")}
        self.document = kept | fields | {"phase": phase, "message": redact(message)[:2000]}
        self._write()

    def _write(self) -> None:
        self._written = monotonic()
        if self._file is None:
            return
        text = json.dumps(self.document)
        if len(text.encode()) > MAX_BYTES:
            text = json.dumps(self.document | {"message": str(self.document.get("message", ""))[:300]})
        try:
            with self._file.open("r+" if self._file.exists() else "w") as file:
                file.write(text)
                file.truncate()
        except OSError:
            pass  # Nothing hangs on it: the exit code and the log say the same.
