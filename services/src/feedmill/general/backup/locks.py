"""Advisory locks of those who work alone on a database."""

from __future__ import annotations

import asyncio

import asyncpg

from feedmill.shared.clock import monotonic

BACKUP = 0x6665_6564_6261_636B
"""Of whoever makes a logical backup."""
RESTORE = 0x6665_6564_7265_7374
"""Of whoever restores."""
MIGRATING = 0x6665_6564_6D69_6C6C
"""Of migrations (migrations/env.py)."""
PATIENCE = 5.0
"""Seconds: the server may notice a little late that a process was killed."""


async def take(connection: asyncpg.Connection, lock: int, patience: float = PATIENCE) -> bool:
    """Take a lock for the session's life; False when another has it. Raises asyncpg errors."""
    until = monotonic() + patience
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", lock):
        if monotonic() > until:
            return False
        await asyncio.sleep(0.1)
    return True
