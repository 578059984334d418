"""TLS to PostgreSQL for its own programs: the ones that come as a wheel are built without.

A Unix socket in a folder of ours is listened on; each connection to it is passed on to the server, encrypted and
checked as the URL's sslmode says. The password goes through as the protocol has it and is not looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import struct
import tempfile
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

_SSL_REQUEST = struct.pack("!II", 8, 80877103)
_CONNECT = 10.0
"""Seconds."""
_PIECE = 1 << 16
_LOCAL = ("localhost", "127.0.0.1", "::1", "")


class TlsRefused(ConnectionError):
    """The server has no TLS, or its certificate is not the one that is wanted."""


def wanted(variables: Mapping[str, str]) -> bool:
    """Whether connections that are made with these variables of libpq need a tunnel."""
    mode, host = variables.get("PGSSLMODE", "prefer"), variables.get("PGHOST", "")
    if mode in ("disable", "allow") or host.startswith("/"):
        return False
    return mode != "prefer" or any(name not in _LOCAL for name in host.split(","))


def context_of(variables: Mapping[str, str]) -> ssl.SSLContext:
    """As libpq understands sslmode. Raises OSError and ssl.SSLError for files that cannot be used."""
    mode, roots = variables.get("PGSSLMODE", "prefer"), variables.get("PGSSLROOTCERT")
    context = ssl.create_default_context(cafile=roots)
    context.check_hostname = mode == "verify-full"
    if mode in ("prefer", "require") and (not roots or mode == "prefer"):
        context.verify_mode = ssl.CERT_NONE
    if certificate := variables.get("PGSSLCERT"):
        context.load_cert_chain(certificate, variables.get("PGSSLKEY"))
    return context


@contextlib.asynccontextmanager
async def tunnel(variables: Mapping[str, str]) -> AsyncGenerator[dict[str, str], None]:
    """The same variables, leading through a tunnel. Raises OSError, ssl.SSLError for files that cannot be used."""
    gate = _Gate(variables)
    folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="feedmill-tls-")
    try:
        server = await asyncio.start_unix_server(gate.serve, Path(folder) / ".s.PGSQL.5432")
        try:
            given = {name: value for name, value in variables.items() if not name.startswith("PGSSL")}
            yield given | {"PGHOST": folder, "PGPORT": "5432", "PGSSLMODE": "disable"}
        finally:
            server.close()
            await gate.end()
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


class _Gate:
    def __init__(self, variables: Mapping[str, str]) -> None:
        self._mode = variables.get("PGSSLMODE", "prefer")
        self._context = context_of(variables)
        ports = variables.get("PGPORT", "5432").split(",")
        hosts = variables.get("PGHOST", "localhost").split(",")
        self._places = [(host, int(ports[at] if len(ports) > 1 else ports[0])) for at, host in enumerate(hosts)]
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a program."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()
            self._serving.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await self._reach()
        except (OSError, TimeoutError, ssl.SSLError) as error:
            # As a server would refuse: the program tells it as the reason of its own failure.
            said = f"{error}" or type(error).__name__
            body = b"SFATAL\0C08006\0M" + said.encode().replace(b"\0", b"") + b"\0\0"
            with contextlib.suppress(OSError):
                writer.write(b"E" + struct.pack("!I", len(body) + 4) + body)
                await writer.drain()
            return
        server_reader, server_writer = there
        pumps = [
            asyncio.create_task(_pump(reader, server_writer), name="to the server"),
            asyncio.create_task(_pump(server_reader, writer), name="from the server"),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            server_writer.close()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The first of the hosts that can be connected to."""
        failed: Exception | None = None
        for host, port in self._places:
            try:
                async with asyncio.timeout(_CONNECT):
                    return await self._connect(host, port)
            except TlsRefused:
                raise
            except (OSError, TimeoutError) as error:
                failed = error
        raise failed or ConnectionError("no host")

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(_SSL_REQUEST)
            answer = await reader.readexactly(1)
            if answer == b"S":
                await writer.start_tls(self._context, server_hostname=host)
            elif self._mode != "prefer":
                raise TlsRefused(f"{host}: the server has no TLS, and sslmode is {self._mode}: change one of them")
        except ssl.SSLError as error:
            writer.close()
            raise TlsRefused(f"{host}: TLS failed: {error}") from error
        except asyncio.IncompleteReadError as error:
            writer.close()
            raise ConnectionError(f"{host}: the server ended the connection") from error
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def end(self) -> None:
        """Cut what is open."""
        tasks = list(self._serving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on until the end, at the pace of the slower side."""
    try:
        while piece := await source.read(_PIECE):
            sink.write(piece)
            await sink.drain()
    except (OSError, ssl.SSLError):
        pass  # One side has gone: the other is told by the end of its stream.
    with contextlib.suppress(OSError):
        sink.close()
