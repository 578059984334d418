"""The distributors of many accounts over one pair of connections to Redis: read, judge, commit, ask.

Each account has its own engine, order and commits, by compare-and-set with the script of the feeds. A commit that is
refused, or a fault in one account, makes its engine anew from its checkpoint; a connection that fails, all of them.
Requests run as tasks of their own and wait for the venue's budget there: no stream waits for REST. One account at a
time sweeps: a sweep may take all of the budget for half an hour, and gaps are to be closed meanwhile. First of all
accounts the instruments that they have traded before, then the others.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from feedmill.distributor.accounts import state
from feedmill.distributor.accounts.engine import Engine, Unlisted
from feedmill.distributor.checkpoint import BadCheckpoint
from feedmill.distributor.scripts import COMMIT
from feedmill.distributor.spans import CommitSpans
from feedmill.distributor.telling import account_lines
from feedmill.exchanges.account_base import AccountRequest, AccountVenue
from feedmill.exchanges.account_rest import Traded
from feedmill.shared.backoff import Backoff
from feedmill.shared.clock import monotonic, now_ns
from feedmill.shared.keys import account_ref
from feedmill.shared.lease import sleep_or
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, WireError, connect
from feedmill.shared.tracing import TRACES

MAX_STREAMS = 64
"""Streams of one read."""
MAX_ENTRIES = 4
"""Batches of one stream in one read."""
ANSWER = 10.0
"""Seconds after which a server that does not answer is away."""
REST = 5.0
"""Seconds an account is left alone after a fault."""

LIST = 30.0
"""Seconds that a list of instruments may take: the market's accounts wait for it."""
RELIST = 60.0
"""Seconds between two lists of instruments because of a symbol that is in none."""

Ask = Callable[[str, str, AccountRequest], Awaitable[None]]
"""(account, command, request): carry it out and give the answer to the account's raw stream under that name."""
ListInstruments = Callable[[], Awaitable[Mapping[str, Traded]]]
"""The newest list of the market's instruments. May raise anything: then the account goes on without."""


@dataclass(slots=True)
class _Account:
    name: str
    engine: Engine | None = None
    """None: to be loaded."""
    commit_id: str = ""
    committed: str = ""
    """Place in the raw stream up to which all is committed."""
    again_at: float = 0.0
    asking: set[asyncio.Task[None]] = field(default_factory=set)

    def drop(self) -> None:
        self.engine = None
        for task in self.asking:
            task.cancel()
        self.asking.clear()


@dataclass(slots=True)
class Figures:
    """For metrics and health."""

    commits: int = 0
    reloads: int = 0
    mismatches: int = 0
    faults: int = 0
    letters: int = 0
    error: str = ""


