"""What every simulated venue is: a server, its connections, its clock, its tick, its ledger and its faults."""

from __future__ import annotations

import asyncio
import ssl
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Protocol

from aiohttp import web

from feedmill.simulator.accounts.side import PrivateSide, write_keys_aside
from feedmill.simulator.config import (
    ConfigError,
    Limits,
    SimulatorConfig,
    VenueConfig,
    change_limits,
    default_limits,
)
from feedmill.simulator.connection import Connection, Mode
from feedmill.simulator.faults import REST_KINDS, SOCKET_KINDS, TOPIC_KINDS, Fault, FaultBoard, RestFault, fault_from
from feedmill.simulator.ledger import Ledger
from feedmill.simulator.limits import Window
from feedmill.simulator.topics import Topic

HOUSEKEEPING = 0.05
"""Seconds between two looks at pings, lifetimes and ends of faults."""
HAND_OVER = 0.1
"""Seconds between two hand-overs of ledger lines."""
BLAST_ROOM = 2 * 1024 * 1024
"""At rate 0 nothing is made while a client has this many unsent bytes."""


class Source(Protocol):
    """Where messages come from: the generator or a recording."""

    topics: dict[tuple[str, str], Topic]

    def topic(self, native: str, kind: str) -> Topic | None: ...

    def want(self, topic: Topic) -> None: ...

    def tick(self, now_ms: int, elapsed: float) -> None: ...

    def finish(self, now_ms: int) -> None: ...

    def forget(self, symbol: str) -> int:
        """REST no longer has the trades sent so far, of ``symbol`` or of all; answers of how many instruments."""

    def list_new(self, symbol: str, expiry_ms: int) -> int:
        """The venue lists one more instrument; answers how many are new."""

    def expire(self, symbol: str) -> int:
        """An instrument ends; answers how many did."""


_COUNTED = ("connects", "subscribes", "closed", "rest", "rest_status", "rest_limited", "refused", "faults")
"""What is counted, as it is shown."""


