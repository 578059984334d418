"""Brings the schema up to date in a process of its own, so that its libraries do not stay in our memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from feedmill.local.errors import ManagerError

TIMEOUT = 120.0


async def migrate(environment: Mapping[str, str], log_file: Path) -> None:
    """Run ``feedmill migrate`` with ``environment`` (DATABASE_URL in it); raises ManagerError with its last line."""
    command = [sys.executable, "-m", "feedmill.cli.main", "migrate"]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            output, _ = await process.communicate()
    except TimeoutError:
        raise ManagerError(
            f"the schema migration did not end within {TIMEOUT:g} s: does another session of the database hold a lock?"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    await asyncio.to_thread(log_file.write_bytes, output)
    if process.returncode != 0:
        lines = output.decode("utf-8", "replace").strip().splitlines() or ["(it wrote nothing)"]
        raise ManagerError(f"the schema could not be brought up to date: {lines[-1]} (see {log_file})")
