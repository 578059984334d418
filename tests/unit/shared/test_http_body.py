"""The body of an answer is read whole, in however many packets it comes."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from feedmill.shared import probe
from feedmill.shared.http_body import read_body
from feedmill.shared.probe import Prober

PIECES = (b'{"a": 1, ', b'"b": "' + b"x" * 70_000, b'"}')
BODY = b"".join(PIECES)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
    """Answers piece by piece: each has been read by the client's loop before the next is written."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n".encode())
    try:
        for piece in PIECES:
            writer.write(piece)
            await writer.drain()
            for _ in range(20):
                await asyncio.sleep(0)
    except ConnectionError:
        pass  # A client that has read enough may be gone before the last piece.
    finally:
        writer.close()
        gone.set()


@pytest.mark.parametrize(("most", "length"), [(1 << 20, len(BODY)), (len(BODY), len(BODY)), (1000, 1001)])
async def test_a_body_is_read_to_its_end_or_its_bound(most: int, length: int) -> None:
    gone = asyncio.Event()
    server = await asyncio.start_server(lambda r, w: serve(r, w, gone), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.1:{port}/") as answer:
            body = await read_body(answer, most)
        await gone.wait()
    assert body == BODY[:length]


async def test_a_health_document_in_several_packets_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT", 60.0)  # How long it takes is not what is tried.
    gone = asyncio.Event()
    server = await asyncio.start_server(lambda r, w: serve(r, w, gone), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    prober = Prober()
    await prober.open()
    async with server:
        documents = await prober.health([port])
        await gone.wait()
    await prober.close()
    assert documents == {port: {"a": 1, "b": "x" * 70_000}}
