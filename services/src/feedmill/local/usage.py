"""Memory and CPU of processes, from /proc (None where the system has none)."""

from __future__ import annotations

import os
import time
from pathlib import Path

from feedmill.local.embedded.server import descendants


def rss_bytes(pid: int | None, *, family: bool = False) -> int | None:
    """Resident memory; ``family``: with its descendants, shared pages counted once (PSS where readable)."""
    if pid is None:
        return None
    if not family:
        return _rss(pid)
    parts = [_pss(member) for member in (pid, *descendants(pid))]
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def _rss(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def _pss(pid: int) -> int | None:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return _rss(pid)


class CpuMeter:
    """CPU of a process between looks, in percent of one core."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, float]] = {}

    def read(self, pid: int | None) -> float | None:
        """None at the first look, and when the process is gone."""
        if pid is None:
            return None
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError, ValueError):
            self._last.pop(pid, None)
            return None
        now = time.monotonic()
        before = self._last.get(pid)
        if before is not None and now - before[0] < 0.2:
            return None
        self._last[pid] = (now, used)
        if before is None:
            return None
        return round(max(0.0, 100.0 * (used - before[1]) / (now - before[0])), 1)
