"""A dump into a database, in one transaction of pg_restore: all of it, or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable
from pathlib import Path

from feedmill.general.backup.content import Content
from feedmill.general.backup.programs import Running, program, reach, require_major


async def load(content: Content, database_url: str, server_major: int) -> None:
    """Restore into a database that has none of the tables.

    Raises ProgramError, and what reading the content raises; in both cases nothing was restored.
    """
    path = program("pg_restore")
    require_major(path, server_major)
    command: list[str | Path] = [
        path, "--dbname=", f"--schema={content.schema}", "--single-transaction", "--exit-on-error", "--no-owner",
        "--no-privileges", "--no-tablespaces", "--no-password",
    ]  # fmt: skip
    async with reach(database_url) as environment:
        running = await Running.start(command, environment | {"PGAPPNAME": "feedmill restore"}, reads=True)
        try:
            async with contextlib.aclosing(content.read()) as pieces:
                await _feed(running, pieces)
            running.stdin.close()
            await running.succeed()
        finally:
            await running.stop()


async def _feed(running: Running, pieces: AsyncIterable[bytes]) -> None:
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
