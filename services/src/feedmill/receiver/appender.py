"""Sends batches to the raw stream, one at a time, and never twice however often the server goes away.

The hot part is synchronous: :meth:`Appender.pump` sends when nothing is in flight and the answer's callback pumps
again, so an append costs no task switch. A task looks after the connection, behind the circuit breaker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from feedmill.receiver import metrics
from feedmill.receiver.backlog import Kept
from feedmill.receiver.scripts import APPEND
from feedmill.receiver.session import Producer
from feedmill.receiver.spill.past import Past
from feedmill.shared.backoff import Backoff
from feedmill.shared.breaker import Breaker, BreakerOpen, Ticket
from feedmill.shared.clock import monotonic
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.url import RedisUrl
from feedmill.shared.redis.wire import Wire, WireClosed, WireError, connect


class AppendTimeout(TimeoutError):
    """The server did not answer within the append deadline (it hangs, or is stopped)."""


class _Reply:
    """Takes an append's answer at once, where a future would cost two trips through the event loop."""

    __slots__ = ("_act",)

    def __init__(self, act: Callable[[_Reply, Any, BaseException | None], None]) -> None:
        self._act = act

    def done(self) -> bool:
        return False

    def set_result(self, result: Any, /) -> None:
        self._act(self, result, None)

    def set_exception(self, exception: Any, /) -> None:
        self._act(self, None, exception)


