"""Helpers for tests that talk to a running simulator with independent clients."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig, default_limits

sys.path.insert(0, str(Path(__file__).parent))

Start = Callable[..., AbstractAsyncContextManager[Simulator]]


@pytest.fixture
def simulate(tmp_path: Path) -> Start:
    """``async with simulate("binance/Spot", rate=500, limits={...}) as simulator``; ledger in tmp_path/ledger."""

    @asynccontextmanager
    async def start(
        venue: str, *, limits: dict[str, Any] | None = None, config: dict[str, Any] | None = None, **fields: Any
    ) -> AsyncIterator[Simulator]:
        fields.setdefault("rate", 500)
        made = VenueConfig(venue, limits=default_limits(venue, **(limits or {})), **fields)
        async with Simulator(
            SimulatorConfig((made,), ledger=tmp_path / "ledger", id_base=1000, **(config or {}))
        ) as simulator:
            yield simulator

    return start


class Client:
    """A WebSocket client that keeps what it got and can wait for a message by condition."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.got: list[Any] = []
        self.raw: list[bytes] = []
        """The same messages as received."""

    async def send(self, message: Any) -> None:
        await self.socket.send(message if isinstance(message, str) else json.dumps(message))

    async def next(self) -> Any:
        return self._take(await asyncio.wait_for(self.socket.recv(), 60))

    def _take(self, data: str | bytes) -> Any:
        self.raw.append(data.encode() if isinstance(data, str) else data)
        self.got.append(json.loads(data))
        return self.got[-1]

    async def until(self, condition: Callable[[Any], bool]) -> Any:
        while not condition(message := await self.next()):
            pass
        return message

    async def ask(self, message: dict[str, Any]) -> Any:
        await self.send(message)
        return await self.until(lambda got: got.get("id") == message.get("id") or "code" in got)

    async def read(self, count: int) -> list[Any]:
        return [await self.next() for _ in range(count)]

    async def drain(self) -> None:
        """Take what is there until nothing came for a while or the connection ended."""
        quiet = 0
        try:
            while quiet < 2:  # Twice in turn: a process that was held up finds its time over before it has read.
                try:
                    self._take(await asyncio.wait_for(self.socket.recv(), 0.1))
                    quiet = 0
                except TimeoutError:
                    quiet += 1
        except websockets.ConnectionClosed:
            pass

    async def closed(self) -> tuple[int | None, str]:
        """Read until the server ends it: (close code as received, None for a reset; reason)."""
        try:
            while True:
                await asyncio.wait_for(self.socket.recv(), 60)
        except websockets.ConnectionClosed as error:
            return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (None, "")


@pytest.fixture
def connect() -> Callable[[str], AbstractAsyncContextManager[Client]]:
    @asynccontextmanager
    async def open_(url: str) -> AsyncIterator[Client]:
        async with websockets.connect(url, max_size=None, open_timeout=60, close_timeout=1) as socket:
            yield Client(socket)

    return open_


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[[str, str], list[list[str]]]:
    """``ledger("binance/Spot", "trades")`` -> rows of text."""

    def read(venue: str, kind: str) -> list[list[str]]:
        path = tmp_path / "ledger" / f"{venue.replace('/', '-')}.{kind}.tsv"
        return [line.split("\t") for line in path.read_text("utf-8").splitlines()]

    return read