class AccountDistributor:
    """Distributes the accounts of one market that it is told to ``work_on``. Two at once do no harm: one commits."""

    def __init__(
        self,
        redis_url: RedisUrl,
        venue: AccountVenue,
        ask: Ask,
        list_instruments: ListInstruments,
        *,
        silence: float = 30.0,
        look_every: float = 3600.0,
        block_ms: int = 100,
        log: Any,
    ) -> None:
        self._url = redis_url
        self._venue = venue
        self._ask = ask
        self._list = list_instruments
        self._silence, self._look_every, self._block_ms = silence, look_every, block_ms
        self._log = log
        self._accounts: dict[str, _Account] = {}
        self._instruments: Mapping[str, Traded] = {}
        self._relist_at = 0.0
        self._relisting = asyncio.Lock()
        self._sweeper: _Account | None = None
        self.figures = Figures()

    def work_on(self, accounts: set[str]) -> None:
        """Which accounts, from the next read on. Raises ValueError for what is no ``namespace/name``."""
        for name in accounts:
            account_ref(name)
        for name in self._accounts.keys() - accounts:
            self._accounts.pop(name).drop()
        for name in sorted(accounts - self._accounts.keys()):
            self._accounts[name] = _Account(name)

    @property
    def reconciling(self) -> set[str]:
        """Accounts with a gap, or whose sweep is not done."""
        found = self._accounts.values()
        return {each.name for each in found if each.engine is None or each.engine.line.owed}

    def has_gap(self, account: str) -> bool:
        """Whether something may be missing of it; a sweep that goes on after a gap is none."""
        found = self._accounts.get(account)
        return found is not None and (found.engine is None or found.engine.line.gap is not None)

    def is_sweeping(self, account: str) -> bool:
        """Whether its requests are those of a sweep now."""
        found = self._accounts.get(account)
        return found is not None and found.engine is not None and found.engine.sweeping

    def position(self, account: str) -> str:
        """The entry of its raw stream up to which all is committed; empty when that is not known."""
        found = self._accounts.get(account)
        return found.committed if found is not None and found.engine is not None else ""

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; what was read by then is committed. Waits out a server that is away."""
        backoff = Backoff(0.05, 2.0)
        try:
            while not stop.is_set():
                commits = self.figures.commits
                try:
                    await self._session(stop)
                    continue
                except (OSError, TimeoutError, WireError) as error:
                    self.figures.error = f"{type(error).__name__}: {error}"[:300]
                finally:
                    self._drop()
                if self.figures.commits > commits:
                    backoff.reset()
                wait = backoff.next()
                self._log.warning("accounts.session_ended", error=self.figures.error, retry_in=round(wait, 3))
                await sleep_or(stop, wait)
        finally:
            self._drop()

    def _drop(self) -> None:
        for account in self._accounts.values():
            account.drop()

    async def _session(self, stop: asyncio.Event) -> None:
        wires: list[Wire] = []
        try:
            wires.append(reader := await connect(self._url, name="feedmill-distributor-accounts-read"))
            wires.append(writer := await connect(self._url, name="feedmill-distributor-accounts-commit"))
            if reader.run_id != writer.run_id:
                raise OSError("the server changed while connecting")
            async with asyncio.timeout(ANSWER):
                await writer.call("SCRIPT", "LOAD", COMMIT.source)
            while not stop.is_set():
                await self._round(reader, writer, stop)
        finally:
            for wire in wires:
                wire.abort()

    async def _round(self, reader: Wire, writer: Wire, stop: asyncio.Event) -> None:
        """Read every stream once, commit what came of it."""
        now = monotonic()
        if not self._instruments and self._accounts:
            await self._renew_instruments()
        waiting = [each for each in self._accounts.values() if each.engine is None and now >= each.again_at]
        if self._instruments:
            await asyncio.gather(*(self._load(writer, account) for account in waiting))
        ready = [account for account in self._accounts.values() if account.engine is not None]
        came = 0
        for at in range(0, len(ready), MAX_STREAMS):
            # One that is no longer worked on was dropped meanwhile.
            part = [each for each in ready[at : at + MAX_STREAMS] if each.engine is not None]
            if not part:
                continue
            # Only where there is one read can it wait: another part's streams must not wait for this one's.
            entries = await self._read(reader, part, wait=len(ready) <= MAX_STREAMS)
            came += len(entries)
            await asyncio.gather(*(self._advance(writer, each, entries.get(each.name, [])) for each in part))
        self.figures.error = ""
        if not ready or (not came and len(ready) > MAX_STREAMS):
            await sleep_or(stop, self._block_ms / 1000)

    async def _renew_instruments(self) -> None:
        try:
            async with asyncio.timeout(LIST):
                found = await self._list()
        except Exception as error:
            self._log.warning("accounts.no_instruments", error=f"{type(error).__name__}: {error}"[:300])
            return
        self._instruments = found
        for account in self._accounts.values():
            if account.engine is not None:
                account.engine.learn(found)

    async def _load(self, wire: Wire, account: _Account) -> None:
        async with asyncio.timeout(ANSWER):
            answer = await wire.call("HGETALL", account_ref(account.name).checkpoint)
        try:
            found = state.load(dict(zip(answer[::2], answer[1::2], strict=True)))
        except BadCheckpoint as error:
            account.again_at = monotonic() + REST
            self.figures.error = str(error)
            self._log.error("account.checkpoint_unreadable", account=account.name, error=str(error))
            return
        account.commit_id, account.committed = found.id, found.pos
        account.engine = Engine(
            account.name, self._venue, self._instruments, found, secrets.token_hex(4), silence=self._silence,
            look_every=self._look_every,
        )  # fmt: skip
        self.figures.reloads += 1

    async def _read(self, wire: Wire, accounts: list[_Account], *, wait: bool) -> dict[str, list[Any]]:
        streams = {account_ref(account.name).raw: account for account in accounts}
        positions = [account.engine.pos for account in accounts if account.engine is not None]
        async with asyncio.timeout(ANSWER):
            answer = await wire.call(
                "XREAD", "COUNT", MAX_ENTRIES, *(("BLOCK", self._block_ms) if wait else ()), "STREAMS",
                *streams, *positions,
            )  # fmt: skip
        return {streams[name.decode()].name: entries for name, entries in answer or ()}

    async def _advance(self, wire: Wire, account: _Account, entries: list[Any]) -> None:
        """One account: what came, what time brings, the commit, the requests."""
        engine = account.engine
        if engine is None:
            return
        try:
            for raw_id, fields in entries:
                await self._entry(engine, raw_id.decode(), _payload(fields))
            engine.tick(now_ns(), monotonic(), idle=not entries)
            for command, request in engine.asks(sweep=self._may_sweep(account)):
                self._spawn(account, engine, command, request)
            if engine.moved:
                await self._commit(wire, account, engine)
        except (OSError, TimeoutError, WireError):
            raise
        except Exception:
            # A fault of the code in one account costs the others nothing.
            account.drop()
            account.again_at = monotonic() + REST
            self.figures.faults += 1
            self._log.exception("account.fault", account=account.name, retry_in=REST)

    def _may_sweep(self, account: _Account) -> bool:
        engine = account.engine
        if engine is not None and engine.sweeping:
            other = self._sweeper.engine if self._sweeper is not None else None
            if other is None or not other.sweeping or (engine.likely and not other.likely):
                self._sweeper = account
        return self._sweeper is account

    async def _entry(self, engine: Engine, raw_id: str, payload: bytes | None) -> None:
        try:
            engine.entry(raw_id, payload, now_ns(), monotonic())
        except Unlisted:
            async with self._relisting:  # Others wait for the list that is under way.
                if monotonic() >= self._relist_at:
                    await self._renew_instruments()
                    self._relist_at = monotonic() + RELIST
            engine.entry(raw_id, payload, now_ns(), monotonic(), final=True)

    async def _commit(self, wire: Wire, account: _Account, engine: Engine) -> None:
        ref = account_ref(account.name)
        spans = CommitSpans(str(ref), engine.traces) if engine.traces and TRACES.on else None
        if spans is not None:
            engine.carry(spans.refs)
        taken = engine.take()
        before, new = account.commit_id, secrets.token_hex(8)
        if spans is not None:
            spans.sent(taken.en, new)
        fields = [item for pair in taken.fields.items() for item in pair]
        keys = [ref.checkpoint, ref.raw, ref.events, ref.commands, ref.images, ref.applied]
        try:
            async with asyncio.timeout(ANSWER):
                answer = await wire.call(
                    "EVALSHA", COMMIT.digest, len(keys), *keys,
                    before, new, taken.pos, taken.pos,
                    taken.en or "", new, taken.eid_before, taken.events, "",
                    len(fields), *fields, len(taken.deleted), *taken.deleted, 0,
                )  # fmt: skip
        except BaseException as error:
            if spans is not None:
                spans.failed(type(error).__name__)
            raise
        if answer[0] != 1:
            if spans is not None:
                spans.failed("another one committed")
            self.figures.mismatches += 1
            found = answer[1].decode() or "none"
            self._log.warning("account.mismatch", account=account.name, found=found, action="load the checkpoint")
            account.drop()
            return
        if spans is not None:
            spans.committed()
        account.commit_id, account.committed = new, taken.pos
        if taken.en:
            engine.eid = new
        self.figures.commits += 1
        self.figures.letters += len(taken.block.dead_letters)
        for level, event, told in account_lines(str(ref), taken.block):
            getattr(self._log, level)(event, account=account.name, **told)

    def _spawn(self, account: _Account, engine: Engine, command: str, request: AccountRequest) -> None:
        async def carry_out() -> None:
            try:
                await self._ask(account.name, command, request)
            except Exception as error:
                # No text of it: it may hold what was sent. The request is overdue some time and made again.
                self._log.error("account.ask_failed", account=account.name, error=type(error).__name__)
            engine.handed(command, monotonic())

        task = asyncio.create_task(carry_out(), name="account-ask")
        account.asking.add(task)
        task.add_done_callback(account.asking.discard)


def _payload(fields: list[bytes]) -> bytes | None:
    """The batch of an entry (field ``b``)."""
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(b"b") if fields else None
