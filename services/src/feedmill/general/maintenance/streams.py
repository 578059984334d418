"""Removes the streams of feeds and accounts that are gone, drained and old.

Redis first, then the shard's position in PostgreSQL, then the feed's place on the list: a run that is cut off leaves
nothing that the next one does not find. Each removal is one script that looks again at what was judged, so a feed that
comes back meanwhile keeps its streams.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from feedmill.general.maintenance.orphans import Listed, Streams, field_of, gone, read_list
from feedmill.general.maintenance.report import Report
from feedmill.general.maintenance.settings import Settings
from feedmill.resources.collection import Key
from feedmill.shared.keys import ShardRef, account_ref, feeds_key
from feedmill.shared.redis.wire import Script, Wire
from feedmill.shared.selection.record import lease_key, record_key

AT_ONCE = 200
"""Keys or shards asked for in one round trip."""

_STATE = """
local function last(key)
  if redis.call('EXISTS', key) == 0 then return '' end
  local info = redis.call('XINFO', 'STREAM', key)
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then return info[at + 1] ~= '0-0' and info[at + 1] or '' end
  end
  return ''
end
local state = {
  last(KEYS[1]), redis.call('HGET', KEYS[2], 'pos') or '', last(KEYS[3]), redis.call('HGET', KEYS[2], 'id') or '',
  redis.call('GET', KEYS[4]) or '', tostring(redis.call('EXISTS', KEYS[5], KEYS[6]))
}
"""
_LOOK = Script(
    f"""#!lua flags=no-writes
{_STATE}
return {{state[1], state[2], state[3], state[4], state[5], state[6], redis.call('XLEN', KEYS[1]),
  redis.call('XLEN', KEYS[3])}}
"""
)
"""KEYS raw, checkpoint, events, owner, two leases -> their state, and the entries of both streams."""
_REMOVE = Script(
    f"""#!lua flags=allow-oom
{_STATE}
for at = 1, 6 do
  if state[at] ~= ARGV[at] then return 0 end
end
for at = 7, #KEYS do redis.call('UNLINK', KEYS[at]) end
return 1
"""
)
"""KEYS as above, then those to remove; ARGV the state that was judged -> 1, or 0: another one, nothing was done."""

_FORGOTTEN = """
INSERT INTO gaps (id, shard, channel, cause, state, from_ns, to_ns, revision, detected_ns)
VALUES ($1, $2, 'events', 'forgotten', 'closed', $3, $4, 1, $5) ON CONFLICT DO NOTHING
"""
_GONE_ACCOUNTS = """
SELECT namespace || '/' || name AS account FROM accounts GROUP BY namespace, name
HAVING bool_and(removed_at IS NOT NULL AND removed_at < to_timestamp($1::bigint / 1e9)) ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class _Owner:
    """A feed or an account, and its shards."""

    name: str
    """For people and commands."""
    refs: tuple[ShardRef, ...]
    feed: Key | None = None


@dataclass(frozen=True, slots=True)
class _Judged:
    """The shards of one owner, none of which has an objection."""

    owner: _Owner
    streams: tuple[Streams, ...]


