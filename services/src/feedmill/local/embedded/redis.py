"""The embedded Redis (Valkey): append-only file, never evicts, loopback with a password."""

from __future__ import annotations

import re
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from feedmill.local.embedded import binaries, files
from feedmill.local.embedded.errors import EmbeddedError
from feedmill.local.embedded.server import EmbeddedServer


def quoted(text: str) -> str:
    """Any text as one word of redis.conf or of an inline command."""
    plain = "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\x{byte:02x}" for byte in text.encode())
    return f'"{plain}"'


class EmbeddedRedis(EmbeddedServer):
    """``data_dir`` holds ``data/`` (the AOF), redis.conf and the password (0600), redis.log, lock, port.

    ``maxmemory``: bytes, or None for no limit. ``config``: further lines of redis.conf, name -> value.
    """

    what: ClassVar[str] = "Redis"
    stop_signals: ClassVar[Sequence[tuple[int, float]]] = ((signal.SIGTERM, 15.0),)
    parent_death_signal: ClassVar[int] = signal.SIGTERM

    def __init__(
        self,
        data_dir: Path | str,
        *,
        port: int = 0,
        appendonly: bool = True,
        maxmemory: int | None = None,
        config: Mapping[str, str] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        super().__init__(data_dir, port=port, start_timeout=start_timeout)
        self.appendonly = appendonly
        self.maxmemory = maxmemory
        self.config = dict(config or {})
        self._password = ""
        self._binary: Path | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{self.host}:{self.port}/0"

    @property
    def safe_url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    @property
    def socket_path(self) -> Path | None:
        """Its Unix socket, None where the folder's path is too long for one."""
        folder = files.socket_folder(self.data_dir, "redis.sock")
        return folder / "redis.sock" if folder is not None else None

    @property
    def aof_dir(self) -> Path:
        """Where the append-only file's parts are."""
        return self.data_dir / "data" / "appendonlydir"

    def _prepare(self) -> None:
        self._binary = binaries.redis_binary()
        self._check_version(binaries.version_text(self._binary))
        files.private_folder(self.data_dir / "data")
        self._password = files.password(self.data_dir)
        if shutil.disk_usage(self.data_dir).free < 64 << 20:
            raise EmbeddedError(
                f"{self.data_dir}: less than 64 MiB of disk are free: make room, or choose another --data-dir"
            )

    def _check_version(self, text: str) -> None:
        """A newer server's files cannot be read by an older one: say so before it fails in its own words."""
        family = "valkey" if "valkey" in text.lower() else "redis"
        major = binaries.major_version(text)
        path = self.data_dir / "version"
        try:
            made = re.fullmatch(r"(valkey|redis) (\d+)", path.read_text().strip())
        except FileNotFoundError:
            made = None
        if made is not None and made[1] == family and int(made[2]) > major:
            raise EmbeddedError(
                f"{self.data_dir} was written by {made[1]} {made[2]}, but {self._binary} is {family} {major}, which "
                f"cannot read it: set REDIS_BIN to a {made[1]} {made[2]} server, or choose another --data-dir"
            )
        files.write_private(path, f"{family} {major}\n")

    def _config_text(self) -> str:
        lines = {
            "bind": self.host,
            "port": str(self.port),
            "protected-mode": "yes",
            "requirepass": quoted(self._password),
            "daemonize": "no",
            "dir": f'"{self.data_dir / "data"}"',
            "appendonly": "yes" if self.appendonly else "no",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "save": '""',
            "maxmemory": str(self.maxmemory or 0),
            "maxmemory-policy": "noeviction",
            "stop-writes-on-bgsave-error": "no",
            "tcp-keepalive": "60",
        }
        if self.socket_path is not None:
            lines["unixsocket"] = f'"{self.socket_path}"'
            lines["unixsocketperm"] = "600"
        lines |= self.config
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    def _command(self) -> list[str]:
        # A file, because the command line is open to every user of the machine.
        path = self.data_dir / "redis.conf"
        files.write_private(path, self._config_text())
        return [str(self._binary), str(path)]

    def _probe(self) -> bool:
        with socket.create_connection((self.host, self.port), timeout=1.0) as client:
            client.sendall(f"AUTH {quoted(self._password)}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                part = client.recv(256)
                if not part:
                    return False
                answer += part
        return answer.startswith(b"+OK\r\n+PONG")
