"""Redis in a container: on all addresses, append-only, never evicts, its password changed while it runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

import redis

from feedmill.local.embedded import EmbeddedRedis
from feedmill.local.managed.output import own_output
from feedmill.local.managed.passwords import Passwords

_TIMEOUT = 5.0
"""Seconds for a command about passwords."""


class ManagedRedis(EmbeddedRedis):
    """``maxmemory``: bytes, None = no limit."""

    def __init__(self, data_dir: Path, *, port: int, maxmemory: int | None, start_timeout: float) -> None:
        super().__init__(
            data_dir,
            port=port,
            maxmemory=maxmemory,
            config={"bind": "* -::*", "logfile": '""'},
            start_timeout=start_timeout,
        )

    def _open_log(self) -> IO[bytes]:
        return own_output()

    def use(self, passwords: Passwords) -> None:
        """Exactly these passwords are good from now on; who is connected stays. Raises OSError when it cannot be
        told."""
        good = [word for word in (passwords.current, passwords.previous) if word is not None]
        hashes = [f"#{hashlib.sha256(word.encode()).hexdigest()}" for word in good]
        try:
            with redis.Redis(
                host=self.host,
                port=self.port,
                password=self._password,
                socket_timeout=_TIMEOUT,
                socket_connect_timeout=_TIMEOUT,
                protocol=2,
            ) as client:
                client.execute_command("ACL", "SETUSER", "default", "resetpass", *hashes)
        except redis.RedisError as error:
            raise OSError(f"Redis did not take its password: {error}") from error
        self._password = passwords.current
