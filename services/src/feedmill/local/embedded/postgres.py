"""The embedded PostgreSQL: its own cluster in a folder, loopback with a password, tuned for a small machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from feedmill.local.embedded import binaries, files, setuid
from feedmill.local.embedded.errors import EmbeddedError
from feedmill.local.embedded.launch import Privilege, drop_root, launch
from feedmill.local.embedded.server import EmbeddedServer

USER = "feedmill"
DATABASE = "feedmill"
_PROTOCOL_3 = 196608


class EmbeddedPostgres(EmbeddedServer):
    """``data_dir`` holds ``pgdata/`` (the cluster), postgresql.log, password (0600), lock, port.

    ``fsync`` off is for tests. ``options``: further server settings, name -> value. ``privilege`` is found by itself.
    """

    what: ClassVar[str] = "PostgreSQL"
    stop_signals: ClassVar[Sequence[tuple[int, float]]] = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0))
    parent_death_signal: ClassVar[int] = signal.SIGINT

    def __init__(
        self,
        data_dir: Path | str,
        *,
        port: int = 0,
        fsync: bool = True,
        options: Mapping[str, str] | None = None,
        start_timeout: float = 120.0,
        privilege: Privilege | None = None,
    ) -> None:
        super().__init__(data_dir, port=port, start_timeout=start_timeout)
        self.fsync = fsync
        self.options = dict(options or {})
        self._chosen_privilege = privilege
        self._password = ""
        self._bin: Path | None = None

    @property
    def url(self) -> str:
        return self.url_for(DATABASE)

    def url_for(self, database: str) -> str:
        """Connection URL of another database of this server; with its password: never print it."""
        return f"postgresql://{USER}:{self._password}@{self.host}:{self.port}/{database}"

    @property
    def safe_url(self) -> str:
        return f"postgresql://{USER}@{self.host}:{self.port}/{DATABASE}"

    def attach(self, port: int, secret: str) -> None:
        """Point ``url`` and ``client_environment`` at a server that another process runs on this folder."""
        self.port, self._password = port, secret

    @property
    def cluster(self) -> Path:
        return self.data_dir / "pgdata"

    @property
    def bin_dir(self) -> Path:
        """Where psql, pg_dump and the others are."""
        return self._bin or binaries.postgres_bin()

    @property
    def socket_dir(self) -> Path | None:
        """Folder of its Unix socket (no password asked: the folder is ours alone), None where its path is too long."""
        return files.socket_folder(self.data_dir, f".s.PGSQL.{self.port or 65535}")

    def _privilege(self) -> Privilege:
        return self._chosen_privilege or drop_root()

    def _prepare(self) -> None:
        self._bin = binaries.postgres_bin()
        self._password = files.password(self.data_dir)
        major = binaries.major_version(binaries.version_text(self._bin / "postgres"))
        if self._privilege() is Privilege.SETUID:
            self._bin = setuid.prepare(self._bin, self.data_dir)
        if (self.cluster / "PG_VERSION").exists():
            made = int((self.cluster / "PG_VERSION").read_text().strip())
            if made != major:
                raise EmbeddedError(
                    f"{self.cluster} was made by PostgreSQL {made}, but the binaries in {self._bin} are version "
                    f"{major}: set PG_BIN to the bin folder of a PostgreSQL {made}; or choose another --data-dir and "
                    f"move the data with pg_dump {made} and pg_restore"
                )
        else:
            self._make_cluster(major)
        self._remove_stale_pid_file()

    def _make_cluster(self, major: int) -> None:
        """initdb into a folder beside, renamed when whole: a start cut short leaves nothing half-made."""
        assert self._bin is not None
        if shutil.disk_usage(self.data_dir).free < 256 << 20:
            raise EmbeddedError(
                f"{self.data_dir}: less than 256 MiB of disk are free: make room, or choose another --data-dir"
            )
        fresh = self.data_dir / "pgdata.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if self._privilege() is Privilege.SETUID:
            setuid.give(fresh)
            setuid.give(self.data_dir / "password")
        locale = ["--locale=C.UTF-8"]
        if major >= 17:  # Built in: the same order of text on every system and after every system upgrade.
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command = [str(self._bin / "initdb"), "-D", str(fresh), "-U", USER, "-E", "UTF8", *locale]
        command += ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={self.data_dir / 'password'}"]
        if not self.fsync:
            command.append("--no-sync")
        self._run(command, "initdb")
        single = [str(self._bin / "postgres"), "--single", "-D", str(fresh), "-c", "fsync=off", "postgres"]
        script = f'echo \'CREATE DATABASE "{DATABASE}"\' | exec "$@"'
        self._run(["/bin/sh", "-c", script, "sh", *single], "create database")
        fresh.replace(self.cluster)

    def _run(self, command: list[str], what: str) -> None:
        """A short-lived helper program under the same rules as the server; its output goes to the log."""
        at = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self._open_log() as output:
            started = launch(
                command,
                signal_number=signal.SIGTERM,
                output=output,
                cwd=self.data_dir,
                environment=self._environment(),
                privilege=self._privilege(),
            )
        try:
            code = started.process.wait(self.start_timeout)
        except subprocess.TimeoutExpired:
            self._kill_group(started.process)
            raise self._failure(f"{what} did not end within {self.start_timeout:g} s", at) from None
        finally:
            started.close()
        if code != 0:
            raise self._failure(f"{what} failed (exit code {code})", at)

    def _remove_stale_pid_file(self) -> None:
        """We hold the folder's lock, and every server we start inherits it: a pid file left there is a dead server's.

        Its number may by now belong to another program, which PostgreSQL would take for its own postmaster. Only a
        server started by hand could be real: that one is left alone and named.
        """
        path = self.cluster / "postmaster.pid"
        try:
            pid = abs(int(path.read_text().split()[0]))
        except (FileNotFoundError, ValueError, IndexError):
            pid = 0
        if pid:
            with contextlib.suppress(OSError):
                program = Path(f"/proc/{pid}/comm").read_text()
                if "postgres" in program and Path(f"/proc/{pid}/cwd").resolve() == self.cluster:
                    raise EmbeddedError(
                        f"a PostgreSQL server started by hand (process {pid}) is using {self.cluster}: "
                        f"stop it first (kill -INT {pid})"
                    )
        with contextlib.suppress(FileNotFoundError):
            path.unlink()

    def _command(self) -> list[str]:
        assert self._bin is not None
        on_off = "on" if self.fsync else "off"
        settings = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir) if self.socket_dir is not None else "",
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "shared_buffers": "128MB",
            "min_wal_size": "80MB",
            "max_wal_size": "1GB",
            "wal_compression": "on",
            # What a backup's slot may keep while nobody reads it: the disk must not fill up.
            "max_slot_wal_keep_size": "8GB",
            "checkpoint_completion_target": "0.9",
            "random_page_cost": "1.1",
            "synchronous_commit": "on",
            "fsync": on_off,
            "full_page_writes": on_off,
            "jit": "off",
            "huge_pages": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            "logging_collector": "off",
            **self.options,
        }
        command = [str(self._bin / "postgres"), "-D", str(self.cluster)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"PGUSER": USER}

    def _probe(self) -> bool:
        """Send a startup message: a server that asks for a password is ready, one still recovering answers 57P03."""
        body = struct.pack("!I", _PROTOCOL_3) + f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
        with socket.create_connection((self.host, self.port), timeout=1.0) as client:
            client.sendall(struct.pack("!I", len(body) + 4) + body)
            return client.recv(1) == b"R"

    def client_environment(self) -> dict[str, str]:
        """libpq variables for psql or pg_dump as a child of ours: the Unix socket where there is one, else TCP."""
        host = str(self.socket_dir) if self.socket_dir is not None else self.host
        secret = {} if self.socket_dir is not None else {"PGPASSWORD": self._password}
        found = {"PGHOST": host, "PGPORT": str(self.port), "PGUSER": USER, "PGDATABASE": DATABASE, **secret}
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | found
