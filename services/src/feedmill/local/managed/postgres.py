"""PostgreSQL in a container: on all addresses with scram-sha-256, its password changed while it runs."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import IO

import asyncpg

from feedmill.local.embedded import EmbeddedPostgres, binaries, files, setuid
from feedmill.local.embedded.launch import Privilege
from feedmill.local.embedded.postgres import DATABASE, USER
from feedmill.local.managed.errors import ManagedError
from feedmill.local.managed.output import own_output
from feedmill.local.managed.passwords import Passwords

_TIMEOUT = 10.0
_ACCESS = """\
# Written at every start. The socket's folder is open to this process alone.
local all all trust
host all all 0.0.0.0/0 scram-sha-256
host all all ::/0 scram-sha-256
# For a continuous backup.
host replication all 0.0.0.0/0 scram-sha-256
host replication all ::/0 scram-sha-256
"""


class ManagedPostgres(EmbeddedPostgres):
    """Its Unix socket lies in a private folder of the temporary directory; call ``clean`` at the end."""

    def __init__(self, data_dir: Path, *, port: int, start_timeout: float) -> None:
        self._sockets = Path(tempfile.mkdtemp(prefix="feedmill-pg-"))
        super().__init__(
            data_dir,
            port=port,
            options={
                "listen_addresses": "*",
                "hba_file": str(data_dir / "pg_hba.conf"),
                "password_encryption": "scram-sha-256",
                # /dev/shm of a container holds 64 MiB: a large parallel query would fail there.
                "dynamic_shared_memory_type": "mmap",
            },
            start_timeout=start_timeout,
        )

    @property
    def socket_dir(self) -> Path:
        return self._sockets

    def _open_log(self) -> IO[bytes]:
        return own_output()

    def _prepare(self) -> None:
        self._check_major()
        files.write_private(self.data_dir / "pg_hba.conf", _ACCESS)
        super()._prepare()
        # A volume with an fsGroup is made writable by the group at each mount, and PostgreSQL refuses such a folder.
        self.cluster.chmod(0o700)
        if self._privilege() is Privilege.SETUID:
            for path in (self._sockets, self.data_dir / "pg_hba.conf"):
                setuid.give(path)

    def _check_major(self) -> None:
        """Raises ManagedError."""
        try:
            made = (self.cluster / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return
        major = str(binaries.major_version(binaries.version_text(binaries.postgres_bin() / "postgres")))
        if made != major:
            raise ManagedError(
                f"{self.cluster} was made by PostgreSQL {made}, this image has PostgreSQL {major}: go back to the "
                "image that made it, write the data out with its pg_dump, and read it with pg_restore into a new volume"
            )

    def use(self, passwords: Passwords) -> None:
        """The role has the current password from now on; who is connected stays. Raises OSError when it cannot be
        told."""
        try:
            asyncio.run(self._alter(passwords.current))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            raise OSError(f"PostgreSQL did not take its password: {error}") from error
        self._password = passwords.current

    async def _alter(self, password: str) -> None:
        async with asyncio.timeout(_TIMEOUT):
            connection = await asyncpg.connect(
                host=str(self._sockets), port=self.port, user=USER, database=DATABASE, timeout=_TIMEOUT, ssl=False
            )
            try:
                # A failing statement would be logged with the password in it.
                await connection.execute("SET log_min_error_statement = 'panic'")
                literal = await connection.fetchval("SELECT quote_literal($1::text)", password)
                await connection.execute(f'ALTER ROLE "{USER}" PASSWORD {literal}')
            finally:
                await connection.close(timeout=_TIMEOUT)

    def clean(self) -> None:
        """Remove the folder of the socket."""
        shutil.rmtree(self._sockets, ignore_errors=True)
