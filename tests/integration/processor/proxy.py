"""A TCP proxy before PostgreSQL that loses answers or stops passing anything on."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """``url`` leads through it. ``swallow`` loses what the server answers next; ``hang`` passes nothing on."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.swallow = b""
        """When a client's message holds this, the answer to it is lost and the connection cut."""
        self.swallowed = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        userinfo = self._parts.netloc.rpartition("@")[0]
        return urlunsplit(self._parts._replace(netloc=f"{userinfo}@127.0.0.1:{port}"))

    def hang(self) -> None:
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        self._writers |= {writer, here}
        lost = asyncio.Event()
        for source, target, asks in ((reader, here, True), (there, writer, False)):
            task = asyncio.create_task(self._pass_on(source, target, lost, asks=asks))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, lost: asyncio.Event, *, asks: bool
    ) -> None:
        try:
            while data := await source.read(1 << 16):
                await self._flows.wait()
                if asks and self.swallow and self.swallow in data:
                    self.swallow = b""
                    lost.set()
                if not asks and lost.is_set():
                    # The server has answered: what was asked for is done, and nobody will know.
                    self.swallowed.set()
                    for writer in tuple(self._writers):
                        writer.transport.abort()
                    return
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._flows.set()
        for writer in self._writers:
            writer.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
