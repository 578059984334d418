"""A dump into a database, in one transaction: all of it, or nothing.

pg_restore does that by itself. From 17 on it sets a parameter that servers before 17 do not know, and gives up there:
into those its script goes by psql, without that line, and what ends the transaction is written by us.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Mapping, Sequence
from pathlib import Path

from feedmill.general.backup.content import Content
from feedmill.general.backup.programs import Running, major_of, program, reach

_PIECE = 1 << 18
_SINCE = 17
"""The major version that has transaction_timeout."""
_UNKNOWN = b"\nSET transaction_timeout = 0;\n"
_BEGINNING = 1 << 14
"""Bytes of a script within which its settings are, long before any row."""


async def load(content: Content, database_url: str, server_major: int) -> None:
    """Restore into a database that has none of the tables.

    Raises ProgramError, and what reading the content raises; in both cases nothing was restored.
    """
    path = program("pg_restore")
    chosen = [f"--schema={content.schema}", "--exit-on-error", "--no-owner", "--no-privileges", "--no-tablespaces"]
    own = await asyncio.to_thread(major_of, path)
    async with reach(database_url) as environment:
        told = environment | {"PGAPPNAME": "feedmill restore"}
        if server_major < _SINCE <= own:
            await _by_script(content, [path, "--file=-", *chosen], told)
        else:
            await _directly(content, [path, "--dbname=", "--single-transaction", "--no-password", *chosen], told)


async def _directly(content: Content, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    running = await Running.start(command, environment, reads=True)
    try:
        await _feed(running, content)
        await running.succeed()
    finally:
        await running.stop()


async def _by_script(content: Content, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    loading: list[str | Path] = [program("psql"), "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]
    psql = await Running.start(loading, environment, reads=True)
    try:
        restoring = await Running.start(command, environment, reads=True, writes=True)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_feed(restoring, content), name="feed pg_restore")
                both.create_task(_pass_on(restoring, psql), name="feed psql")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await restoring.stop()
        await _write(psql, b"COMMIT;\n")
        psql.stdin.close()
        await psql.succeed()
    finally:
        await psql.stop()


async def _pass_on(restoring: Running, psql: Running) -> None:
    """The whole script, within a transaction that nothing here ends. Raises ProgramError where either failed."""
    await _write(psql, b"BEGIN;\n")
    beginning = bytearray()
    while len(beginning) < _BEGINNING and (piece := await restoring.stdout.read(_PIECE)):
        beginning += piece
    piece = known_settings(bytes(beginning))
    while piece:
        if not await _write(psql, piece):
            raise psql.failure(await psql.end())
        piece = await restoring.stdout.read(_PIECE)
    await restoring.succeed()


def known_settings(beginning: bytes) -> bytes:
    """The beginning of a script, without the setting that an older server does not know."""
    return beginning.replace(_UNKNOWN, b"\n", 1)


async def _feed(running: Running, content: Content) -> None:
    """All of it, then the end of its input."""
    async with contextlib.aclosing(content.read()) as pieces:
        await _hold_back(running, pieces)
    running.stdin.close()


async def _hold_back(running: Running, pieces: AsyncIterable[bytes]) -> None:
    """The last piece is held back until the whole is proven: pg_restore commits as soon as it has read the last byte
    of the last table, which is in it."""
    held = b""
    async for piece in pieces:
        if held and not await _write(running, held):
            return
        held = piece
    await _write(running, held)


async def _write(running: Running, piece: bytes) -> bool:
    """False when the program has ended early: why, it says itself."""
    if running.stdin.is_closing():
        return False
    running.stdin.write(piece)
    try:
        await running.stdin.drain()
    except ConnectionError:
        return False
    return True
