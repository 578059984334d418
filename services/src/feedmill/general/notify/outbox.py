"""The outbox in PostgreSQL: what is to be told is a row from the moment it is known until it was sent.

One session, held by one notifier of the pipeline at a time. Its statements go one after the other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import asyncpg
import msgspec

from feedmill.general.notify import outbox_sql as sql
from feedmill.general.notify.notices import KEPT, Notice, Waiting
from feedmill.general.notify.of_tables import KEY_DAYS, OpenGaps, Tables
from feedmill.general.notify.settings import NotifySettings
from feedmill.general.notify.states import State, States
from feedmill.resources.types import Severity
from feedmill.shared import postgres
from feedmill.shared.clock import monotonic, now_ns

AT_ONCE = 500
"""Rows read at once."""
STATEMENT = 15.0
"""Seconds for one."""
T = TypeVar("T")


class OutboxAway(ConnectionError):
    """PostgreSQL cannot be reached, or another notifier has the outbox. The text is for people."""


class Outbox:
    """``close`` it. Raises OutboxAway from all that asks PostgreSQL."""

    def __init__(self, database_url: postgres.Url, pipeline: str) -> None:
        self._url = database_url
        self._pipeline = pipeline
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self.error = "not tried yet"
        """Why it cannot be reached; empty while it can."""
        self.away_since: float | None = monotonic()
        self.held_elsewhere = False
        """Another notifier of this pipeline works."""

    async def _ask(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        async with self._turn:
            try:
                connection = self._connection
                if connection is None or connection.is_closed():
                    connection = self._connection = await self._connect()
                answer = await work(connection)
            except (*postgres.RETRYABLE, postgres.SchemaBehind) as error:
                await self._lose(postgres.describe(error) if not isinstance(error, OutboxAway) else str(error))
                raise OutboxAway(self.error) from error
            except BaseException:
                await self._lose("interrupted")  # What the session is in the middle of is not known.
                raise
            self.error, self.away_since = "", None
            return answer

    async def _connect(self) -> asyncpg.Connection:
        connection = await postgres.connect(self._url, name="feedmill notify", command_timeout=STATEMENT)
        try:
            await postgres.require_schema(connection)
            self.held_elsewhere = not await connection.fetchval(sql.LOCK, sql.LOCK_CLASS, self._pipeline)
            if self.held_elsewhere:
                raise OutboxAway("another notifier of this pipeline is at work")
        except BaseException:
            await postgres.close(connection)
            raise
        return connection

    async def _lose(self, why: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        if self.away_since is None:
            self.away_since = monotonic()
        self.error = why

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        await postgres.close(connection)

    # -- what is to be told

    async def register(self, settings: NotifySettings) -> None:
        """From now on triggers put in what the settings want. To be said again at least once a day."""
        wants, feeds = json.dumps(sorted(settings.kinds)), json.dumps(list(settings.feeds))
        await self._ask(lambda c: c.execute(sql.REGISTER, self._pipeline, wants, feeds, now_ns()))

    async def states(self) -> States:
        """As :meth:`tell` last kept them."""
        text = await self._ask(lambda c: c.fetchval(sql.STATE, f"{self._pipeline}/conditions"))
        try:
            return msgspec.json.decode(text, type=dict[str, State]) if text else {}
        except msgspec.DecodeError:
            return {}  # Another version's: what is so is found again.

    async def tell(self, notices: Sequence[tuple[Notice, int]], states: Mapping[str, State]) -> None:
        """Put these in (with the time each was sent already, ns, or 0) and keep the states, both or neither.

        The same ones may be put in again, as after a commit whose answer was lost: what is there stays as it is.
        """
        columns: list[list[Any]] = [[] for _ in range(7)]
        for notice, sent_ns in notices:
            values = (notice.at_ns, notice.severity.value, notice.kind, notice.subject, notice.key,
                      json.dumps(dict(notice.body)), sent_ns)  # fmt: skip
            for column, value in zip(columns, values, strict=True):
                column.append(value)
        kept = msgspec.json.encode(dict(states)).decode()

        async def work(connection: asyncpg.Connection) -> None:
            async with connection.transaction():
                if notices:
                    await connection.execute(sql.TELL, self._pipeline, *columns)
                await connection.execute(sql.SAVE, f"{self._pipeline}/conditions", kept, now_ns())

        await self._ask(work)

    # -- sending

    async def waiting(self, now: int) -> list[Waiting]:
        """What may be sent at ``now`` (ns), in order; no more than AT_ONCE."""
        rows = await self._ask(lambda c: c.fetch(sql.WAITING, self._pipeline, now, AT_ONCE))
        return [
            Waiting(
                row["id"],
                Notice(row["kind"], _severity(row["severity"]), row["subject"], row["key"], _body(row["body"]),
                       row["at_ns"]),
                row["not_before_ns"],
                row["attempts"],
            )
            for row in rows
        ]  # fmt: skip

    async def count(self) -> tuple[int, int]:
        """(rows that wait, when the oldest happened: ns, 0 = none)."""
        row = await self._ask(lambda c: c.fetchrow(sql.COUNT, self._pipeline))
        assert row is not None
        return row["waiting"], row["oldest_ns"]

    async def sent(self, ids: Sequence[int], at_ns: int) -> None:
        await self._ask(lambda c: c.execute(sql.SENT, list(ids), at_ns))

    async def postpone(self, ids: Sequence[int], not_before_ns: int) -> None:
        await self._ask(lambda c: c.execute(sql.POSTPONE, list(ids), not_before_ns))

    async def hurry(self) -> None:
        """What was postponed is to be looked at again."""
        await self._ask(lambda c: c.execute(sql.HURRY, self._pipeline))

    async def tried(self, ids: Sequence[int]) -> None:
        await self._ask(lambda c: c.execute(sql.TRIED, list(ids)))

    async def refused(self, ids: Sequence[int], why: str) -> None:
        await self._ask(lambda c: c.execute(sql.REFUSED, list(ids), f"refused: {why}"[:300]))

    async def sent_since(self, since_ns: int) -> list[int]:
        """When messages were sent, ns."""
        rows = await self._ask(lambda c: c.fetch(sql.SENT_SINCE, since_ns, since_ns - KEPT))
        return sorted(row["sent_ns"] for row in rows)

    # -- looking

    async def tables(self, *, names: bool) -> Tables:
        """What a look at the tables finds. ``names``: those of the accounts too."""

        async def work(c: asyncpg.Connection) -> Tables:
            gaps, keys = await c.fetch(sql.GAPS), await c.fetch(sql.KEYS, KEY_DAYS)
            runs = await c.fetchrow(sql.BACKUPS, self._pipeline)
            accounts = await c.fetch(sql.ACCOUNTS) if names else []
            assert runs is not None
            return Tables(
                gaps=[
                    OpenGaps(row["shard"], row["channel"], row["cause"], row["gaps"], row["missing"],
                             row["instruments"], tuple(row["symbols"] or ()), row["since_ns"])
                    for row in gaps
                ],
                keys=[(row["account"], row["expires_ns"]) for row in keys],
                backup_ns=runs["good_ns"],
                backup_error=runs["error"] or "",
                first_ns=runs["first_ns"],
                maintained_ns=runs["maintained_ns"],
                maintenance=_body(runs["maintenance"]),
                accounts=[row["name"] for row in accounts],
            )  # fmt: skip

        return await self._ask(work)


def _severity(text: str) -> Severity:
    try:
        return Severity(text)
    except ValueError:
        return Severity.WARNING  # Another version's.


def _body(text: Any) -> dict[str, Any]:
    body = json.loads(text) if isinstance(text, str) else {}
    return body if isinstance(body, dict) else {}
