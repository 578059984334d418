"""Files beside an embedded server's data: lock, password, remembered port, log."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import secrets
import socket
import time
from pathlib import Path

from feedmill.local.embedded.errors import DataDirInUse, EmbeddedError

MAX_SOCKET_PATH = 100
"""Bytes; the system's limit for a Unix socket path is 104-108."""
PATIENCE_ALIVE = 2.0
"""Seconds to wait for a folder whose owner lives."""
_PORTS = (20000, 32000)
"""Below the range from which systems take ports for outgoing connections, so a stopped server's port stays free."""


class DirLock:
    """A folder's lock: flock on a file, inherited by the server, so it lasts until the server itself is gone."""

    def __init__(self, folder: Path, what: str) -> None:
        self._path = folder / "lock"
        self._what = what
        self.fd: int | None = None

    def acquire(self, timeout: float) -> None:
        """Take it; raises DataDirInUse.

        Waits ``timeout`` seconds for a server whose owner is gone (it is shutting down), and a moment for a living
        owner (it may be a short question of ``feedmill query``).
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = self._holder(fd)
                patience = PATIENCE_ALIVE if holder is not None and _alive(holder) else timeout
                if time.monotonic() - began > min(patience, timeout):
                    os.close(fd)
                    who = f"feedmill process {holder}" if holder else "another process"
                    raise DataDirInUse(
                        f"{self._path.parent} ({self._what}) is in use by {who}: "
                        "stop it first, or choose another folder with --data-dir"
                    ) from None
                time.sleep(0.02)
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps({"pid": os.getpid()}).encode(), 0)
        self.fd = fd

    @staticmethod
    def _holder(fd: int) -> int | None:
        try:
            pid = json.loads(os.pread(fd, 200, 0) or b"{}").get("pid")
        except ValueError:
            return None
        return pid if isinstance(pid, int) else None

    def release(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    @classmethod
    def is_held(cls, folder: Path) -> bool:
        """Whether anybody has the folder's lock now."""
        try:
            fd = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # Shared, so that two who look do not see each other.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def private_folder(path: Path) -> Path:
    """Make ``path`` (0700 when new); raises EmbeddedError with the reason."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise EmbeddedError(
            f"cannot make the data folder {path}: {error.strerror}: choose another with --data-dir"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise EmbeddedError(f"the data folder {path} is not writable by this user: choose another with --data-dir")
    return path


def write_private(path: Path, text: str) -> None:
    """Write ``text`` readable by us alone, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    temporary.replace(path)


def password(folder: Path) -> str:
    """The server's password, made on first use and kept in the folder (0600)."""
    path = folder / "password"
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        text = ""
    if not text:
        text = secrets.token_urlsafe(24)
        write_private(path, text + "\n")
    return text


def remembered_port(folder: Path) -> int | None:
    try:
        return int((folder / "port").read_text())
    except (FileNotFoundError, ValueError):
        return None


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Whether anybody takes connections on ``port`` of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def choose_port(folder: Path) -> int:
    """A free loopback port: the one this folder had before where possible."""
    last = remembered_port(folder)
    if last is not None and port_is_free(last):
        return last
    for _ in range(200):
        port = random.randrange(*_PORTS)
        if port_is_free(port):
            return port
    raise EmbeddedError("no free TCP port on 127.0.0.1 between 20000 and 32000")


def socket_folder(folder: Path, name: str) -> Path | None:
    """Where a Unix socket called ``name`` may lie, None when the path would be too long for the system."""
    return folder if len(os.fsencode(folder / name)) <= MAX_SOCKET_PATH else None


def rotate(log: Path, limit: int = 8 << 20) -> None:
    """Keep one older log file once ``log`` has more than ``limit`` bytes."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > limit:
            log.replace(log.with_suffix(".log.1"))


def tail(log: Path, start: int, lines: int = 12, width: int = 300) -> str:
    """The last lines that were written after byte ``start``."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 16384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return "(no log)"
    kept = [line[:width] for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(f"  | {line}" for line in kept) or "  | (it wrote nothing)"
