"""``make faults`` in its short form: the harness and the promise, in less than a minute."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from faults.catalogue import FAULTS, SHORT
from faults.proxy import Mode, Proxy

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_short_form_holds() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "faults", "--short"], cwd=ROOT, capture_output=True, text=True, timeout=1150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in SHORT:
        (row,) = [line for line in done.stdout.splitlines() if line.startswith(f"| {name} |")]
        values = [value.strip() for value in row.split("|")[1:-1]]
        at, enough = (2, 50) if name.startswith("account-") else (1, 500)
        assert int(values[at].replace(",", "")) > enough, "there was a flow"
        assert values[-1] == "yes"
    assert f"{len(SHORT)} of {len(SHORT)} hold" in done.stdout
    assert "`make faults RATE=1000" in done.stdout


def test_the_list_names_every_fault() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "faults", "--list"], cwd=ROOT, capture_output=True, text=True, timeout=200, check=True
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == [fault.name for fault in FAULTS]


class Echo:
    """A server that answers what it is sent."""

    async def __aenter__(self) -> Echo:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @staticmethod
    async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes) -> bytes:
    writer.write(text)
    return await reader.read(100)


async def test_the_proxy_cuts_stalls_and_comes_back() -> None:
    async with Echo() as echo:
        proxy = Proxy("127.0.0.1", echo.port)
        await proxy.start()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await ask(reader, writer, b"a") == b"a"
            proxy.set(Mode.SLOW)
            assert await ask(reader, writer, b"b") == b"b"
            proxy.set(Mode.STALL)
            writer.write(b"c")
            answer = asyncio.create_task(reader.read(100))
            other = await asyncio.open_connection("127.0.0.1", proxy.port)
            held = asyncio.create_task(ask(*other, b"d"))
            done, _ = await asyncio.wait({answer, held}, timeout=0.3)
            assert not done, "nothing goes through"
            proxy.set(Mode.OPEN)
            assert (await answer, await held) == (b"c", b"d")
            proxy.set(Mode.CUT)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            refused = await asyncio.open_connection("127.0.0.1", proxy.port)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await refused[0].readexactly(1)
            proxy.set(Mode.OPEN)
            again = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await ask(*again, b"e") == b"e"
            assert proxy.connections == 4
            for each in (writer, other[1], refused[1], again[1]):
                each.close()
        finally:
            await proxy.stop()
