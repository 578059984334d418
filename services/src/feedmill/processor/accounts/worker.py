"""Reads the streams of accounts and stores what they bring: each account in order, one account not waiting for another.

One connection to Redis reads all streams. What a read brings is stored, a few accounts at a time, before the next read:
so at most one read is in memory, and a server that is away stops the reading. An account whose storing failed begins
again from the position that PostgreSQL has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec

from feedmill import __version__
from feedmill.processor.accounts.store import AccountStore, Batch, Describe, UnknownAccount, undescribed
from feedmill.processor.chain import Break, Chain
from feedmill.processor.rows import STRANGER, Letter, event_session
from feedmill.processor.source import NotACommit, read_link
from feedmill.processor.spans import StoreSpans, Traced
from feedmill.processor.store import Moved
from feedmill.shared import postgres
from feedmill.shared.account_events import AccountBlock, decode_account
from feedmill.shared.backoff import Backoff
from feedmill.shared.breaker import Breaker, BreakerOpen
from feedmill.shared.clock import monotonic, now_ns
from feedmill.shared.keys import account_ref
from feedmill.shared.lease import sleep_or
from feedmill.shared.redis.ids import id_of
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Script, Wire, WireError, connect
from feedmill.shared.tracing import TRACES

MAX_STREAMS = 256
"""Streams of one read."""
MAX_ENTRIES = 64
"""Commits of one stream in one read."""
LOOK_AGAIN = 5.0
"""Seconds between two looks at a stream that brings nothing."""
REST = 5.0
"""Seconds an account is left alone that the database does not know."""


FORGET = Script("""#!lua flags=allow-oom
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
redis.call('DEL', unpack(KEYS, 2))
return last[1] and last[1][1] or '0-0'
""")
"""KEYS: the events stream, and what is forgotten. Answers the stream's last entry: what comes after it was made by a
distributor that knew nothing."""

Stored = Callable[[AccountStore, Batch], None]
"""Called after a batch was stored. Must be quick, and raise nothing."""


@dataclass(slots=True)
class Figures:
    """For metrics and health."""

    commits: int = 0
    fills: int = 0
    refused: int = 0
    moved: int = 0
    rereads: int = 0
    losses: int = 0
    faults: int = 0
    error: str = ""


@dataclass(slots=True)
class _Account:
    """One account's stream and where its reading stands."""

    store: AccountStore
    chain: Chain | None = None
    """None: the position is to be read first."""
    checked_at: float = 0.0
    """When the stream was seen to reach as far as the position; 0 = it was not."""
    idle: bool = False
    """The last read brought nothing of it."""
    again_at: float = 0.0
    batch: Batch = field(default_factory=Batch)

    @property
    def stream(self) -> str:
        return account_ref(self.store.account).events


