"""REST on command: asked for by distributors (book snapshots) or by itself (instruments), answered into the stream.

Every request draws on the venue's weight budget (its ``share``, corrected by what the venue's headers say; the fleet's
where there is one), 429 and 418 stop all requests for as long as the venue asks, server errors are retried with
back-off, and what is given up is told with a RestFailed record. What waits stands in two lanes (``lanes``), so that
neither snapshots nor trades keep the other waiting for long.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from feedmill import __version__
from feedmill.exchanges.base import Rest, RestRequest, TradeRange, VenueLimits
from feedmill.receiver import metrics
from feedmill.receiver.causes import host_of
from feedmill.receiver.lanes import Lanes
from feedmill.receiver.session import Producer
from feedmill.shared import control
from feedmill.shared.backoff import Backoff
from feedmill.shared.budget import Budget, TokenBucket
from feedmill.shared.clock import monotonic, now_ns
from feedmill.shared.fleet import Fleet
from feedmill.shared.http_body import read_body
from feedmill.shared.traceparent import trace_id
from feedmill.shared.tracing import TRACES, Span, Value

QUEUE = 1000
WORKERS = 4
ATTEMPTS = 5
GIVE_UP = 150.0
"""Seconds after which a command's request is given up, waiting for budget included: two windows of a venue's weight."""
TOLD_SHARE = 0.8
"""Of a weight that the venue counts by the clock's windows and tells in every answer: what others use is seen."""
HEADROOM = 0.9
"""Of the weight, everybody's use together, from which on nothing is asked for in a window."""
NOT_OFFERED = 404
PASSING = frozenset({403, 408, 418, 425, 429})
"""Statuses below 500 that say nothing against what was asked for."""
ROOM_SHARE = 0.5
"""Of the memory budget: while more is held, no trades of the past are asked for."""
ROOM_LOOK = 0.1
MAX_BODY = 64 * 1024 * 1024
OTHER_BUDGET = (5.0, 0.1)
"""Capacity and rate of budgets a venue names but VenueLimits does not describe (the strictest documented one)."""


@dataclass(slots=True)
class Job:
    request: RestRequest
    command: str
    asked: float = field(default_factory=monotonic)
    """Monotonic time."""
    taken: asyncio.Future[bytes] | None = None
    """Who waits for the body here; None = it goes into the stream."""
    trace: str = ""
    """``traceparent`` of the command, where it is traced."""

    @property
    def key(self) -> tuple[str, ...]:
        return (self.request.kind, self.request.symbol, self.request.url, *sorted(self.request.params.values()))


class RestUnanswered(Exception):
    """What was asked for by :meth:`RestDesk.fetch` could not be had; the message says why."""