class Cleaner:
    """One run. ``now``: ns since the epoch, UTC."""

    def __init__(
        self, wire: Wire, connection: asyncpg.Connection, settings: Settings, now: int, report: Report
    ) -> None:
        self._wire = wire
        self._connection = connection
        self._settings = settings
        self._now = now
        self._report = report
        self._list = feeds_key(settings.pipeline)

    async def run(self) -> None:
        """Bring the list up to date, and remove what may go. Raises asyncpg errors, OSError, WireError."""
        listed = await self._listed(self._list)
        if not self._report.dry_run:
            await self._write_list()
        due = gone(listed, self._settings.feeds, self._now, self._settings.gone_for_ns)
        moved = await self._moved({key: listed[key] for key in due}) if due else set()
        if moved and not self._report.dry_run:
            await self._wire.call("HDEL", self._list, *map(field_of, moved))
        owners = [
            _Owner("/".join(key), tuple(ShardRef(*key, number) for number in range(listed[key].shards)), key)
            for key in due
            if key not in moved
        ]
        judged = [await self._judge(owner) for owner in (*owners, *await self._accounts())]
        await self._remove([each for each in judged if each is not None])

    async def forget(self, feed: Key) -> None:
        """Remove the streams of a feed that is in no manifest, whatever is in them, unless a process works on it. What
        was not stored is told by gap rows.

        Raises as :meth:`run`.
        """
        listed = (await self._listed(self._list)).get(feed)
        known = {ShardRef(*feed, number) for number in range(listed.shards if listed is not None else 0)}
        found = {ref async for key in self._scan(f"fm:{{{field_of(feed)}.*}}:*") if (ref := _ref_of(key)) is not None}
        owner = _Owner("/".join(feed), tuple(sorted(known | found)), feed)
        judged = await self._judge(owner, whatever=True)
        await self._remove([judged] if judged is not None else [])

    # who is gone
    async def _listed(self, key: str | bytes) -> dict[Key, Listed]:
        answer = await self._wire.call("HGETALL", key)
        return read_list(dict(zip(answer[::2], answer[1::2], strict=True)))

    async def _write_list(self) -> None:
        feeds = [(field_of(key), str(Listed(shards, self._now))) for key, shards in self._settings.feeds.items()]
        for at in range(0, len(feeds), AT_ONCE):
            await self._wire.call("HSET", self._list, *(word for pair in feeds[at : at + AT_ONCE] for word in pair))

    async def _moved(self, due: Mapping[Key, Listed]) -> set[Key]:
        """Those that a manifest of another pipeline held later."""
        moved: set[Key] = set()
        async for other in self._scan(feeds_key(("*",))):
            if other.decode() != self._list:
                theirs = await self._listed(other)
                moved |= {key for key, item in due.items() if key in theirs and theirs[key].seen_ns > item.seen_ns}
        return moved

    async def _accounts(self) -> list[_Owner]:
        """Removed accounts of which Redis has something."""
        rows = await self._connection.fetch(_GONE_ACCOUNTS, self._now - self._settings.gone_for_ns)
        refs = {str(row["account"]): account_ref(row["account"]) for row in rows}
        names = list(refs)
        there: list[str] = []
        for at in range(0, len(names), AT_ONCE):
            asked = names[at : at + AT_ONCE]
            answers = [self._wire.send("EXISTS", *_keys(refs[name])) for name in asked]
            there += [name for name, answer in zip(asked, answers, strict=True) if await answer]
        return [_Owner(f"account {name}", (refs[name],)) for name in there]

    # may they go
    async def _judge(self, owner: _Owner, *, whatever: bool = False) -> _Judged | None:
        """None when they stay. ``whatever``: also what is young or was not stored."""
        looked = [await self._look(ref) for ref in owner.refs]
        for streams in looked:
            if whatever:
                why = "a process works on it: stop it first" if streams.held else ""
            elif streams.in_use(self._now, self._settings.gone_for_ns):
                return None
            else:
                why = streams.left
            if why:
                self._report.kept[owner.name] = why
                return None
        return _Judged(owner, tuple(looked))

    async def _look(self, ref: ShardRef) -> Streams:
        row = await self._connection.fetchrow("SELECT stream_id, commit_id FROM applied WHERE shard = $1", str(ref))
        answer: list[Any] = await self._wire.run(_LOOK, _keys(ref))
        captured, dispatched, emitted, commit, owner, held = (each.decode() for each in answer[:6])
        return Streams(
            ref, captured, dispatched, emitted, row["stream_id"] if row else "", commit,
            row["commit_id"] if row else "", owner, answer[6], answer[7], held != "0",
        )  # fmt: skip

    # removing
    async def _remove(self, judged: Sequence[_Judged]) -> None:
        if not judged:
            return
        keys: dict[ShardRef, list[bytes]] = {ref: [] for each in judged for ref in each.owner.refs}
        async for key in self._scan("fm:{*}:*"):
            if (ref := _ref_of(key)) in keys:
                keys[ref].append(key)
        for each in judged:
            await self._remove_owner(each, keys)

    async def _remove_owner(self, judged: _Judged, keys: Mapping[ShardRef, Sequence[bytes]]) -> None:
        name, size = judged.owner.name, 0
        for streams in judged.streams:
            found = keys[streams.shard]
            size += await self._bytes(found)
            if self._report.dry_run:
                continue
            if streams.left:
                # Before it is gone: what was captured and never stored is told, whoever gave it up.
                await self._tell(streams)
            if found and not await self._wire.run(
                _REMOVE, [*_keys(streams.shard), *(key.decode() for key in found)], *streams.state
            ):
                self._report.kept[name] = "somebody began to work on it meanwhile"
                return
            await self._connection.execute(
                "DELETE FROM applied WHERE shard = $1 AND commit_id = $2", str(streams.shard), streams.stored_commit
            )
        self._report.removed[name] = size
        feed = judged.owner.feed
        if feed is not None and not self._report.dry_run:
            if not await self._wire.call("EXISTS", lease_key(feed)):
                await self._wire.call("UNLINK", record_key(feed))
            await self._wire.call("HDEL", self._list, field_of(feed))

    async def _tell(self, streams: Streams) -> None:
        from_ns, to_ns = streams.lost_ns
        name = f"{streams.shard}/events/{streams.captured or streams.emitted}"
        await self._connection.execute(_FORGOTTEN, name, str(streams.shard), from_ns, to_ns, self._now)

    async def _bytes(self, keys: Sequence[bytes]) -> int:
        """Of memory."""
        total = 0
        for at in range(0, len(keys), AT_ONCE):
            for answer in [self._wire.send("MEMORY", "USAGE", key) for key in keys[at : at + AT_ONCE]]:
                total += await answer or 0
        return total

    async def _scan(self, pattern: str) -> AsyncIterator[bytes]:
        cursor, seen = b"0", set[bytes]()
        while True:
            cursor, keys = await self._wire.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            for key in keys:
                if key not in seen:
                    seen.add(key)
                    yield key
            if cursor == b"0":
                return


def _keys(ref: ShardRef) -> list[str]:
    return [ref.raw, ref.checkpoint, ref.events, ref.owner, ref.lease("distributor"), ref.lease("processor")]


def _ref_of(key: bytes) -> ShardRef | None:
    """Whose key it is."""
    try:
        return ShardRef.parse(key.decode(errors="replace").partition("{")[2].partition("}")[0])
    except ValueError:
        return None
