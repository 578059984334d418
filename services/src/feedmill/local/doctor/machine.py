"""Python, cores, memory, disk, limits, clock."""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import shutil
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from feedmill.local.doctor.check import Check, bad, ok, warn

GIB = 1 << 30
_LIBRARIES = ("aiohttp", "asyncpg", "hiredis", "msgspec", "picows", "redis", "uvloop", "fastapi", "uvicorn", "alembic")


def checks(data_dir: Path) -> Iterator[Check]:
    """All of this page; ``data_dir`` need not exist."""
    yield python()
    yield libraries()
    yield system()
    yield cores()
    yield memory()
    yield disk(data_dir)
    yield open_files()
    yield clock()


def python() -> Check:
    version = platform.python_version()
    if struct.calcsize("P") < 8:
        return bad("Python", f"{version}, 32 bit", "install a 64-bit Python: the servers' binaries are 64-bit")
    return ok("Python", f"{version} ({platform.python_implementation()})")


def libraries() -> Check:
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        return bad("libraries", f"missing: {', '.join(missing)}", "pip install 'feedmill[local]' in this environment")
    return ok("libraries", f"{len(_LIBRARIES)} found")


def system() -> Check:
    name = f"{platform.system()} {platform.release()} {platform.machine()}"
    if sys.platform == "linux":
        return ok("system", name)
    if sys.platform == "darwin":
        return warn("system", name, "macOS works through a watchdog pipe and is tested less than Linux")
    return bad("system", name, "use Linux or macOS (on Windows: WSL 2)")


def cores() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if usable < 2:
        return warn("processor cores", str(usable), "2 or more are better: on one, latencies grow under load")
    return ok("processor cores", str(usable))


def memory() -> Check:
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free, total = (int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        return ok("memory", "not known on this system")
    limit = _cgroup_limit()
    if limit is not None and limit < total:
        total, free = limit, min(free, limit)
    found = f"{free / GIB:.1f} GiB available of {total / GIB:.1f} GiB"
    if free < GIB // 2:
        return bad("memory", found, "free 1 GiB: a small feed with its servers takes about half of that")
    if free < GIB:
        return warn("memory", found, "1 GiB or more should be available")
    return ok("memory", found)


def _cgroup_limit() -> int | None:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def disk(data_dir: Path) -> Check:
    place = data_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        return bad("data folder", f"{place} is not writable", "choose another with --data-dir")
    free = shutil.disk_usage(place).free
    found = f"{data_dir}: {free / GIB:.1f} GiB free"
    if free < GIB:
        return bad("data folder", found, "make room, or choose another with --data-dir")
    if free < 5 * GIB:
        return warn("data folder", found, "a busy feed stores several GiB a day: make room, or shorten retention")
    return ok("data folder", found)


def open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 1024:
        return warn("open files", f"limit {soft}", f"ulimit -n 4096 (this user may raise it to {hard})")
    return ok("open files", f"limit {soft if soft != resource.RLIM_INFINITY else 'none'}")


def clock() -> Check:
    """Wall clock against the monotonic one over a moment: a clock being stepped shows here."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(0.2)
    drift = abs((time.time() - wall) - (time.monotonic() - steady))
    year = time.gmtime().tm_year
    if year < 2025:
        return bad("clock", f"the year is {year}", "set the clock (timedatectl set-ntp true)")
    if drift > 0.02:
        return warn("clock", f"stepped {1000 * drift:.0f} ms in 0.2 s", "let NTP settle (timedatectl status)")
    return ok("clock", f"steady ({1e6 * drift:.0f} us in 0.2 s)")
