"""Where the pipeline's processes serve their health, and what they say there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedmill.shared.config import ConfigError
from feedmill.shared.probe import Prober

RESOLVE = 3.0
"""Seconds for a name server to answer."""
_UNUSED = ("freshness",)
"""Per instrument, and judged by the receiver itself."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with port files (``NAME.port``, of processes on 127.0.0.1), or a host with all its addresses."""

    folder: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Place:
        """``HOST:PORT``, else a folder. Raises ConfigError."""
        host, _, port = text.rpartition(":")
        if host and port.isdigit() and "/" not in text:
            if not 1 <= int(port) <= 65535:
                raise ConfigError(f"--processes {text}: the port is not 1 to 65535")
            return cls(host=host.strip("[]"), port=int(port))
        return cls(folder=Path(text).expanduser().absolute())


class Processes:
    """Asks them all. ``open`` and ``close`` it."""

    def __init__(self, place: Place | None) -> None:
        self._place = place
        self._prober = Prober()
        self.error = ""
        """Why their addresses are not known."""

    async def open(self) -> None:
        await self._prober.open()

    async def close(self) -> None:
        await self._prober.close()

    async def look(self) -> list[Mapping[str, Any]] | None:
        """The ``/health`` documents of those that answer; None = there is no place to look at."""
        place = self._place
        if place is None:
            return None
        if place.folder is not None:
            ports = await asyncio.to_thread(_ports, place.folder)
            found: list[dict[str, Any] | None] = list((await self._prober.health(ports)).values())
        else:
            found = list((await self._prober.health(await self._addresses(place))).values())
        return [_pruned(document) for document in found if document is not None]

    async def _addresses(self, place: Place) -> list[tuple[str, int]]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(RESOLVE):
                answers = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            self.error = f"{place.host}: {getattr(error, 'strerror', None) or type(error).__name__}"
            return []
        self.error = ""
        return sorted({(str(address[0]), place.port) for *_, address in answers})


def _ports(folder: Path) -> list[int]:
    found = []
    for file in sorted(folder.glob("*.port")):
        try:
            found.append(int(file.read_text()))
        except (OSError, ValueError):
            continue  # Being written, or of a process that just ended.
    return found


def _pruned(document: dict[str, Any]) -> dict[str, Any]:
    connections = document.get("connections")
    if isinstance(connections, dict):
        for section in connections.values():
            if isinstance(section, dict):
                for name in _UNUSED:
                    section.pop(name, None)
    return document
