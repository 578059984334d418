"""The loopback exchange against real TLS clients: HTTP, handshake, subscriptions, pings, pacing and blasting."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from bench import tls
from bench.frames import SYMBOLS
from bench.processes import BenchError, Child
from bench.stamps import BASE_ID, Stamps

STREAMS = [f"{symbol.replace('-', '').lower()}@trade" for symbol in SYMBOLS]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tls.Certificate:
    return tls.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def exchange(certificate: tls.Certificate, tmp_path: Path) -> Iterator[Child]:
    command: list[str | Path] = [sys.executable, "-m", "bench.server", "--symbols", ",".join(SYMBOLS)]
    command += ["--cert", certificate.cert, "--key", certificate.key]
    with Child("exchange", command, log=tmp_path / "exchange.log", lines=True) as child:
        yield child


async def event(exchange: Child, name: str) -> dict[str, object]:
    return await asyncio.to_thread(exchange.wait_event, name, timeout=60)


def trusting(certificate: tls.Certificate) -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(certificate.ca)))


async def load(exchange: Child, path: Path, count: int) -> Stamps:
    stamps = Stamps(path, count=count)
    exchange.say(do="load", stamps=str(path))
    await event(exchange, "loaded")
    return stamps


async def read_ids(socket: aiohttp.ClientWebSocketResponse, count: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    while len(found) < count:
        message = json.loads((await socket.receive(timeout=60)).data)
        if "stream" in message:
            found.append((message["data"]["s"], message["data"]["t"]))
    return found


async def test_streams_in_the_url_paced(exchange: Child, certificate: tls.Certificate, tmp_path: Path) -> None:
    port = (await event(exchange, "listening"))["port"]
    stamps = await load(exchange, tmp_path / "sent", 200)
    async with aiohttp.ClientSession(connector=trusting(certificate)) as session:
        async with session.get(f"https://127.0.0.1:{port}/api/v3/exchangeInfo") as answer:
            assert len((await answer.json())["symbols"]) == len(SYMBOLS)
        async with session.get(f"https://127.0.0.1:{port}/api/v3/unknown") as answer:
            assert answer.status == 404
        url = f"wss://127.0.0.1:{port}/stream?streams={'/'.join(STREAMS)}"
        async with session.ws_connect(url) as socket:
            await event(exchange, "subscribed")
            exchange.say(do="go", rate=2000, clump=5)
            started = await event(exchange, "started")
            found = await read_ids(socket, 200)
            done = await event(exchange, "done")
    assert found == [(SYMBOLS[k % 4].replace("-", ""), BASE_ID + k // 4) for k in range(200)]
    times = list(stamps.times)
    assert times == sorted(times)
    assert times[0] > 0
    assert stamps.sent == 200
    assert done["sent"] == 200
    # 200 at 2,000/s in clumps of 5: the last clump is due 39 clumps (97.5 ms) after the beginning; the first one, which
    # is due at once, may be late where the machine is busy.
    assert times[-1] - int(str(started["at"])) >= 97_500_000
    stamps.close()


async def test_subscribed_later_pinged_and_blasted(
    exchange: Child, certificate: tls.Certificate, tmp_path: Path
) -> None:
    port = (await event(exchange, "listening"))["port"]
    stamps = await load(exchange, tmp_path / "sent", 1001)
    async with (
        aiohttp.ClientSession(connector=trusting(certificate)) as session,
        session.ws_connect(f"wss://127.0.0.1:{port}/stream", autoping=False) as socket,
    ):
        await socket.send_json({"method": "SUBSCRIBE", "params": STREAMS[:2], "id": 1})
        assert json.loads((await socket.receive(timeout=60)).data) == {"result": None, "id": 1}
        await socket.send_json({"method": "SUBSCRIBE", "params": STREAMS[2:], "id": 2})
        assert json.loads((await socket.receive(timeout=60)).data) == {"result": None, "id": 2}
        assert (await event(exchange, "subscribed"))["streams"] == STREAMS
        await socket.ping(b"hello")
        pong = await socket.receive(timeout=60)
        assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"hello")
        exchange.say(do="go", rate=0, bulk=64)
        assert len(set(await read_ids(socket, 1001))) == 1001
        assert (await event(exchange, "done"))["sent"] == 1001
    assert all(stamps.times)
    stamps.close()


async def test_a_client_that_leaves_makes_the_run_fail(
    exchange: Child, certificate: tls.Certificate, tmp_path: Path
) -> None:
    port = (await event(exchange, "listening"))["port"]
    stamps = await load(exchange, tmp_path / "sent", 100_000)
    async with aiohttp.ClientSession(connector=trusting(certificate)) as session:
        async with session.ws_connect(f"wss://127.0.0.1:{port}/stream?streams={'/'.join(STREAMS)}") as socket:
            await event(exchange, "subscribed")
            exchange.say(do="go", rate=1000)
            await event(exchange, "started")
            await read_ids(socket, 10)
        with pytest.raises(BenchError, match="client went away"):
            await event(exchange, "done")
    stamps.close()
