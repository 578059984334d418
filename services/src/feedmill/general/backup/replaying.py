"""A scratch PostgreSQL that begins as a base backup and replays the stored log up to a moment.

It listens on a Unix socket in a private folder only, takes no setting and no access rule from the server that the base
backup is of, and is asked as the role that owned the pipeline's database there.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, urlencode

from feedmill.general.backup.manifest import Manifest
from feedmill.general.backup.programs import DISK_FULL
from feedmill.local.embedded import EmbeddedPostgres, binaries, setuid
from feedmill.local.embedded.errors import EmbeddedError
from feedmill.local.embedded.launch import Privilege, drop_root
from feedmill.shared.clock import iso

PATIENCE = 86400.0
"""Seconds that replaying may take."""
_FETCH = Path(__file__).with_name("_fetch_wal.py")
_PROTOCOL_3 = 196608
_ACCESS = "local all all trust\n"
_LACKS = (*DISK_FULL, "out of memory", "Cannot allocate memory", "signal 9")


class ReplayingPostgres(EmbeddedPostgres):
    """``folder`` holds ``pgdata``, the base backup's files. ``to_ns``: None = to the end of what is stored."""

    stop_signals: ClassVar[Sequence[tuple[int, float]]] = ((signal.SIGQUIT, 5.0),)

    def __init__(self, folder: Path, sockets: Path, base: Manifest, to_ns: int | None) -> None:
        self._sockets = sockets
        self._base = base
        self._interrupted = threading.Event()
        super().__init__(folder, fsync=False, options=self._options(folder, to_ns), start_timeout=PATIENCE)

    @property
    def asked(self) -> Path:
        """The socket at which restore_command asks for files of the log."""
        return self._sockets / "log"

    @property
    def socket_dir(self) -> Path:
        return self._sockets

    @property
    def url(self) -> str:
        where = urlencode({"host": str(self._sockets), "port": self.port}, quote_via=quote)
        return f"postgresql://{quote(self._base.role, safe='')}@/{quote(self._base.database, safe='')}?{where}"

    def _options(self, folder: Path, to_ns: int | None) -> dict[str, str]:
        command = [_python(), "-I", "-S", str(folder / _FETCH.name), str(self.asked)]
        # PostgreSQL takes % for the beginning of a placeholder.
        fetch = " ".join(shlex.quote(part).replace("%", "%%") for part in command)
        options = {
            "listen_addresses": "",
            "hba_file": str(folder / "pg_hba.conf"),
            "restore_command": f'{fetch} %f "%p"',
            "recovery_target_action": "promote",
            "recovery_target_timeline": "latest",
            # Else it insists on being as large as the server that it is a copy of.
            "hot_standby": "off",
            "archive_mode": "off",
            "autovacuum": "off",
            "max_prepared_transactions": "64",
            "max_wal_size": "4GB",
        }
        if to_ns is not None:
            # PostgreSQL counts microseconds; what was committed within the last one is not asked for.
            options["recovery_target_time"] = iso(to_ns // 1000 * 1000).replace("T", " ")[:26] + "+00"
        return options

    def _prepare(self) -> None:
        self._bin = binaries.postgres_bin()
        made = int((self.cluster / "PG_VERSION").read_text().strip())
        own = binaries.major_version(binaries.version_text(self._bin / "postgres"))
        if made != own:
            raise EmbeddedError(
                f"base backup {self._base.id} is of PostgreSQL {made}, the binaries in {self._bin} are of {own}: set "
                f"PG_BIN to the bin folder of a PostgreSQL {made}"
            )
        for name in ("postgresql.conf", "postgresql.auto.conf", "pg_ident.conf", "recovery.signal"):
            (self.cluster / name).write_text("")
        for name in ("standby.signal", "postmaster.pid"):
            (self.cluster / name).unlink(missing_ok=True)
        (self.data_dir / "pg_hba.conf").write_text(_ACCESS)
        shutil.copy(_FETCH, self.data_dir / _FETCH.name)
        if self._privilege() is Privilege.SETUID:
            self._bin = setuid.prepare(self._bin, self.data_dir)
            for path in (self._sockets, self.asked):
                setuid.give(path)

    def _probe(self) -> bool:
        if self._interrupted.is_set():
            raise EmbeddedError("interrupted")
        body = struct.pack("!I", _PROTOCOL_3)
        body += f"user\0{self._base.role}\0database\0{self._base.database}\0\0".encode()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(str(self._sockets / f".s.PGSQL.{self.port}"))
            client.sendall(struct.pack("!I", len(body) + 4) + body)
            return client.recv(1) == b"R"

    def interrupt(self) -> None:
        """From another thread: ``start`` fails, now or as soon as it would wait, and nothing of the server is left."""
        self._interrupted.set()


def _python() -> str:
    """One that the server may run, whoever it runs as."""
    if drop_root() is Privilege.SETUID:
        for candidate in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
            path = Path(candidate)
            if path.exists() and setuid.closed_to_others(path.resolve().parent) is None:
                return candidate
    return sys.executable


def why_it_failed(error: EmbeddedError) -> str:
    """Why the moment that was asked for cannot be had, and what to do; empty where it is something else."""
    said = str(error)
    if "recovery ended before configured recovery target was reached" in said:
        return (
            "nothing was committed after that time, or the log that is stored ends before it: choose an earlier "
            "moment, or leave --to out: as far as there is anything"
        )
    if "before consistent recovery point" in said:
        return "it was not whole yet at that time: choose a later moment, or name an earlier base backup (--backup)"
    return ""


def is_its_fault(error: EmbeddedError) -> bool:
    """Whether the server gave up on what it was to replay, and not for want of room, of memory, or of a server."""
    said = str(error)
    return "startup process" in said and not any(lacks in said for lacks in _LACKS)