class AccountWorker:
    """Stores the streams of ``accounts`` (namespace/name). Two at once do no harm: the position lets one store."""

    def __init__(
        self,
        redis_url: RedisUrl,
        database_url: postgres.Url,
        *,
        redis: Breaker,
        database: Breaker,
        log: Any,
        accounts: Iterable[str] = (),
        connections: int = 4,
        block_ms: int = 200,
        statement_timeout: float = 30.0,
        stored: Stored = lambda store, batch: None,
        describe: Describe = undescribed,
    ) -> None:
        """``connections``: to PostgreSQL, so also accounts stored at once. ``describe``: instruments nobody told of."""
        self._redis_url, self._database_url = redis_url, database_url
        self._redis, self._database = redis, database
        self._log = log
        self._stored = stored
        self._describe = describe
        self._size, self._block_ms, self._timeout = connections, block_ms, statement_timeout
        self._accounts: dict[str, _Account] = {}
        self._connections: asyncio.LifoQueue[asyncpg.Connection | None] = asyncio.LifoQueue()
        for _ in range(connections):
            self._connections.put_nowait(None)
        self._lent: set[asyncpg.Connection] = set()
        self._wire: Wire | None = None
        self.figures = Figures()
        self.work_on(accounts)

    def work_on(self, accounts: Iterable[str]) -> None:
        """Which accounts, from the next read on."""
        wanted = set(accounts)
        for name in self._accounts.keys() - wanted:
            del self._accounts[name]
        for name in sorted(wanted - self._accounts.keys()):
            self._accounts[name] = _Account(AccountStore(name, self._describe))

    def position(self, account: str) -> str:
        """The entry of its stream up to which it is stored; empty when that is not known."""
        found = self._accounts.get(account)
        return found.store.position.stream_id if found is not None and found.chain is not None else ""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; what was read by then is stored. Waits out servers that are away."""
        backoff = Backoff(0.1, 2.0)
        try:
            while not stop.is_set():
                try:
                    await self._round(stop)
                    backoff.reset()
                except BreakerOpen as error:
                    await self._wait(stop, error, max(error.retry_in, 0.05))
                except (WireError, *postgres.RETRYABLE, postgres.SchemaBehind) as error:
                    await self._wait(stop, error, backoff.next())
        finally:
            self.abort()

    def abort(self) -> None:
        """Cut all connections: whatever waits for a server that hangs ends at once."""
        if self._wire is not None:
            self._wire.abort()
            self._wire = None
        for connection in self._lent:
            connection.terminate()
        for _ in range(self._connections.qsize()):
            kept = self._connections.get_nowait()
            if kept is not None:
                kept.terminate()
            self._connections.put_nowait(None)

    async def _wait(self, stop: asyncio.Event, error: Exception, seconds: float) -> None:
        self.figures.error = postgres.describe(error)
        self._log.warning("accounts.interrupted", error=self.figures.error, retry_in=round(seconds, 3))
        await sleep_or(stop, seconds)

    async def _round(self, stop: asyncio.Event) -> None:
        """Read once, store what came."""
        # What a round before could not store: nothing is read on top of it.
        await self._each(self._store, [x for x in self._accounts.values() if x.chain is not None and not x.batch.empty])
        now = monotonic()
        await self._each(self._load, [x for x in self._accounts.values() if x.chain is None and now >= x.again_at])
        ready = [account for account in self._accounts.values() if account.chain is not None]
        if not ready:
            await sleep_or(stop, self._block_ms / 1000)
            return
        wire = await self._redis.call(self._connected)
        try:
            for account in [account for account in ready if account.store.restored]:
                await self._begin_anew(wire, account)
            due = [x for x in ready if not x.checked_at or (x.idle and now - x.checked_at >= LOOK_AGAIN)]
            await asyncio.gather(*(self._look(wire, account) for account in due))
            for at in range(0, len(ready), MAX_STREAMS):
                # Only where there is one read can it wait: another part's streams must not wait for this one's.
                await self._read(wire, ready[at : at + MAX_STREAMS], wait=len(ready) <= MAX_STREAMS)
        except (WireError, OSError, TimeoutError):
            wire.abort()
            self._wire = None
            raise
        came = [account for account in ready if not account.batch.empty]
        await self._each(self._store, came)
        if not came and len(ready) > MAX_STREAMS:
            await sleep_or(stop, self._block_ms / 1000)
        self.figures.error = ""

    async def _connected(self) -> Wire:
        if self._wire is None:
            self._wire = await connect(self._redis_url, name="feedmill-processor-accounts")
            for account in self._accounts.values():
                account.checked_at = 0.0  # It may be another server, or one that has forgotten its end.
        return self._wire

    async def _begin_anew(self, wire: Wire, account: _Account) -> None:
        """The database was restored from a backup, and whoever distributes the account takes what came since for told:
        it forgets, so its next reconciliation tells everything. What the events stream still has is stored."""
        ref = account_ref(account.store.account)
        # From before it is sent: the reconciliation that it leads to may begin before we have its answer.
        at_ns = now_ns()
        async with asyncio.timeout(self._block_ms / 1000 + 5.0):
            last = await wire.run(FORGET, [ref.events, ref.raw, ref.sessions, ref.checkpoint, ref.images])

        async def tell() -> None:
            connection = await self._lend()
            try:
                await account.store.began_anew(connection, last.decode(), at_ns)
            finally:
                self._give_back(connection)

        await self._database.call(tell)
        self._log.info("account.begins_anew", account=account.store.account, why="restored from a backup")

    # -- reading

    async def _look(self, wire: Wire, account: _Account) -> None:
        """A stream that ends before the position has forgotten what was read: it is read again from its begin."""
        assert account.chain is not None
        answer = await self._call(wire, "XREVRANGE", account.stream, "+", "-", "COUNT", 1)
        last = answer[0][0].decode() if answer else "0-0"
        if id_of(last) < id_of(account.chain.cursor):
            self._reread(account, f"the stream ends at {last}, before {account.chain.cursor}")
        account.checked_at = monotonic()

    async def _call(self, wire: Wire, *args: str | bytes | int) -> Any:
        async with asyncio.timeout(self._block_ms / 1000 + 5.0):
            return await wire.call(*args)

    async def _read(self, wire: Wire, accounts: list[_Account], *, wait: bool) -> None:
        chains = [account.chain for account in accounts if account.chain is not None]
        blocking = wait and not any(chain.rereading for chain in chains)
        answer = await self._call(
            wire, "XREAD", "COUNT", MAX_ENTRIES, *(("BLOCK", self._block_ms) if blocking else ()), "STREAMS",
            *(account.stream for account in accounts), *(chain.cursor for chain in chains),
        )  # fmt: skip
        came = {name.decode(): entries for name, entries in answer or ()}
        received_ns = now_ns()
        for account, chain in zip(accounts, chains, strict=True):
            entries = came.get(account.stream, ())
            # Nothing comes: it is looked at now and then whether the server still has what was read.
            account.idle = not entries
            if not entries and chain.rereading:
                chain.tip_reached()
            for raw_id, values in entries:
                if not self._take(account, chain, raw_id.decode(), values, received_ns):
                    break

    def _take(self, account: _Account, chain: Chain, entry: str, values: list[bytes], received_ns: int) -> bool:
        """Add an entry to the account's batch; False when the rest of the read must wait."""
        batch = account.batch
        fields = dict(zip(values[::2], values[1::2], strict=True)) if values else {}
        try:
            link = read_link(fields)
        except NotACommit as error:
            ms, seq = id_of(entry)
            payload = msgspec.msgpack.encode(fields)
            batch.letters.append(
                Letter(STRANGER, ms, seq & 0x7FFFFFFF, 0, received_ns, "not_a_commit", str(error)[:300], __version__,
                       payload)
            )  # fmt: skip
            chain.skip(entry)
            batch.stand(chain.n, chain.commit_id, entry)
            return True
        try:
            loss = chain.judge(link, entry)
        except Break as broken:
            self._reread(account, str(broken))
            return False
        if loss is not None:
            if not batch.empty:
                return False  # It begins the next batch.
            batch.loss = loss
            self.figures.losses += 1
            self._log.warning(
                "account.commits_lost", account=account.store.account, first=loss.first, last=loss.last,
                effect="a gap row; what was missed is asked for",
            )  # fmt: skip
        chain.follow(link, entry)
        payload = fields.get(b"e", b"")
        block = AccountBlock()
        try:
            block = decode_account(payload)
            if block.account and block.account != account.store.account:
                raise ValueError("the block is of another account")
        except (msgspec.DecodeError, ValueError) as error:
            block = AccountBlock()
            batch.letters.append(
                Letter(event_session(link.commit_id), link.n, 0, 0, received_ns, "undecodable", str(error)[:300],
                       __version__, payload)
            )  # fmt: skip
        if block.traces and TRACES.on:
            batch.traces += [
                Traced(ref, link.n, link.commit_id, entry, len(block), received_ns) for ref in block.traces
            ]
        batch.add((link.n, link.commit_id), block)
        batch.stand(link.n, link.commit_id, entry)
        return True

    def _reread(self, account: _Account, why: str) -> None:
        assert account.chain is not None
        account.chain.reread()
        self.figures.rereads += 1
        self._log.warning("account.reread", account=account.store.account, why=why)

    # -- storing

    async def _each(self, work: Any, accounts: list[_Account]) -> None:
        """A few at a time; what goes wrong with one does not keep the others. Raises the first error of a server."""
        waiting = iter(accounts)

        async def some() -> None:
            for account in waiting:
                await work(account)

        found = await asyncio.gather(*(some() for _ in range(min(self._size, len(accounts)))), return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException):
                raise error

    async def _load(self, account: _Account) -> None:
        async def load() -> None:
            connection = await self._lend()
            try:
                position = await account.store.load(connection)
            except UnknownAccount as error:
                account.again_at = monotonic() + REST
                self._log.warning("account.unknown", account=account.store.account, error=str(error))
            else:
                account.chain = Chain(position.n, position.commit_id, position.stream_id)
                account.checked_at = 0.0
            finally:
                self._give_back(connection)

        await self._database.call(load)

    async def _store(self, account: _Account) -> None:
        batch, account.batch = account.batch, Batch()
        spans = StoreSpans(account.store.shard, batch.traces) if batch.traces and TRACES.on else None

        async def store() -> None:
            connection = await self._lend()
            try:
                outcome = await account.store.commit(connection, batch)
            except Moved:
                # No failure of the server.
                account.chain = None
                self.figures.moved += 1
                self._log.warning("account.position_moved", account=account.store.account, action="reload the position")
                if spans is not None:
                    spans.failed("position moved")
            else:
                if spans is not None:
                    batch.took = spans.stored(len(batch.blocks), {"fills": outcome.fills})
                self.figures.commits += 1
                self.figures.fills += outcome.fills
                self.figures.refused += outcome.refused
                if outcome.refused:
                    self._log.warning(
                        "events.refused", account=account.store.account, events=outcome.refused,
                        effect="they are dead letters: feedmill dlq list",
                    )  # fmt: skip
                self._stored(account.store, batch)
            finally:
                self._give_back(connection)

        try:
            await self._database.call(store)
        except BaseException as error:
            account.chain = None  # Stored or not: the position knows.
            if spans is not None:
                spans.failed(type(error).__name__)
            if isinstance(error, (BreakerOpen, *postgres.RETRYABLE, postgres.SchemaBehind)) or not isinstance(
                error, Exception
            ):
                raise
            # A fault of the code in one account costs the others nothing.
            account.again_at = monotonic() + REST
            self.figures.faults += 1
            self._log.exception("account.fault", account=account.store.account, retry_in=REST)

    async def _lend(self) -> asyncpg.Connection:
        kept = await self._connections.get()
        try:
            if kept is None or kept.is_closed():
                kept = await postgres.connect(
                    self._database_url, name="feedmill processor accounts", command_timeout=self._timeout
                )
                await postgres.require_schema(kept)
        except BaseException:
            self._connections.put_nowait(None)
            raise
        self._lent.add(kept)
        return kept

    def _give_back(self, connection: asyncpg.Connection) -> None:
        self._lent.discard(connection)
        self._connections.put_nowait(None if connection.is_closed() else connection)
