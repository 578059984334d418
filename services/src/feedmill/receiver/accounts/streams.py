"""What is heard of accounts, into a raw stream of each account's own: ``frames.RawBatch``, as of feeds.

All accounts share one connection to Redis; of each one append is under way, so the streams stay dense and ordered, and
a burst of one holds up none. The script and the sessions are those of the receiver. There is no disk behind it: what
does not fit in memory while Redis is away is shed and told (Shed), which is a gap, and accounts are reconciled by REST
after a gap. A batch is held ``hold`` seconds after its append, for a server that comes back without its last second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from feedmill.exchanges.account_base import Rejection
from feedmill.receiver.backlog import Kept
from feedmill.receiver.scripts import APPEND
from feedmill.receiver.session import Producer
from feedmill.shared import control
from feedmill.shared.backoff import Backoff
from feedmill.shared.budget import ByteBudget
from feedmill.shared.clock import monotonic
from feedmill.shared.keys import account_ref
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, WireClosed, WireError, connect

LOOK_EVERY = 0.25


class _Stream:
    """One account: its session, and its append under way. Takes the answer as a future would."""

    def __init__(self, account: str, producer: Producer, owner: AccountStreams) -> None:
        self.account = account
        ref = account_ref(account)
        self.keys = (ref.raw, ref.sessions)
        self.producer = producer
        self.in_flight: Kept | None = None
        self.sent_at = 0.0
        self.conn = 0
        """Grows each time the account is listened to anew."""
        self.over = asyncio.Event()
        """Closed, and all of it is appended."""
        self._owner = owner
        producer.pump = lambda: owner.pump(self)

    def done(self) -> bool:
        return False

    def set_result(self, result: Any, /) -> None:
        self._owner.answered(self, result)

    def set_exception(self, exception: Any, /) -> None:
        self._owner.failed(exception)


class AccountStreams:
    """A :class:`feedmill.receiver.accounts.sink.Sink`. ``open`` each account before it is listened to."""

    def __init__(
        self,
        url: RedisUrl,
        replica: str,
        budget: ByteBudget,
        *,
        hold: float = 2.0,
        deadline: float = 5.0,
        alive_interval: float = 10.0,
        log: Any,
    ) -> None:
        self._url = url
        self._replica = replica
        self._budget = budget
        self._hold = hold
        self._deadline = deadline
        self._alive = alive_interval
        self._log = log
        self._streams: dict[str, _Stream] = {}
        self._ending: set[_Stream] = set()
        """Closed ones that still have something to append. Their accounts may be opened anew meanwhile."""
        self._wire: Wire | None = None
        self._failed = asyncio.Event()
        self._proven: deque[tuple[float, _Stream, str, int]] = deque()
        self._settled = asyncio.Event()
        self._awaited = 0
        """How many wait for all to be appended: asking all accounts at each answer would cost too much."""
        self.appended = 0
        self.problem = "not connected yet"

    def open(self, account: str) -> None:
        """Begin its session. Raises ValueError for what is no ``namespace/name``."""
        if account not in self._streams:
            producer = Producer(self._replica, self._budget, shard=str(account_ref(account)), log=self._log)
            producer.set_stuck(True)  # Shed at three quarters of the memory: there is no disk.
            self._streams[account] = _Stream(account, producer, self)
            self.pump(self._streams[account])

    def close(self, account: str) -> None:
        """End its session; it is forgotten once all of it is appended."""
        stream = self._streams.pop(account, None)
        if stream is not None:
            self._ending.add(stream)
            stream.producer.end()
            self._forget(stream)

    def closed(self, account: str) -> bool:
        """Nothing of it is left to be appended."""
        return account not in self._streams and all(stream.account != account for stream in self._ending)

    async def ended(self, account: str) -> None:
        """Wait until nothing of what was closed is left to be appended."""
        for stream in [stream for stream in self._ending if stream.account == account]:
            await stream.over.wait()

    # -- the sink

    def frame(self, account: str, receive_ns: int, payload: bytes) -> None:
        stream = self._streams.get(account)
        if stream is not None:
            stream.producer.frames(stream.conn, [receive_ns], [payload])

    def ready(self, account: str) -> None:
        stream = self._streams.get(account)
        if stream is not None:
            stream.conn += 1
            stream.producer.record(control.Connected(stream.conn, "private"), stream.conn)

    def lost(self, account: str, cause: str, why: Rejection | None) -> None:
        stream = self._streams.get(account)
        if stream is not None:
            detail = "" if why is None else str(why)[:200]
            stream.producer.record(control.Disconnected(stream.conn, cause, detail), stream.conn)

    # -- answers of the desk

    def answer(self, account: str, answer: control.RestAnswer, at_ns: int) -> None:
        """Behind everything that was heard of the account before it."""
        stream = self._streams.get(account)
        if stream is not None:
            stream.producer.answer(answer, at_ns)

    def refused(self, account: str, record: control.RestFailed) -> None:
        stream = self._streams.get(account)
        if stream is not None:
            stream.producer.record(record)

    # -- appending

    def pump(self, stream: _Stream) -> None:
        """Send the account's next batch, if none is under way."""
        producer = stream.producer
        wire = self._wire
        if wire is None or stream.in_flight is not None:
            if producer.overfull:
                producer.seal()
            return
        kept = producer.backlog.take_next()
        if kept is None and producer.seal():
            kept = producer.backlog.take_next()
        if kept is None:
            self._forget(stream)
            return
        self._settled.clear()
        stream.in_flight, stream.sent_at = kept, monotonic()
        if kept.trace is not None:
            kept.trace.sent()
        try:
            wire.post(stream, "EVALSHA", APPEND.digest, 2, *stream.keys, producer.id, kept.n, kept.payload)
        except WireClosed as error:
            self.failed(error)

    def answered(self, stream: _Stream, answer: Any) -> None:
        kept, stream.in_flight = stream.in_flight, None
        if kept is None or self._wire is None:
            return  # Of a connection that is over.
        producer = stream.producer
        backlog = producer.backlog
        try:
            code, last = answer
        except (TypeError, ValueError):
            self.failed(WireClosed("the append script's answer has not the form [code, last]"))
            return
        if code >= 0:
            if kept.trace is not None:
                kept.trace.appended()
                kept.trace = None
            backlog.acknowledge(kept.n if code else int(last))
            self.appended += 1
            self._proven.append((monotonic() + self._hold, stream, producer.id, backlog.acked))
        elif backlog.can_rewind(int(last) + 1):
            backlog.rewind(int(last) + 1)
        else:
            producer.replace()
        self.pump(stream)

    def failed(self, error: BaseException) -> None:
        self.problem = f"{type(error).__name__}: {error}"[:200]
        self._failed.set()

    def _forget(self, stream: _Stream) -> None:
        if stream in self._ending and stream.producer.idle:
            self._ending.discard(stream)
            stream.producer.confirm(stream.producer.id, stream.producer.backlog.acked)
            stream.over.set()
        if self._awaited and self.idle:
            self._settled.set()

    @property
    def idle(self) -> bool:
        """The server said that it has everything."""
        return all(stream.producer.idle for stream in self._all())

    def _all(self) -> list[_Stream]:
        """Those that end first: a session must be known before the one that follows it."""
        return [*self._ending, *self._streams.values()]

    async def settled(self) -> None:
        self._awaited += 1
        try:
            while not self.idle:
                self._settled.clear()
                await self._settled.wait()
        finally:
            self._awaited -= 1

    # -- the connection

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        backoff = Backoff(0.25, 5.0)
        try:
            while True:
                try:
                    await self._one_life(backoff)
                except (OSError, TimeoutError, WireError) as error:
                    self.failed(error)
                self._log.warning("accounts.redis_away", server=str(self._url), cause=self.problem)
                await asyncio.sleep(backoff.next())
        finally:
            self._drop()

    async def _one_life(self, backoff: Backoff) -> None:
        wire = await connect(self._url, name="feedmill-accounts", timeout=self._deadline)
        try:
            async with asyncio.timeout(self._deadline):
                await wire.call("SCRIPT", "LOAD", APPEND.source)
            self._failed.clear()
            self._wire = wire
            wire.closed.add_done_callback(lambda _: self._closed(wire))
            for stream in self._all():
                backlog = stream.producer.backlog
                backlog.rewind(backlog.acked + 1)
                self.pump(stream)
            appended = self.appended
            while not self._failed.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await self._failed.wait()
                if self.appended > appended and not self._failed.is_set():
                    self.problem = ""
                    backoff.reset()
                self._look()
        finally:
            self._drop()
            wire.abort()

    def _look(self) -> None:
        now = monotonic()
        while self._proven and self._proven[0][0] <= now:
            _, stream, session, n = self._proven.popleft()
            if session == stream.producer.id:
                stream.producer.confirm(session, n)
        for stream in self._all():
            stream.producer.alive(self._alive)
            if stream.in_flight is not None and now - stream.sent_at > self._deadline:
                self.failed(TimeoutError(f"no answer to an append within {self._deadline:g} s"))

    def _closed(self, wire: Wire) -> None:
        if self._wire is wire:
            self.failed(WireClosed("the server closed the connection"))

    def _drop(self) -> None:
        self._wire = None
        for stream in self._all():
            stream.in_flight = None
