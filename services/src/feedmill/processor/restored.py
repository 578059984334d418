"""The gap rows that a database restored from a backup begins with: from the last thing stored to the first that comes.

They are written before any processor starts, as those of commits that Redis lost (see ``losses``), with the cause
``restore``. Each instrument's row gets its extent with the instrument's first event, and what it names is asked for
(see ``repair``). The shard's row waits for the first commit: where that follows what is stored, as it does when Redis
still had everything, nothing was missing and the rows go away.

Rows that were open when the backup was made are taken over: whoever told them may have closed them since, in commits
that are gone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import asyncpg

from feedmill.processor import losses_sql as sql
from feedmill.processor.losses import MARGIN_NS, gap_id
from feedmill.processor.settings import ShardSettings
from feedmill.processor.statements import RESTORED
from feedmill.processor.store import Store
from feedmill.shared.clock import MS
from feedmill.shared.redis.ids import id_of

CAUSE = "restore"

_SHARD = f"""
INSERT INTO gaps (id, shard, instrument_id, channel, cause, state, from_seq, to_seq, from_ns, to_ns, revision,
                  detected_ns)
VALUES ($1, $2, NULL, 'events', '{CAUSE}', $3, $4::bigint, NULL, $5::bigint, $6::bigint, $7::int, $8::bigint)
ON CONFLICT DO NOTHING
"""  # noqa: S608
_FORMER = f"DELETE FROM gaps WHERE shard = $1 AND channel = 'events' AND cause = '{CAUSE}' AND state = 'open'"  # noqa: S608
"""Of a restore after which no commit came before the backup was made: the new row says the same."""
_TAKE_OVER = """
UPDATE gaps SET revision = greatest(revision + 1, $2::int)
WHERE shard = $1 AND state = 'open' AND instrument_id IS NOT NULL AND from_seq IS NOT NULL
"""
_END_UNSEEN = """
UPDATE gaps SET state = 'closed', to_ns = $3::bigint, revision = greatest(revision + 1, $2::int)
WHERE shard = $1 AND state = 'open' AND instrument_id IS NOT NULL AND from_seq IS NULL
"""
"""Of a topic that never had an event: it has an end now, as who knew of it may have gone."""


async def open_rows(
    connection: asyncpg.Connection,
    shard: ShardSettings,
    retention_ns: Mapping[str, int],
    restore: str,
    content_ns: int,
    now_ns: int,
) -> int:
    """Write the rows of one shard, within the caller's transaction; answers how many there are.

    ``restore``: its id, part of the shard's row's name. ``content_ns``: the moment the database is of. Raises asyncpg
    errors.
    """
    store = Store(connection, shard, dict(retention_ns), lambda: now_ns)
    position = await store.load_position()
    name = str(shard.ref)
    row = f"{name}/{CAUSE}/{restore}"
    if not position.n:
        # Nothing is stored of it: what it brings next begins it, and the time before has its end.
        await connection.execute(_SHARD, row, name, "closed", None, content_ns, now_ns, RESTORED, now_ns)
        return 1
    await store.load_ids()
    await connection.execute(_FORMER, name)
    begin = max(1, id_of(position.stream_id)[0] * MS - MARGIN_NS)
    await connection.execute(_SHARD, row, name, "open", position.n + 1, begin, None, RESTORED, now_ns)
    await connection.execute(_TAKE_OVER, name, RESTORED)
    await connection.execute(_END_UNSEEN, name, RESTORED, content_ns)
    ids = await store.live_ids()
    found = await store.losses.ends(position.stream_id, ids)
    if not found:
        return 1
    symbols, channels, begins, missing, times = (list(column) for column in zip(*found, strict=True))
    keys = [gap_id(shard.ref, symbol, channel, number) for symbol, channel, number, _, _ in found]
    numbers = [ids[symbol] for symbol in symbols]
    await connection.execute(sql.OPEN, name, keys, numbers, channels, begins, missing, times, now_ns, RESTORED, CAUSE)
    return 1 + len(found)


async def close_others(connection: asyncpg.Connection, known: Collection[str], restore: str, now_ns: int) -> list[str]:
    """Shards that the database knows and the manifests do not: the time since their last commit is told, and nobody
    goes on with them. Answers which. Raises asyncpg errors."""
    found: list[str] = []
    for row in await connection.fetch("SELECT shard, n, stream_id FROM applied WHERE n > 0 ORDER BY 1"):
        name = row["shard"]
        if name in known or ".@" in name:  # An account's is told by its own.
            continue
        begin = max(1, id_of(row["stream_id"])[0] * MS - MARGIN_NS)
        await connection.execute(
            _SHARD,
            f"{name}/{CAUSE}/{restore}",
            name,
            "closed",
            row["n"] + 1,
            begin,
            max(begin, now_ns),
            RESTORED,
            now_ns,
        )
        found.append(name)
    return found
