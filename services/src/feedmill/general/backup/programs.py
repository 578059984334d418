"""PostgreSQL's own programs (pg_dump, pg_restore, ...): where they are, how they reach a database, how they fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from feedmill.general.backup.tunnel import tunnel, wanted
from feedmill.local.embedded.binaries import major_version, postgres_bin, version_text
from feedmill.local.embedded.errors import EmbeddedError
from feedmill.local.embedded.launch import launch_command
from feedmill.shared.libpq import libpq

_OPTIONS = "-c timezone=UTC -c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
_KEPT_LINES = 20
DISK_FULL = ("No space left", "could not extend file")
"""In what PostgreSQL says."""
_PATIENCE = 10.0
"""Seconds a program has to end after SIGTERM."""


class ProgramError(Exception):
    """A program is not there, is too old, or failed; the message says what it said, and the remedy."""


class ProgramUnfit(ProgramError):
    """What this machine lacks for it: the program, a newer one, or room on the disk. Says nothing about a backup."""


def program(name: str) -> Path:
    """Where ``name`` is: in PG_BIN, in the wheels, on PATH. Raises ProgramUnfit."""
    chosen = os.environ.get("PG_BIN")
    if chosen and os.access(found := Path(chosen).expanduser() / name, os.X_OK):
        return found.resolve()
    with contextlib.suppress(EmbeddedError):
        if os.access(found := postgres_bin() / name, os.X_OK):
            return found
    on_path = shutil.which(name)
    if on_path:
        return Path(on_path).resolve()
    raise ProgramUnfit(
        f"PostgreSQL's program {name} is not to be found: install it with `pip install 'feedmill[local]'`, or set "
        "PG_BIN to the bin folder of a PostgreSQL"
    )


def major_of(path: Path) -> int:
    """The major version of a program. Blocks while it is asked the first time. Raises ProgramUnfit."""
    try:
        return major_version(version_text(path))
    except EmbeddedError as error:
        raise ProgramUnfit(str(error)) from error


def require_major(path: Path, server: int) -> None:
    """Raises ProgramUnfit where the program is older than the server (major version), which it would refuse. Blocks."""
    own = major_of(path)
    if own < server:
        raise ProgramUnfit(
            f"the server is PostgreSQL {server}, {path} is of {own} and reads nothing newer: set PG_BIN to the bin "
            f"folder of a PostgreSQL {server}"
        )


@contextlib.asynccontextmanager
async def reach(url: str) -> AsyncGenerator[dict[str, str], None]:
    """The environment by which a program reaches the database of ``url``, with TLS where the URL wants it.

    Holds a secret. Raises ProgramError when the URL's certificates cannot be used.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    kept |= {
        "LC_ALL": "C",
        "PGOPTIONS": "-c timezone=UTC -c statement_timeout=0 -c idle_in_transaction_session_timeout=0",
    }
    variables = libpq(url)
    if not wanted(variables):
        yield kept | variables
        return
    try:
        async with tunnel(variables) as through:
            yield kept | through
    except OSError as error:
        raise ProgramError(f"the database URL's certificates cannot be used: {error}") from error


class Running:
    """A program under way. It ends with this process, whatever becomes of that."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._said: list[str] = []
        self._listening = asyncio.create_task(self._listen(), name=f"what {name} says")

    @classmethod
    async def start(
        cls, command: Sequence[str | Path], environment: Mapping[str, str], *, reads: bool = False, writes: bool = False
    ) -> Running:
        """Start it. ``reads``: its standard input is :attr:`stdin`; ``writes``: its output is :attr:`stdout`."""
        words = [str(word) for word in command]
        process = await asyncio.create_subprocess_exec(
            *launch_command(words, signal_number=signal.SIGTERM),
            stdin=asyncio.subprocess.PIPE if reads else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if writes else asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
            limit=1 << 18,
        )
        return cls(Path(words[0]).name, process)

    @property
    def stdin(self) -> asyncio.StreamWriter:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader:
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        """What it wrote to its standard error; after :meth:`end` all of it, up to a bound."""
        return "\n".join(self._said)

    async def _listen(self) -> None:
        """The first lines say what was wrong; what follows from it does not."""
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            if len(self._said) < _KEPT_LINES:
                self._said.append(line.decode("utf-8", "replace").strip()[:500])

    async def end(self) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        code = await self._process.wait()
        await self._listening
        return code

    async def succeed(self) -> None:
        """Wait for its end. Raises ProgramError unless that was a success."""
        code = await self.end()
        if code != 0:
            raise self.failure(code)

    def failure(self, code: int) -> ProgramError:
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        said = next((line for line in self._said if re.search(r"error|fatal", line, re.IGNORECASE)), None)
        said = said or (self._said[-1] if self._said else "it said nothing")
        kind = ProgramUnfit if any(full in self.said for full in DISK_FULL) else ProgramError
        return kind(f"{self.name} failed ({how}): {said}{_remedy(self.name, ' '.join(self._said))}")

    async def stop(self) -> None:
        """End it if it still runs."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)


def _remedy(name: str, said: str) -> str:
    if "max_locks_per_transaction" in said:
        return " (every partition takes locks: raise max_locks_per_transaction of the server, such as to 1024)"
    if any(full in said for full in DISK_FULL):
        if name == "pg_receivewal":
            return " (the disk of the spool is full: make room, or make spec.backup.continuous.spool.size smaller)"
        return " (the disk of the server is full: make room)"
    if "unsupported version" in said:
        return " (a newer pg_dump made it: set PG_BIN to the bin folder of a PostgreSQL as new as that one)"
    if "permission denied" in said:
        return " (the user of the database URL must own the tables, or the schema that they are restored into)"
    return ""
