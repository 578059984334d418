"""One WebSocket of a client: frames written once a tick, with flow control and the faults of a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import Enum
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from feedmill.simulator.limits import Window
from feedmill.simulator.topics import Topic
from feedmill.simulator.wire import close_frame, ping_frame, pong_frame, text_frame

if TYPE_CHECKING:
    from feedmill.simulator.venue import Venue

CLOSE_WAIT = 2.0
"""Seconds a client has to answer a close frame."""


class Mode(Enum):
    NORMAL = "normal"
    SILENT = "silent"
    """Nothing is sent any more, pings and answers included; the socket stays open and is read."""
    HALF_OPEN = "half_open"
    """As if the path were gone: nothing is sent, nothing is read, no close is answered."""
    SLOW = "slow"
    """What is sent arrives late."""


class Connection:
    """``parts`` collects frames until :meth:`flush`. Times are ``loop.time()`` seconds."""

    def __init__(self, venue: Venue, socket_: web.WebSocketResponse, request: web.Request, number: int) -> None:
        assert request.transport is not None
        self.venue = venue
        self.number = number
        self.address = request.remote or ""
        self.request = request
        self.parts: list[bytes] = []
        self.topics: dict[str, Topic] = {}
        """Subscribed name -> topic (None-yielding names are in ``silent_names``)."""
        self.silent_names: set[str] = set()
        """Acknowledged, but nothing will ever come."""
        self.state: dict[str, Any] = {}
        """The protocol's own."""
        self.mode = Mode.NORMAL
        self.closing = False
        self.loop = asyncio.get_running_loop()
        self.opened = self.last_in = self.last_out = self._pinged = self.loop.time()
        self._unanswered: float | None = None
        """When the oldest PING without a PONG was sent."""
        self.undelivered = 0
        self.rate = Window(venue.limits.messages_per_second, 1.0) if venue.limits.messages_per_second else None
        self._socket = socket_
        self._transport: asyncio.Transport = request.transport
        self._mode_until: float | None = None
        self.doomed_at: float | None = None
        """When a fault ends it (loop time)."""
        self._delay = 0.0
        self._next_flush = 0.0
        self._dead = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self._transport.is_closing()

    def cut_off(self) -> bool:
        return self.mode is Mode.HALF_OPEN

    @property
    def unsent(self) -> int:
        """Bytes given to the transport that the client has not taken."""
        return 0 if self.closed else self._transport.get_write_buffer_size()

    def send(self, payload: str) -> None:
        """Send a text message now, after what was collected before it."""
        self.parts.append(text_frame(payload.encode()))
        self.flush()

    def flush(self) -> None:
        parts = self.parts
        if not parts:
            return
        if self.mode is not Mode.NORMAL and not self._may_flush():
            return
        if self.closing or self._transport.is_closing():
            self.undelivered += len(parts)
            parts.clear()
            return
        self.last_out = self.loop.time()
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > self.venue.limits.buffer_bytes:
            self.venue.too_slow(self)

    def _may_flush(self) -> bool:
        if self.mode is Mode.SLOW:
            now = self.loop.time()
            if now < self._next_flush:
                if sum(map(len, self.parts)) > self.venue.limits.buffer_bytes:
                    self.venue.too_slow(self)
                return False
            self._next_flush = now + self._delay
            return True
        self.undelivered += len(self.parts)
        self.parts.clear()
        return False

    def set_mode(self, mode: Mode, seconds: float | None, delay: float = 0.0) -> None:
        self.mode = mode
        self._mode_until = None if seconds is None else self.loop.time() + seconds
        self._delay = delay
        self._next_flush = self.loop.time() + delay

    def housekeep(self, now: float) -> None:
        """Pings, their deadline, the lifetime and the end of a fault; called several times a second."""
        if self.closed:
            self._dead.set()
            return
        if self._mode_until is not None and now >= self._mode_until:
            self.mode, self._mode_until = Mode.NORMAL, None
        limits = self.venue.limits
        if self.closing or self.mode in (Mode.SILENT, Mode.HALF_OPEN):
            return
        if limits.ping_interval:
            if self._unanswered is not None and now - self._unanswered > limits.pong_timeout:
                self.venue.count("closed", "no_pong")
                self.close(1008, "pong timeout")
                return
            if now - self._pinged >= limits.ping_interval:
                self._pinged = now
                self._unanswered = now if self._unanswered is None else self._unanswered
                self._transport.write(ping_frame(str(self.venue.now_ns() // 1_000_000).encode()))
        if self.doomed_at is not None and now >= self.doomed_at:
            self.venue.announce_cut(self, True)
            return
        if limits.lifetime and now - self.opened >= limits.lifetime - limits.shutdown_lead:
            self.venue.announce_cut(self, now - self.opened >= limits.lifetime)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """The closing handshake from our side; the socket is dropped when the client does not answer."""
        if self.closing or self.closed:
            return
        if self.mode in (Mode.SILENT, Mode.HALF_OPEN):
            self.abort()
            return
        self.mode = Mode.NORMAL
        self.flush()
        self.closing = True
        self._transport.write(close_frame(code, reason))
        self.loop.call_later(CLOSE_WAIT, self._drop)

    def abort(self) -> None:
        """Reset the connection: no close frame, no FIN."""
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop()

    def _drop(self) -> None:
        self._transport.abort()
        self._dead.set()

    async def read(self) -> None:
        """Handle what the client sends until the connection ends."""
        receive: asyncio.Task[Any] | None = None
        dead = asyncio.create_task(self._dead.wait())
        try:
            while not self._dead.is_set():
                if self.cut_off():
                    await asyncio.wait({dead}, timeout=0.05)
                    continue
                receive = receive or asyncio.create_task(self._socket.receive())
                await asyncio.wait({receive, dead}, return_when=asyncio.FIRST_COMPLETED)
                if self.cut_off() or not receive.done():
                    continue
                message, receive = receive.result(), None
                if not self._take(message.type, message.data):
                    return
        finally:
            for task in (receive, dead):
                if task is not None:
                    task.cancel()

    def _take(self, kind: WSMsgType, data: Any) -> bool:
        if kind in (WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR):
            self._transport.close()
            return False
        now = self.loop.time()
        self.last_in = now
        if kind is WSMsgType.CLOSE:
            if not self.closing:
                self.flush()
                code = data if isinstance(data, int) and data not in (0, 1005) else 1000
                if not self.closed:
                    self._transport.write(close_frame(code))
            self._transport.close()
            return False
        if self.closing:
            return True
        if self.rate is not None and not self.rate.take(now):
            self.venue.count("closed", "too_many_messages")
            self.close(1008, "Too many requests")
            return True
        if kind is WSMsgType.PING:
            if self.mode is not Mode.SILENT and not self.closed:
                self._transport.write(pong_frame(data))
        elif kind is WSMsgType.PONG:
            # An empty unsolicited PONG does not keep a connection alive: only a copy of the PING's payload does.
            if data:
                self._unanswered = None
        else:
            text = data if isinstance(data, str) else bytes(data).decode("utf-8", "replace")
            self.venue.on_message(self, text)
        return True
