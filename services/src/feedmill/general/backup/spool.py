"""The folder in which the log waits for its upload: ``<spool>/<system identifier>/`` as pg_receivewal fills it.

Nothing in it is needed to be right: what was not uploaded the server still has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from feedmill.general.backup.wal_plan import Segment, segment_of

_PARTIAL, _HISTORY = ".partial", ".history"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file that is whole and not uploaded."""

    system: str
    file: str
    path: Path
    since_ns: int
    """When it was last written."""


class Spool:
    """All methods block: call them in a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, system: str) -> Path:
        """Where pg_receivewal writes the log of ``system``."""
        return self.root / system

    def systems(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and path.name.isdigit())

    def _files(self, system: str) -> list[Path]:
        """None where its folder went away a moment ago."""
        try:
            return list(self.folder(system).iterdir())
        except FileNotFoundError:
            return []

    def waiting(self) -> list[Waiting]:
        """What can be uploaded, in the order of the log; history files first."""
        found = []
        for system in self.systems():
            for path in self._files(system):
                if path.suffix == _HISTORY or segment_of(path.name) is not None:
                    with contextlib.suppress(FileNotFoundError):
                        state = path.stat()
                        found.append(Waiting(system, path.name, path, state.st_mtime_ns))
        return sorted(found, key=lambda item: (item.system, item.path.suffix != _HISTORY, item.file[8:], item.file))

    def partial(self, system: str) -> Path | None:
        """The file that is being written; None when there is none."""
        found = [path for path in self._files(system) if path.suffix == _PARTIAL]
        return max(found, key=lambda path: (path.name[8:24], path.name), default=None)

    def size_bytes(self) -> int:
        total = 0
        for system in self.systems():
            for path in self._files(system):
                with contextlib.suppress(FileNotFoundError):
                    total += path.stat().st_size
        return total

    def prepare(self, system: str, needed: Segment, segment_bytes: int) -> None:
        """Leave what goes on from ``needed`` without a gap, and see that pg_receivewal goes on after that.

        It begins where the files in its folder end: an empty unfinished one says where, when there is no other.
        """
        folder = self.folder(system)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        have: dict[int, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            segment = segment_of(path.name.removesuffix(_PARTIAL), segment_bytes)
            if segment is not None:
                have.setdefault(segment.number, []).append(path)
        end = needed.number
        while any(path.suffix != _PARTIAL for path in have.get(end, ())):
            end += 1
        for number, paths in have.items():
            for path in paths:
                if not needed.number <= number <= end or (number == end and path != paths[-1]):
                    path.unlink()
        if end in have and have[end][-1].stat().st_size not in (0, segment_bytes):
            # Cut off, or out of room, while it was made: pg_receivewal refuses it for ever, and the server has it.
            os.truncate(have[end][-1], 0)
        if end not in have:
            (folder / (Segment(end, needed.timeline).name(segment_bytes) + _PARTIAL)).touch(mode=0o600)

    def remove(self, item: Waiting) -> None:
        item.path.unlink(missing_ok=True)

    def forget(self, system: str) -> None:
        """Remove all of a system whose log is not received any more: it was stored."""
        shutil.rmtree(self.folder(system), ignore_errors=True)