class RestDesk:
    """Queue and workers. ``ask`` never blocks; a request for what is already queued only takes the newer command."""

    def __init__(
        self,
        rest: Rest,
        limits: VenueLimits,
        producer: Producer,
        *,
        share: float = 0.5,
        timeout: float = 15.0,
        ssl_context: ssl.SSLContext | None = None,
        fleet: Fleet | None = None,
        log: Any,
    ) -> None:
        self._rest = rest
        self._limits = limits
        self._producer = producer
        self._timeout = timeout
        self._ssl = ssl_context
        self._log = log
        self._lanes: Lanes[Job] = Lanes(QUEUE)
        self._pending: dict[tuple[str, ...], Job] = {}
        self._fleet = fleet
        self._buckets: dict[str, Budget] = {"weight": weight_budget(limits, share, fleet)}
        self.problem = ""

    def move(self, rest: Rest) -> None:
        """Ask at another address from now on."""
        self._rest = rest

    @property
    def waiting(self) -> int:
        return len(self._pending)

    @property
    def blocked_for(self) -> float:
        return max(bucket.blocked_for for bucket in self._buckets.values())

    def snapshot(self, symbol: str, native: str, command: str, *, trace: str = "") -> None:
        self.ask(self._rest.book_snapshot(symbol, native), command, trace=trace)

    def trades(self, command: control.Command) -> None:
        wanted = TradeRange(command.from_id, command.to_id, command.from_ns, command.to_ns)
        request = self._rest.trades(command.symbol, command.native, wanted)
        if request is not None:
            self.ask(request, command.id, trace=command.trace)
            return
        reason = "the venue offers no trades by number"
        self._producer.record(control.RestFailed(command.id, command.symbol, reason, NOT_OFFERED))

    def instruments(self, natives: Sequence[str], command: str) -> None:
        for request in self._rest.instruments(natives):
            self.ask(request, command)

    async def fetch(self, request: RestRequest) -> bytes:
        """The body of an answer, for this process alone. Raises RestUnanswered."""
        taken: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.ask(request, "", taken)
        return await taken

    def ask(
        self, request: RestRequest, command: str, taken: asyncio.Future[bytes] | None = None, *, trace: str = ""
    ) -> None:
        job = Job(request, command, taken=taken, trace=trace)
        held = self._pending.get(job.key)
        if held is not None:
            held.command = command or held.command
            held.trace = trace or held.trace
            held.asked = job.asked
            held.taken = taken or held.taken
            return
        if not self._lanes.put(job, request.weight, yields=request.kind == "trades"):
            self._give_up(job, f"{QUEUE} REST requests wait already")
            return
        self._pending[job.key] = job

    async def run(self) -> None:
        """Work until cancelled."""
        connector = aiohttp.TCPConnector(limit=WORKERS, ssl=self._ssl if self._ssl is not None else True)
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                headers={"User-Agent": f"feedmill/{__version__}"},
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            for index in range(WORKERS):
                group.create_task(self._work(session), name=f"rest-{index}")

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            job = await self._lanes.get()
            try:
                await self._serve(session, job)
            finally:
                self._pending.pop(job.key, None)

    async def _serve(self, session: aiohttp.ClientSession, job: Job) -> None:
        backoff = Backoff(0.5, 10.0)
        reason, status = "", 0
        bucket = self._bucket(job.request.bucket)
        for _ in range(ATTEMPTS):
            left = job.asked + GIVE_UP - monotonic()
            if job.command and left <= 0:
                reason = reason or "no budget in time"
                break
            try:
                async with asyncio.timeout(left if job.command else None):
                    if job.request.kind == "trades":
                        await self._room()
                    await bucket.take(job.request.weight)
            except TimeoutError:
                reason = reason or "no budget in time"
                break
            final, reason, status = await self._try(session, job, bucket)
            if final:
                if reason and (parts := self._rest.halves(job.request)):
                    for part in parts:
                        self.ask(part, job.command, trace=job.trace)
                    return
                break
            await asyncio.sleep(backoff.next())
        if reason:
            self._give_up(job, reason, status if 400 <= status < 500 and status not in PASSING else 0)

    async def _try(self, session: aiohttp.ClientSession, job: Job, bucket: Budget) -> tuple[bool, str, int]:
        """As :meth:`_once`, with a span where the command is traced; it ends whatever becomes of the try."""
        span = _span(job) if job.trace and TRACES.on else None
        if span is None:
            return await self._once(session, job, bucket)
        try:
            final, reason, status = await self._once(session, job, bucket, span.traceparent)
        except BaseException as error:
            span.end(now_ns(), type(error).__name__)
            raise
        span.set({"http.response.status_code": status})
        span.end(now_ns(), reason)
        return final, reason, status

    async def _room(self) -> None:
        """What is past must not take the memory that what comes now needs: answers wait in it for Redis, too."""
        budget = self._producer.budget
        while budget.used > ROOM_SHARE * budget.limit:  # noqa: ASYNC110 - nobody tells of it, and it is rare
            await asyncio.sleep(ROOM_LOOK)

    async def _once(
        self, session: aiohttp.ClientSession, job: Job, bucket: Budget, trace: str = ""
    ) -> tuple[bool, str, int]:
        """(final?, why not, HTTP status or 0): ``(True, "", 200)`` is an answer in the stream."""
        request = job.request
        sent, began = now_ns(), monotonic()
        try:
            async with session.get(request.url, params=dict(request.params)) as answer:
                body = await read_body(answer, MAX_BODY)
                status, headers = answer.status, answer.headers
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.problem = f"{host_of(request.url)}: {type(error).__name__}"
            self._log.warning(
                "rest.failed", host=host_of(request.url), kind=request.kind, error=type(error).__name__, **_named(job)
            )
            metrics.rest_requests.labels(request.kind, "unreachable").inc()
            return False, f"{type(error).__name__} from {host_of(request.url)}", 0
        at = now_ns()
        if len(body) > MAX_BODY:
            return True, f"the answer is larger than {MAX_BODY} bytes", 0
        limits = self._rest.read_limits(status, headers, body)
        if limits.used_weight is not None and request.bucket == "weight":
            bucket.correct(self._limits.request_weight * HEADROOM - limits.used_weight, monotonic() - began)
        metrics.rest_requests.labels(request.kind, str(status)).inc()
        if 200 <= status < 300:
            self.problem = ""
            if job.taken is not None:
                if not job.taken.done():
                    job.taken.set_result(body)
                return True, "", status
            found = control.RestAnswer(
                job.command, request.kind, request.symbol, request.native, status, sent, body, trace
            )
            self._producer.answer(found, at)
            return True, "", status
        reason = f"HTTP {status} from {host_of(request.url)}: {body[:120].decode('utf-8', 'replace')}"
        self.problem = reason
        self._log.warning("rest.refused", host=host_of(request.url), kind=request.kind, status=status, **_named(job))
        if status in (418, 429) or limits.retry_after is not None:
            wait = limits.retry_after if limits.retry_after is not None else 60.0
            for each in self._buckets.values():
                each.block(wait)
            return False, reason, 0
        return status < 500, reason, status

    def _bucket(self, name: str) -> Budget:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = other_budget(name, self._fleet)
        return bucket

    def _give_up(self, job: Job, reason: str, status: int = 0) -> None:
        metrics.rest_requests.labels(job.request.kind, "given_up").inc()
        self._log.warning(
            "rest.given_up", kind=job.request.kind, symbol=job.request.symbol, reason=reason[:200], **_named(job)
        )
        if job.taken is not None:
            if not job.taken.done():
                job.taken.set_exception(RestUnanswered(reason[:200]))
            return
        self._producer.record(control.RestFailed(job.command, job.request.symbol, reason[:200], status))


