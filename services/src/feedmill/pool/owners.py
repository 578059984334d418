"""Whose streams are those of an account's name: they are keyed by the name, and a name that was freed may be another's.

What the former account's distributor knew (orders, largest ids) would hide what is the new one's, so streams that are
another account's are emptied before anything is done with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from feedmill.pool.asker import Asker
from feedmill.pool.sql import Session
from feedmill.shared.clock import now_ns
from feedmill.shared.keys import account_ref
from feedmill.shared.redis.wire import Script, Wire

_TAKE = Script("""#!lua flags=allow-oom
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  if ARGV[2] == '0' then return 0 end
  redis.call('UNLINK', unpack(KEYS, 2))
end
if owner ~= ARGV[1] then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
""")
"""KEYS owner, then all others of the account. ARGV: id of the account, whether to empty what is another's."""


_CLOSE = """UPDATE gaps SET state = 'closed', to_ns = coalesce(to_ns, $2), revision = revision + 1
WHERE shard = ANY($1::text[]) AND channel = 'Account' AND state = 'open'"""


class Owners:
    def __init__(self, asker: Asker, session: Session) -> None:
        self._asker = asker
        self._session = session

    async def take(self, accounts: dict[str, int]) -> None:
        """Make the streams those of these accounts (name -> id). Raises one of asker.AWAY or postgres.RETRYABLE."""
        others = [name for name, taken in (await self._run(accounts, empty=False)).items() if not taken]
        if not others:
            return
        shards = [str(account_ref(name)) for name in others]
        async with self._session.use() as connection, connection.transaction():
            # Before the streams are emptied: a position without a stream would be told as a loss.
            await connection.execute("DELETE FROM applied WHERE shard = ANY($1::text[])", shards)
            await connection.execute(_CLOSE, shards, now_ns())
        await self._run({name: accounts[name] for name in others}, empty=True)

    async def end(self, accounts: Iterable[str]) -> None:
        """These were removed, and all that was heard of them is stored: what was missed is wanted no longer.

        Raises one of postgres.RETRYABLE.
        """
        async with self._session.use() as connection:
            await connection.execute(_CLOSE, [str(account_ref(name)) for name in accounts], now_ns())

    async def _run(self, accounts: dict[str, int], *, empty: bool) -> dict[str, bool]:
        async def run(wire: Wire) -> list[Any]:
            return await asyncio.gather(
                *(wire.run(_TAKE, _keys(name), number, int(empty)) for name, number in accounts.items())
            )

        return dict(zip(accounts, map(bool, await self._asker.ask(run)), strict=True))


def _keys(name: str) -> list[str]:
    ref = account_ref(name)
    return [
        ref.owner, ref.raw, ref.sessions, ref.events, ref.applied, ref.checkpoint, ref.images, ref.commands,
    ]  # fmt: skip
