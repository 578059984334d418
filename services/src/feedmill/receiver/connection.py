"""One WebSocket: the hot path from the socket to the packer, and nothing else of the venue.

A frame that starts with one of the venue's data prefixes is data for sure: it is stamped and kept. Everything else
(acknowledgements, heartbeats, control frames, fragments) takes the slow path. Frames of one read are handed over
together, right after the read; see ``pacing`` for when reading rests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import ssl
import time
from collections.abc import Callable
from typing import Any

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from feedmill.receiver import metrics
from feedmill.receiver.pacing import BEHIND, Pacer, unread
from feedmill.receiver.session import Producer
from feedmill.resources.types import BatchingMode

_logger = logging.getLogger("picows.feedmill")
_logger.setLevel(logging.CRITICAL)  # what happens to a connection is told by its supervisor, once
MAX_CONTROL_FRAME = 125
"""Bytes: RFC 6455. Longer frames are never ping, pong or close."""

Judge = Callable[[bytes], tuple[bool, Callable[[], None] | None]]


def hung_up(descriptor: int) -> bool:
    """Whether the system says that the socket had an error or that both directions have ended."""
    if descriptor < 0:
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


class Connection(WSListener):
    """A listener of picows and the state of its socket.

    ``judge(payload)`` sees each complete message without data prefix and gives (keep it?, what to do then or None);
    the second runs after the message was kept, so that records which follow from it come after it.
    """

    def __init__(
        self,
        number: int,
        producer: Producer,
        prefixes: tuple[bytes, ...],
        pacer: Pacer,
        judge: Judge,
        *,
        max_message: int,
        on_ping: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.number = number
        self.producer = producer
        self.pacer = pacer
        self.transport: WSTransport | None = None
        self.last_frame = time.monotonic()
        """Monotonic time of the last read that gave a frame of any kind, pings included."""
        self.last_data = 0.0
        self.first_data = 0.0
        self.received = 0
        self.sample: Callable[[list[bytes], float], None] = lambda frames, now: None
        """Sees the data frames of each read, for freshness."""
        self.on_open: Callable[[], None] = lambda: None
        """Called when the handshake is done, before any frame."""
        self.close_code: int | None = None
        self.close_reason = ""
        self.trouble = ""
        """Why this side ended the connection (a bound, a protocol error)."""
        self.closed = asyncio.Event()
        self.got_data = asyncio.Event()
        self._judge = judge
        self._on_ping = on_ping
        self._max_message = max_message
        self._abandoned = False
        self._held = False
        self.holds = 0
        """How often reading was held."""
        self._resting: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._descriptor = -1
        self._build(prefixes)

    def _build(self, prefixes: tuple[bytes, ...]) -> None:
        # A closure instead of a method: its variables are found at half the price of attributes, a million times a
        # minute. ``prefixes`` is emptied while a message arrives in fragments, so that all of it goes the slow way.
        times: list[int] = []
        frames: list[bytes] = []
        fragments: list[bytes] = []
        pacer = self.pacer
        add_time, add_frame = times.append, frames.append
        now_ns, monotonic, call_soon = time.time_ns, time.monotonic, self._loop.call_soon
        scheduled = False
        at_once = pacer.at_once
        prefix = prefixes
        number = self.number
        producer = self.producer

        def on_ws_frame(transport: WSTransport, frame: WSFrame) -> None:
            nonlocal scheduled
            payload = frame.get_payload_as_bytes()
            if payload.startswith(prefix) and frame.fin and len(payload) > MAX_CONTROL_FRAME:
                add_frame(payload)
                add_time(now_ns())
            else:
                slow(transport, frame, payload)
            if at_once:
                # Latency: one trip through the event loop less; a read is mostly one frame then.
                if frame.last_in_buffer:
                    after_read()
            elif not scheduled:
                scheduled = True
                call_soon(after_read)

        def pace() -> None:
            nonlocal at_once
            at_once = pacer.at_once

        def hand_over() -> None:
            if frames:
                self.received += len(frames)
                producer.add_frames(number, times[:], frames[:])
                times.clear()
                frames.clear()

        def after_read() -> None:
            nonlocal scheduled
            scheduled = False
            now = monotonic()
            self.last_frame = now
            count = len(frames)
            if count:
                if not self.last_data:
                    self.first_data = now
                    self.got_data.set()
                self.last_data = now
                self.sample(frames, now)
                hand_over()
            producer.pump()
            rest = pacer.after_read(count, now)
            if rest and count:
                self._rest(rest)

        def slow(transport: WSTransport, frame: WSFrame, payload: bytes) -> None:
            nonlocal prefix
            kind = frame.msg_type
            if kind is WSMsgType.PING:
                transport.send_pong(payload)
                self._on_ping()
            elif kind is WSMsgType.PONG:
                pass
            elif kind is WSMsgType.CLOSE:
                self._on_close(transport, frame)
            elif kind is WSMsgType.CONTINUATION or not frame.fin:
                fragments.append(payload)
                if sum(map(len, fragments)) > self._max_message:
                    fragments.clear()
                    metrics.oversized.inc()
                    self._give_up(f"a fragmented message above {self._max_message} bytes")
                elif frame.fin:
                    whole = b"".join(fragments)
                    fragments.clear()
                    prefix = prefixes
                    message(whole)
                else:
                    prefix = ()
            else:
                message(payload)

        def message(payload: bytes) -> None:
            keep, then = True, None
            if not payload.startswith(prefixes):
                keep, then = self._judge(payload)
            if keep:
                add_frame(payload)
                add_time(now_ns())
            if then is not None:
                hand_over()
                then()

        self.on_ws_frame = on_ws_frame  # type: ignore[method-assign]
        self._finish = after_read
        self._pace = pace

    # life
    async def open(self, url: str, *, timeout: float, ssl_context: ssl.SSLContext | None) -> None:
        """Connect and shake hands; raises what ``causes.explain`` reads (OSError, ssl.SSLError, picows errors, ...)."""
        try:
            async with asyncio.timeout(timeout):
                await ws_connect(
                    lambda: self,
                    url,
                    ssl_context=ssl_context,
                    websocket_handshake_timeout=timeout,
                    enable_auto_pong=False,
                    max_frame_size=self._max_message,
                    read_buffer_init_size=64 * 1024,
                    max_redirects=0,
                    logger_name=_logger,
                )
        except BaseException:
            # picows may still be shaking hands: should it succeed, the socket is dropped at once.
            self._abandoned = True
            self.close(graceful=False)
            raise
        if self.transport is None:
            raise ConnectionResetError("the server closed the connection during the handshake")

    def on_ws_connected(self, transport: WSTransport) -> None:
        if self._abandoned:
            transport.disconnect(False)
            return
        self.transport = transport
        self.last_frame = time.monotonic()
        socket = transport.underlying_transport.get_extra_info("socket")
        self._descriptor = -1 if socket is None else socket.fileno()
        self.on_open()
        if self._held:
            transport.underlying_transport.pause_reading()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._finish()
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self.closed.set()

    def send(self, payload: bytes) -> None:
        """Send a text message; nothing happens when the socket is gone."""
        if self.transport is not None and not self.closed.is_set():
            self.transport.send(WSMsgType.TEXT, payload)

    def close(self, *, graceful: bool) -> None:
        """End the connection now. What was read is kept; ``closed`` follows."""
        transport = self.transport
        if transport is None or self.closed.is_set():
            self.closed.set()
            return
        if graceful:
            transport.send_close(WSCloseCode.OK)
        transport.disconnect(graceful)

    async def farewell(self, timeout: float = 1.0) -> None:
        """Send the close frame and read on until the other side's: what it had sent before is kept."""
        if self.transport is None or self.closed.is_set():
            return
        self.transport.send_close(WSCloseCode.OK)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.closed.wait()

    async def ended(self, timeout: float = 1.0) -> str:
        """Wait for the end (after :meth:`close`; forced after ``timeout`` seconds); gives what picows says about it."""
        transport = self.transport
        if transport is None:
            return self.trouble
        try:
            async with asyncio.timeout(timeout):
                await transport.wait_disconnected()
        except TimeoutError:
            transport.disconnect(False)
            await self.closed.wait()
        except Exception as error:
            self.trouble = self.trouble or f"{type(error).__name__}: {error}"[:200]
        return self.trouble

    def flush(self) -> None:
        """Hand over what was read and not yet handed over."""
        self._finish()

    def pace(self, mode: BatchingMode, max_age: float) -> None:
        """Another rule of resting and handing over from the next read on."""
        self.pacer.change(mode, max_age)
        self._pace()

    def _on_close(self, transport: WSTransport, frame: WSFrame) -> None:
        self.close_code = frame.get_close_code().value
        self.close_reason = (frame.get_close_message() or b"").decode("utf-8", "replace")[:200]
        transport.send_close(frame.get_close_code(), frame.get_close_message())
        transport.disconnect()

    def _give_up(self, why: str) -> None:
        self.trouble = why
        self.close(graceful=False)

    # reading rests
    def hold(self, held: bool) -> None:
        """Stop reading (memory is used up) or go on."""
        if held == self._held:
            return
        self._held = held
        self.holds += held
        self.last_frame = time.monotonic()
        self._apply()

    @property
    def held(self) -> bool:
        return self._held

    def revive(self) -> None:
        """Begin reading anew on a socket that was reset; to be called now and then.

        uvloop gives a reader one last turn when a socket reports an error, then drops it. If that turn found data, the
        error after it is never read: the connection would look quiet until the silence timeout.
        """
        if self.transport is None or self.closed.is_set() or self._held or self._resting is not None:
            return
        if hung_up(self._descriptor):
            underlying: Any = self.transport.underlying_transport
            underlying.pause_reading()
            underlying.resume_reading()

    def _rest(self, seconds: float) -> None:
        if self._resting is not None or self._held or self.closed.is_set():
            return
        if unread(self._descriptor) > BEHIND:
            return
        self._resting = self._loop.call_later(seconds, self._rested)
        self._apply()

    def _rested(self) -> None:
        self._resting = None
        self._apply()

    def _apply(self) -> None:
        if self.transport is None or self.closed.is_set():
            return
        underlying: Any = self.transport.underlying_transport
        if self._held or self._resting is not None:
            underlying.pause_reading()
        else:
            underlying.resume_reading()