def _named(job: Job) -> dict[str, str]:
    """Whose request it is, for the log."""
    named = {"command": job.command} if job.command else {}
    return named | {"trace_id": trace_id(job.trace)} if job.trace else named


def _span(job: Job) -> Span:
    """Of one try at a command's request. How long it stood in the line and waited for budget is an attribute."""
    request = job.request
    attributes: dict[str, Value] = {
        "server.address": host_of(request.url),
        "feedmill.command": job.command,
        "feedmill.kind": request.kind,
        "feedmill.symbol": request.symbol,
        "feedmill.waited_seconds": round(monotonic() - job.asked, 6),
    }
    return TRACES.begin("ask venue", now_ns(), "client", attributes, job.trace)


def other_budget(name: str, fleet: Fleet | None) -> Budget:
    """A budget that a venue names and its limits do not describe."""
    return TokenBucket(*OTHER_BUDGET) if fleet is None else fleet.bucket(name, *OTHER_BUDGET)


def weight_budget(limits: VenueLimits, share: float, fleet: Fleet | None) -> Budget:
    """The budget of the venue's request weight."""
    if fleet is not None and limits.weight_windows:
        doubtful = (HEADROOM - TOLD_SHARE) * limits.request_weight
        return fleet.windows("weight", limits.request_weight * TOLD_SHARE, limits.request_window, doubtful)
    limit = max(1.0, limits.request_weight * share)
    if fleet is not None:
        return fleet.within("weight", limit, limits.request_window)
    return TokenBucket.within(limit, limits.request_window)