class Venue(ABC):
    """One venue. ``stop_emitting`` ends the flow of messages; the server answers on."""

    source: Source
    private: PrivateSide

    def __init__(self, config: VenueConfig, simulator: SimulatorConfig) -> None:
        self.config = config
        self.simulator = simulator
        self.limits: Limits = config.limits or default_limits(config.venue)
        self.seed = simulator.seed
        self.id_base = simulator.id_base
        self.ledger = Ledger(simulator.ledger, config.venue)
        self.board = FaultBoard(self.log_fault)
        self.connections: dict[int, Connection] = {}
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.emitting = True
        self.skew_ns = 0
        self.port = 0
        self.scheme_tls = simulator.tls
        self._pending_faults: list[Fault] = []
        self._numbers = 0
        self._connects: dict[str, Window] = {}
        self._runner: web.AppRunner | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_ms = 0
        self.failure: BaseException | None = None
        self.beside: list[Venue] = [self]
        """All venues of this simulator."""

    # -- life

    async def start(self, tls: ssl.SSLContext | None) -> None:
        app = web.Application(client_max_size=1 << 20, middlewares=[self._rest_faults])
        app.router.add_post("/_sim/fault", self._admin_fault)
        app.router.add_post("/_sim/stop", self._admin_stop)
        app.router.add_post("/_sim/limits", self._admin_limits)
        app.router.add_get("/_sim/stats", self._admin_stats)
        app.router.add_get("/_sim/health", self._admin_health)
        self.private.add_admin(app.router)
        self.add_routes(app.router)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.simulator.host, self.config.port, ssl_context=tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._task = asyncio.create_task(self._run(), name=f"simulator {self.config.venue}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for connection in list(self.connections.values()):
            connection.flush()
            connection.close(1001, "simulator stopped")
        if self._runner is not None:
            await self._runner.cleanup()
        await self.ledger.close()

    @property
    def stream(self) -> str:
        return f"{'wss' if self.scheme_tls else 'ws'}://{self.simulator.host}:{self.port}"

    @property
    def rest(self) -> str:
        return f"{'https' if self.scheme_tls else 'http'}://{self.simulator.host}:{self.port}"

    # -- clock

    def now_ns(self) -> int:
        return time.time_ns() + self.skew_ns

    def matching_ms(self) -> int:
        """The matching engine's time: one ms behind what messages show as sent, and never going back."""
        self._last_ms = max(self._last_ms, self.now_ns() // 1_000_000 - 1)
        return self._last_ms

    async def write_keys(self) -> None:
        """The file of keys anew, with those of the other venues of this simulator."""
        path = self.simulator.keys_file
        if path is not None:
            await write_keys_aside(path, [venue.private for venue in self.beside])

    # -- the tick

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        last = housekept = handed = loop.time()
        try:
            while True:
                await asyncio.sleep(self.simulator.tick if self.config.rate else 0)
                now = loop.time()
                if self.emitting:
                    self.private.tick(now - last)
                    if self._room():
                        self.source.tick(self.matching_ms(), now - last)
                last = now
                for connection in list(self.connections.values()):
                    connection.flush()
                if now - housekept >= HOUSEKEEPING:
                    housekept = now
                    for connection in list(self.connections.values()):
                        connection.housekeep(now)
                    self.housekeep(now)
                    self.private.housekeep(self.now_ns() // 1_000_000)
                if now - handed >= HAND_OVER or self.ledger.crowded:
                    handed = now
                    self.ledger.hand_over()
        except Exception as error:
            # A simulator that cannot go on must not look like a quiet market.
            self.failure = error
            self.emitting = False
            for connection in list(self.connections.values()):
                connection.abort()
            raise

    def _room(self) -> bool:
        if self.config.rate:
            return True
        return all(connection.unsent < BLAST_ROOM for connection in self.connections.values())

    def stop_emitting(self, *, finish: bool = False) -> None:
        """End the flow. ``finish`` = one last message on every running topic first, so that every hole shows."""
        if not self.emitting:
            return
        if finish:
            self.source.finish(self.matching_ms())
        self.emitting = False
        for topic in self._topics():
            topic.release()
        for connection in list(self.connections.values()):
            connection.flush()

    async def drained(self) -> None:
        """Return when every connection that takes data has been given all of it, and the ledger is on disk."""
        while any(
            (connection.parts or connection.unsent) and connection.mode in (Mode.NORMAL, Mode.SLOW)
            for connection in self.connections.values()
            if not connection.closed
        ):
            if self.failure is not None:
                raise self.failure
            await asyncio.sleep(0.005)
        await self.ledger.flush()

    # -- what a venue adds

    @abstractmethod
    def add_routes(self, router: web.UrlDispatcher) -> None: ...

    @abstractmethod
    def on_message(self, connection: Connection, text: str) -> None: ...

    @abstractmethod
    def rest_fault(self, fault: RestFault) -> web.Response:
        """The venue's answer for a refused or failed REST request."""

    @abstractmethod
    def leave(self, connection: Connection, name: str, topic: Topic) -> None:
        """Take the connection out of the topic's outlet of this name."""

    @abstractmethod
    def on_open(self, connection: Connection) -> None:
        """A connection opened (its URL may name streams)."""

    @abstractmethod
    def housekeep(self, now: float) -> None:
        """The protocol's own timers."""

    def announce_cut(self, connection: Connection, due: bool) -> None:
        """The connection's lifetime is (nearly) over; ``due`` = cut it now."""
        if due:
            self.count("closed", "lifetime")
            connection.close(1001, "connection lifetime reached")

    def too_slow(self, connection: Connection) -> None:
        """A client does not take what it subscribed to."""
        self.count("closed", "too_slow")
        connection.abort()

    # -- connections

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """Handshake within the limits, then serve until the end."""
        address = request.remote or ""
        window = self._connects.setdefault(address, Window(self.limits.connects, self.limits.connects_window))
        now = asyncio.get_running_loop().time()
        here = sum(1 for connection in self.connections.values() if connection.address == address)
        if not window.take(now) or here >= self.limits.connections:
            self.count("connects", "refused")
            wait = int(window.wait(now)) + 1
            return web.Response(status=429, headers={"Retry-After": str(wait)}, text="Too Many Requests")
        socket = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, max_msg_size=1 << 20)
        await socket.prepare(request)
        self._numbers += 1
        connection = Connection(self, socket, request, self._numbers)
        self.connections[connection.number] = connection
        self.count("connects", "accepted")
        try:
            self.on_open(connection)
            await connection.read()
        finally:
            self._forget(connection)
        return socket

    def _forget(self, connection: Connection) -> None:
        self.connections.pop(connection.number, None)
        for name, topic in connection.topics.items():
            self.leave(connection, name, topic)
        connection.topics.clear()
        connection.parts.clear()

    def subscribed(self, connection: Connection, topics: list[Topic]) -> None:
        """After the acknowledgement: what is armed for this moment strikes."""
        fault = self.board.on_subscribe(topics)
        if fault is not None:
            self._strike(fault, connection)

    def topic_made(self, topic: Topic) -> None:
        """A topic came to be: faults that wait for one like it take hold."""
        for fault in self._pending_faults:
            if fault.matches(topic):
                self.board.strike_topic(fault, topic)

    # -- counting and faults

    def count(self, what: str, which: str) -> None:
        self.counts[what][which] += 1

    def log_fault(self, kind: str, symbol: str, channel: str, detail: str) -> None:
        self.count("faults", kind)
        self.ledger.fault(time.time_ns(), kind, symbol, channel, detail)

    def inject(self, fault: Fault) -> int:
        """Put a fault in force; returns how many topics or connections it hit at once."""
        if fault.kind == "clear":
            self.board.clear()
            self._pending_faults.clear()
            for topic in self._topics():
                topic.release()
            for connection in self.connections.values():
                connection.mode = Mode.NORMAL
            return 0
        if fault.kind == "skew":
            self.skew_ns = int((fault.seconds or 0.0) * 1e9)
            self.log_fault("skew", "", "", f"{fault.seconds} s")
            return 1
        if fault.kind == "expire_session":
            self.log_fault("expire_session", fault.symbol, "Account", "")
            return self.private.expire(fault.symbol)
        if fault.kind == "forget":
            self.log_fault("forget", fault.symbol, "Trades", "")
            return self.source.forget(fault.symbol)
        if fault.kind == "list":
            expiry_ms = 0 if fault.seconds is None else self.matching_ms() + int(fault.seconds * 1000)
            self.log_fault("list", fault.symbol, "", f"expires {expiry_ms or 'as its name says'}")
            return self.source.list_new(fault.symbol, expiry_ms)
        if fault.kind == "expire":
            self.log_fault("expire", fault.symbol, "", "")
            return self.source.expire(fault.symbol)
        if fault.kind in TOPIC_KINDS:
            hit = [topic for topic in self._topics() if topic.started and fault.matches(topic)]
            for topic in hit:
                self.board.strike_topic(fault, topic)
            if not hit:
                self._pending_faults.append(fault)
            return len(hit)
        if fault.kind in REST_KINDS:
            self.board.rest.append(fault)
            return 0
        assert fault.kind in SOCKET_KINDS
        if fault.every:
            self.board.armed.append(fault)
            return 0
        return self._strike_all(fault)

    def _strike_all(self, fault: Fault) -> int:
        everything = not fault.symbol and not fault.channel
        struck = 0
        for connection in list(self.connections.values()):
            if fault.count is not None and struck >= fault.count:
                break
            if connection.closing or connection.closed:
                continue
            if everything or any(fault.matches(topic) for topic in connection.topics.values()):
                self._strike(fault, connection)
                struck += 1
        return struck

    def _strike(self, fault: Fault, connection: Connection) -> None:
        self.log_fault(fault.kind, fault.symbol, fault.channel, f"connection {connection.number}")
        connection.flush()
        if fault.kind == "close":
            connection.close(fault.code, fault.reason)
        elif fault.kind == "abort":
            connection.abort()
        elif fault.kind == "silence":
            connection.set_mode(Mode.SILENT, fault.seconds)
        elif fault.kind == "half_open":
            connection.set_mode(Mode.HALF_OPEN, fault.seconds)
        elif fault.kind == "slow":
            connection.set_mode(Mode.SLOW, fault.seconds, fault.delay)
        else:
            self.announce_cut(connection, False)
            connection.doomed_at = connection.loop.time() + (fault.seconds or 0.0)
            if not fault.seconds:
                self.announce_cut(connection, True)

    @web.middleware
    async def _rest_faults(self, request: web.Request, handler: Any) -> web.StreamResponse:
        path = request.path
        if path.startswith("/_sim/") or request.headers.get("Upgrade", "").lower() == "websocket":
            response: web.StreamResponse = await handler(request)
            return response
        self.count("rest", path)
        fault = self.board.on_rest(path)
        if fault is not None:
            if fault.status:
                self.count("rest_status", str(fault.status))
                return self.rest_fault(fault)
            await asyncio.sleep(fault.delay)
        response = await handler(request)
        self.count("rest_status", str(response.status))
        return response

    # -- admin

    async def _admin_fault(self, request: web.Request) -> web.Response:
        try:
            try:
                fields = await request.json()
            except ValueError as error:
                raise ConfigError(f"the body is not JSON ({error})") from None
            if not isinstance(fields, dict):
                raise ConfigError(f"the body must be a JSON object with the key kind, not {type(fields).__name__}")
            hit = self.inject(fault_from(fields))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"hit": hit})

    def set_limits(self, limits: Limits) -> None:
        """From now on; connections that stand keep their own."""
        self.limits = limits

    async def _admin_limits(self, request: web.Request) -> web.Response:
        try:
            fields = await request.json()
            if not isinstance(fields, dict):
                raise ConfigError('the body must be a JSON object of limits, such as {"weight": 6000}')
            self.set_limits(change_limits(self.limits, fields))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({name: getattr(self.limits, name) for name in fields})

    async def _admin_stop(self, request: web.Request) -> web.Response:
        self.stop_emitting(finish=request.query.get("finish", "") in ("1", "true"))
        await self.drained()
        return web.json_response(self.stats())

    async def _admin_stats(self, _: web.Request) -> web.Response:
        return web.json_response(self.stats())

    async def _admin_health(self, _: web.Request) -> web.Response:
        if self.failure is not None:
            return web.json_response({"status": "failed", "error": str(self.failure)}, status=503)
        return web.json_response({"status": "ok"})

    def stats(self) -> dict[str, Any]:
        """Counts since the start: per channel emitted and delivered messages, connects, subscribes, REST calls."""
        channels: dict[str, dict[str, int]] = {}
        for topic in self._topics():
            entry = channels.setdefault(topic.channel, {"topics": 0, "emitted": 0, "delivered": 0})
            entry["topics"] += topic.started
            entry["emitted"] += topic.emitted
            entry["delivered"] += topic.delivered
        return {
            "venue": self.config.venue,
            "emitting": self.emitting,
            "connections": len(self.connections),
            "channels": channels,
            "private": self.private.stats(),
            **{what: dict(self.counts[what]) for what in _COUNTED},
        }

    def _topics(self) -> Iterable[Topic]:
        return [*self.source.topics.values(), *self.private.topics.values()]
