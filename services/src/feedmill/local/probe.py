"""Asks the services' health servers, all at once and with a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import aiohttp
import msgspec

TIMEOUT = 1.0
"""Seconds for one answer."""
MAX_BYTES = 4 << 20


class Prober:
    """One HTTP client for all services. Use as an async context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT), connector=aiohttp.TCPConnector(limit=32)
            )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _get(self, port: int, path: str) -> bytes | None:
        assert self._session is not None
        try:
            async with self._session.get(f"http://127.0.0.1:{port}{path}") as answer:
                if answer.status != 200:
                    return None
                body = await answer.content.read(MAX_BYTES)
                return body if answer.content.at_eof() or len(body) < MAX_BYTES else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def health(self, ports: Iterable[int]) -> dict[int, dict[str, Any] | None]:
        """Port -> its /health document, None where there was no (readable) answer."""
        wanted = list(dict.fromkeys(ports))
        bodies = await asyncio.gather(*(self._get(port, "/health") for port in wanted))
        return {port: _document(body) for port, body in zip(wanted, bodies, strict=True)}

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
