"""PostgreSQL's programs, which are built without TLS, reach a server that wants it: a real handshake, a real dump."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from feedmill.general.backup.dump import dump, hold
from feedmill.general.backup.programs import ProgramError
from feedmill.simulator.tls import server_context

SSL_REQUEST = struct.pack("!II", 8, 80877103)


class Door:
    """Takes connections as a PostgreSQL with TLS does and passes them on to the real one."""

    def __init__(self, folder: Path, port: int, *, tls: bool) -> None:
        self._context, self.authority = server_context(folder, "127.0.0.1")
        self._port = port
        self._tls = tls
        self.encrypted = 0
        self.plain = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Door:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(8)
            rest = b""
            if first == SSL_REQUEST and self._tls:
                writer.write(b"S")
                await writer.start_tls(self._context)
                self.encrypted += 1
            elif first == SSL_REQUEST:
                writer.write(b"N")
                self.plain += 1
            else:
                rest = first
                self.plain += 1
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
            there_writer.write(rest)
            await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    sink.close()


@pytest.fixture
async def door(tmp_path: Path, depot: Any) -> AsyncIterator[Door]:
    async with Door(tmp_path / "tls", urlsplit(depot.url).port or 0, tls=True) as made:
        yield made


def through(door: Door, url: str, host: str = "localhost", **options: str) -> str:
    parts = urlsplit(url)
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"postgresql://{parts.username}:{parts.password}@{host}:{door.port}{parts.path}?{query}"


async def dumped(depot: Any, url: str) -> bytes:
    async with hold(depot.url) as held:
        return b"".join([piece async for piece in dump(url, held.snapshot)])


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_dump_through_tls(depot: Any, door: Door, mode: str) -> None:
    url = through(door, depot.url, sslmode=mode, sslrootcert=str(door.authority))
    assert (await dumped(depot, url)).startswith(b"PGDMP")
    assert (door.encrypted, door.plain) == (1, 0)


async def test_a_certificate_that_is_not_trusted(depot: Any, door: Door, tmp_path: Path) -> None:
    _, other = server_context(tmp_path / "other", "127.0.0.1")
    with pytest.raises(ProgramError, match=r"TLS failed: .*certificate verify failed"):
        await dumped(depot, through(door, depot.url, sslmode="verify-full", sslrootcert=str(other)))


async def test_a_server_without_tls_is_not_spoken_to_where_it_is_wanted(depot: Any, tmp_path: Path) -> None:
    async with Door(tmp_path / "tls", urlsplit(depot.url).port or 0, tls=False) as door:
        url = through(door, depot.url, sslmode="require")
        with pytest.raises(ProgramError, match="the server has no TLS, and sslmode is require"):
            await dumped(depot, url)


async def test_a_certificate_file_that_is_not_there(depot: Any, door: Door) -> None:
    url = through(door, depot.url, sslmode="verify-full", sslrootcert="/nowhere/ca.pem")
    with pytest.raises(ProgramError, match="certificates cannot be used"):
        await dumped(depot, url)
