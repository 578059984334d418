"""Asks processes' health servers, many at once and with a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeVar

import aiohttp
import msgspec

from feedmill.shared.http_body import read_body

TIMEOUT = 1.0
"""Seconds for one answer."""
MAX_BYTES = 4 << 20
AT_ONCE = 32

Place = TypeVar("Place", int, tuple[str, int])
"""A port of 127.0.0.1, or an address and a port."""


class Prober:
    """One HTTP client for all processes. Use as an async context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(AT_ONCE)
        """Outside of the client: whoever waits for a slot has not begun, and its time does not run."""

    async def open(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT), connector=aiohttp.TCPConnector(limit=AT_ONCE)
            )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _get(self, place: int | tuple[str, int], path: str) -> bytes | None:
        assert self._session is not None
        host, port = ("127.0.0.1", place) if isinstance(place, int) else place
        try:
            async with (
                self._slots,
                self._session.get(f"http://{f'[{host}]' if ':' in host else host}:{port}{path}") as answer,
            ):
                if answer.status != 200:
                    return None
                body = await read_body(answer, MAX_BYTES)
                return body if len(body) <= MAX_BYTES else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def health(self, places: Iterable[Place]) -> dict[Place, dict[str, Any] | None]:
        """Place -> its /health document, None where there was no (readable) answer."""
        wanted = list(dict.fromkeys(places))
        bodies = await asyncio.gather(*(self._get(place, "/health") for place in wanted))
        return {place: _document(body) for place, body in zip(wanted, bodies, strict=True)}

    async def metrics(self, ports: Iterable[int]) -> dict[int, str | None]:
        """Port -> its /metrics text, None where there was no answer."""
        wanted = list(dict.fromkeys(ports))
        bodies = await asyncio.gather(*(self._get(port, "/metrics") for port in wanted))
        return {
            port: None if body is None else body.decode("utf-8", "replace")
            for port, body in zip(wanted, bodies, strict=True)
        }


def _document(body: bytes | None) -> dict[str, Any] | None:
    if body is None:
        return None
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return document if isinstance(document, dict) else None
