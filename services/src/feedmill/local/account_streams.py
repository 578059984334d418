"""Whether all that was heard of accounts is stored, once nobody works on it any more: by Redis and PostgreSQL."""

from __future__ import annotations

import asyncio

from feedmill.local.positions import Positions, PositionsAway
from feedmill.shared import postgres
from feedmill.shared.clock import monotonic
from feedmill.shared.keys import ShardRef, account_ref
from feedmill.shared.redis.pool import RedisPool

TIMEOUT, AGAIN = 5.0, 0.25
"""Seconds for an answer, and for all tries; and between two of them."""
AT_ONCE = 100
"""Accounts asked for in one go."""
SHOWN = 5
_STORED = """
SELECT n.account, coalesce(p.stream_id, '') AS stored
FROM (SELECT DISTINCT namespace || '/' || name AS account, namespace || '.@' || name || '.0' AS shard FROM accounts) n
LEFT JOIN applied p ON p.shard = n.shard
ORDER BY n.account"""


async def left_of_accounts(redis: RedisPool, database_url: str) -> list[str]:
    """For people: what is not stored yet; empty when all is. A server that is late with one answer is asked again."""
    until = monotonic() + TIMEOUT
    while True:
        try:
            return _told(await _left(redis, await _stored(database_url)))
        except PositionsAway as error:
            why = str(error)
        except Exception as error:
            if not postgres.is_retryable(error):
                raise
            why = postgres.describe(error)
        if monotonic() > until:
            return [_unknown(why)]
        await asyncio.sleep(AGAIN)


def _told(left: list[str]) -> list[str]:
    if not left:
        return []
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    names = ", ".join(left[:SHOWN])
    return [f"account events of {names}{more} stay in Redis: they are stored at the next start"]


def _unknown(why: str) -> str:
    return f"whether all account events are stored is not known ({why}): those left are stored at the next start"


async def _stored(database_url: str) -> dict[ShardRef, tuple[str, str]]:
    """Streams of an account -> its name, and the entry of its events up to which they are stored."""
    connection = await postgres.connect(
        database_url, name="feedmill-accounts-left", timeout=TIMEOUT, command_timeout=TIMEOUT
    )
    try:
        rows = await connection.fetch(_STORED)
    finally:
        await postgres.close(connection)
    return {account_ref(row["account"]): (row["account"], row["stored"]) for row in rows}


async def _left(redis: RedisPool, stored: dict[ShardRef, tuple[str, str]]) -> list[str]:
    shards = list(stored)
    left: list[str] = []
    for at in range(0, len(shards), AT_ONCE):
        for found in await Positions(redis, shards[at : at + AT_ONCE]).read():
            name, position = stored[found.shard]
            if not found.raw_drained or found.emitted not in ("", position):
                left.append(name)
    return left