class Appender:
    """Owns the append connection. ``state``: waiting | connecting | up | away | stopped."""

    def __init__(
        self,
        url: RedisUrl,
        shard: ShardRef,
        producer: Producer,
        breaker: Breaker,
        *,
        deadline: float = 5.0,
        connect_timeout: float = 5.0,
        log: Any,
    ) -> None:
        self.url = url
        self._keys = [shard.raw, shard.sessions]
        self._producer = producer
        self._breaker = breaker
        self._deadline = deadline
        self._connect_timeout = connect_timeout
        self._log = log
        self._wire: Wire | None = None
        self._in_flight: Kept | None = None
        self._reply: _Reply | None = None
        self._sent_at = 0.0
        self._told = ""
        self._ticket: Ticket | None = None
        self._failed = asyncio.Event()
        self._settled = asyncio.Event()
        self._reachable = asyncio.Event()
        self._sample = 0
        self.appended = 0
        self._reported = 0
        self.state = "waiting"
        self.run_id = ""
        self.problem = ""
        self.since = monotonic()
        self.held = ""
        """Why nothing is sent although the server would take it."""
        self._blocked_since = monotonic()
        self._lane: Producer | Past = producer
        producer.pump = self.pump

    @property
    def up(self) -> bool:
        """Appends work: the last answer was one."""
        return self.state == "up"

    @property
    def in_flight(self) -> bool:
        return self._in_flight is not None

    @property
    def blocked_for(self) -> float:
        """Seconds for which nothing could be appended, 0 while appends work."""
        return monotonic() - self._blocked_since if self._blocked_since else 0.0

    def hold(self, why: str) -> None:
        """Send nothing while ``why`` is not empty."""
        if why and not self.held:
            self._log.warning("append.held", cause=why)
        elif self.held and not why:
            self._log.info("append.released")
        self.held = why
        self._look_blocked()
        if not why:
            self.pump()

    # the hot part
    def pump(self) -> None:
        """Send the next batch if nothing is in flight; keep the open batch within its bounds in any case."""
        producer = self._producer
        wire = self._wire
        if wire is None or self._in_flight is not None or self.held:
            if producer.overfull:
                producer.seal()
            return
        lane = producer.lane if producer.past else producer
        backlog = lane.backlog
        kept = backlog.take_next()
        if kept is None:
            if lane is not producer or backlog.next <= backlog.last:
                # It is being read from disk.
                if producer.overfull:
                    producer.seal()
                return
            if not producer.seal():
                if backlog.settled:
                    self._settled.set()
                return
            kept = backlog.take_next()
            if kept is None:
                return
        self._lane = lane
        self._send(wire, kept, "EVALSHA", APPEND.digest)

    def _send(self, wire: Wire, kept: Kept, how: str, script: str) -> None:
        self._settled.clear()
        self._in_flight = kept
        self._sent_at = monotonic()
        if kept.trace is not None:
            kept.trace.sent()
        self._reply = _Reply(self._answered)
        try:
            wire.post(self._reply, how, script, 2, *self._keys, self._lane.id, kept.n, kept.payload)
        except WireClosed as error:
            self._in_flight = None
            self._fail(error, kept)

    def _answered(self, reply: _Reply, answer: Any, error: BaseException | None) -> None:
        wire, kept = self._wire, self._in_flight
        if reply is not self._reply or kept is None or wire is None:
            return
        self._in_flight = None
        if error is not None:
            if isinstance(error, WireError) and error.code == "NOSCRIPT":
                self._send(wire, kept, "EVAL", APPEND.source)
                return
            self._fail(error, kept)
            return
        self._sample += 1
        if not self._sample & 15 and kept.trace is None:
            metrics.append_seconds.observe(monotonic() - self._sent_at)
        try:
            code, last = answer
        except (TypeError, ValueError):
            self._fail(WireClosed("the append script's answer has not the form [code, last]"), kept)
            return
        lane = self._lane
        if kept.trace is not None and code >= 0:
            metrics.append_seconds.observe(monotonic() - self._sent_at, kept.trace.exemplar)
            kept.trace.appended()
            kept.trace = None
        if code > 0:
            lane.backlog.acknowledge(kept.n)
            self.appended += 1
        elif isinstance(lane, Past):
            lane.place(int(last))
        elif code == 0:
            lane.backlog.acknowledge(int(last))
            self.appended += 1
        else:
            self._forgotten(int(last))
        if self._ticket is not None:
            self._ticket.success()
            self._ticket = None
            self._set_state("up", "")
        self.pump()

    def _forgotten(self, last: int) -> None:
        """The server's last batch of this session is ``last``: go back to the next one, or begin a new session."""
        producer = self._producer
        if producer.backlog.can_rewind(last + 1):
            metrics.rewinds.inc()
            self._log.warning("append.rewind", session=producer.id, server_has=last, held_to=producer.backlog.last)
            producer.backlog.rewind(last + 1)
        else:
            producer.replace()

    def _fail(self, error: BaseException, kept: Kept | None = None) -> None:
        """``kept``: the batch under way."""
        code = error.code if isinstance(error, WireError) else type(error).__name__
        metrics.append_failures.labels(code).inc()
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            with contextlib.suppress(BreakerOpen):
                ticket = self._breaker.admit()
        if ticket is not None:
            ticket.failure(error)
        self._set_state("away", f"{code}: {error}"[:200], kept)
        self._failed.set()

    def report(self) -> None:
        """Bring the counters up to date (they are not touched once a batch)."""
        metrics.appended.inc(self.appended - self._reported)
        self._reported = self.appended

    def verify(self, session: str, last: int) -> None:
        """The server has ``session`` only up to ``last`` (the confirmer noticed): make it show, and send again."""
        for past in self._producer.past:
            if past.id == session and not (self._in_flight is not None and self._lane is past):
                past.place(last)
                self.pump()
        self._producer.alive(0.0)

    def reachable(self) -> None:
        """Another connection to the server was made: no need to wait longer with the breaker's next probe."""
        self._breaker.hasten()
        self._reachable.set()

    async def settled(self) -> None:
        """Wait until the server said it has everything."""
        while not self._producer.idle:
            self._settled.clear()
            self.pump()
            await self._settled.wait()

    # the connection
    async def run(self) -> None:
        """Keep the connection until cancelled."""
        backoff = Backoff(0.25, 5.0)
        try:
            while True:
                await self._one_life(backoff)
                await asyncio.sleep(backoff.next())
        finally:
            self._drop_wire()

    async def _one_life(self, backoff: Backoff) -> None:
        ticket = await self._admitted()
        try:
            self._set_state("connecting", self.problem)
            wire = await connect(self.url, name="feedmill-receiver", timeout=self._connect_timeout)
            try:
                async with asyncio.timeout(self._connect_timeout):
                    await wire.call("SCRIPT", "LOAD", APPEND.source)
                    for past in tuple(self._producer.past):
                        past.place(int(await wire.call("HGET", self._keys[1], past.id) or 0))
            except BaseException:
                wire.abort()
                raise
        except (OSError, TimeoutError, WireError) as error:
            self._ticket = ticket
            self._fail(error)
            return
        except BaseException:
            ticket.release()
            raise
        try:
            await self._serve(wire, ticket, backoff)
        finally:
            self._drop_wire()

    async def _serve(self, wire: Wire, ticket: Ticket, backoff: Backoff) -> None:
        self._failed.clear()
        self._ticket, self._wire, self.run_id = ticket, wire, wire.run_id
        appended = self.appended
        wire.closed.add_done_callback(lambda _: self._wire_closed(wire))
        backlog = self._producer.backlog
        backlog.rewind(backlog.acked + 1)
        if self._producer.idle and self._producer.lane is self._producer:
            # Something must be appended for the breaker to know that appending works again.
            self._producer.alive(0.0)
        self.hold("")
        self.pump()
        while not self._failed.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._deadline / 4):
                    await self._failed.wait()
            if self._in_flight is not None and monotonic() - self._sent_at > self._deadline:
                self._fail(AppendTimeout(f"no answer to an append within {self._deadline:g} s"), self._in_flight)
            if self.appended > appended:
                backoff.reset()

    def _wire_closed(self, wire: Wire) -> None:
        # With an append in flight its own error tells; this is for a connection lost while idle.
        if self._wire is wire and self._in_flight is None and not self._failed.is_set():
            self._fail(WireClosed("the server closed the connection"))

    async def _admitted(self) -> Ticket:
        while True:
            try:
                return self._breaker.admit()
            except BreakerOpen as error:
                self._reachable.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.05, error.retry_in)):
                        await self._reachable.wait()

    def _drop_wire(self) -> None:
        wire, self._wire = self._wire, None
        self._in_flight = None
        if self._ticket is not None:
            self._ticket.release()
            self._ticket = None
        if wire is not None:
            wire.abort()
        if self.state == "up":
            # Not a failure (that says so before it comes here): the receiver stops.
            self._set_state("stopped", "")

    def _set_state(self, state: str, problem: str, kept: Kept | None = None) -> None:
        if state == "up" and self._told != "up":
            self._told = "up"
            self._log.info("redis.up", server=str(self.url), run_id=self.run_id)
        if state == "away" and self._told != problem:
            self._told = problem
            self._log.warning(
                "redis.away", server=str(self.url), cause=problem, breaker=self._breaker.state, **self._named(kept)
            )
        if state != self.state:
            self.since = monotonic()
        self.state, self.problem = state, problem
        self._look_blocked()

    def _named(self, kept: Kept | None) -> dict[str, Any]:
        """What a line of the log says of a batch: by what to look for it elsewhere."""
        if kept is None:
            return {}
        traced = {} if kept.trace is None else {"trace_id": kept.trace.trace_id}
        return {"session": self._lane.id, "batch": kept.n, **traced}

    def _look_blocked(self) -> None:
        if self.state == "up" and not self.held:
            self._blocked_since = 0.0
        elif not self._blocked_since:
            self._blocked_since = monotonic()
