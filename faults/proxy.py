"""A TCP proxy between services and a server, that can cut, refuse, stall and slow what goes through it."""

from __future__ import annotations

import asyncio
import contextlib
from enum import StrEnum


class Mode(StrEnum):
    OPEN = "open"
    CUT = "cut"
    """Connections are aborted, new ones too."""
    STALL = "stall"
    """Connections stand and are accepted, and nothing goes through: the network is gone without a word."""
    SLOW = "slow"
    """Every piece waits before it goes on."""


PIECE = 1 << 18
DELAY = 0.05
"""Seconds a piece waits in mode SLOW."""


class Proxy:
    """Listens on a port of its own; ``target`` may change, for connections to come."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.port = 0
        self.connections = 0
        """Accepted so far."""
        self.mode = Mode.OPEN
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=PIECE)
        self.port = self._server.sockets[0].getsockname()[1]

    def set(self, mode: Mode) -> None:
        self.mode = mode
        if mode is Mode.STALL:
            self._open.clear()
        else:
            self._open.set()
        if mode is Mode.CUT:
            self.drop()

    def drop(self) -> None:
        """Abort what is connected."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._open.set()
        self.drop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            if self.mode is Mode.CUT:
                return
            await self._open.wait()
            back, there = await asyncio.open_connection(*self.target, limit=PIECE)
            self._writers.add(there)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, there))
                group.create_task(self._pass_on(back, writer))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # Only stop() cancels it, and asyncio's streams cannot bear a handler that was cancelled.
        finally:
            for each in (writer, there):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        """One direction, until its end; then the whole connection ends."""
        while data := await source.read(PIECE):
            if self.mode is Mode.SLOW:
                await asyncio.sleep(DELAY)
            await self._open.wait()
            to.write(data)
            await to.drain()
        with contextlib.suppress(OSError):
            await asyncio.wait_for(to.drain(), 1.0)
        raise ConnectionResetError
