"""The simulator as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from feedmill.local.errors import ManagerError
from feedmill.local.process import ProcessSpec, ServiceProcess, State

START_TIMEOUT = 60.0
ADMIN_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one simulated exchange listens."""

    stream: str
    rest: str


class Simulation:
    """Runs ``feedmill simulate`` and talks to its admin paths."""

    def __init__(self, folder: Path, log_file: Path, arguments: Sequence[str]) -> None:
        """``folder``: for its port file. ``arguments``: of ``feedmill simulate``."""
        self._port_file = folder / "simulator.json"
        command = [sys.executable, "-m", "feedmill.cli.main", "simulate", *arguments]
        command += ["--port-file", str(self._port_file), "--stats-every", "0"]
        self._process = ServiceProcess(
            ProcessSpec("simulator", command, own_environment(), folder, log_file, role="simulator", grace=15.0)
        )
        self.endpoints: dict[str, Endpoint] = {}
        """Exchange market -> where it listens, after ``start``."""

    async def start(self) -> None:
        """Raises ManagerError with the simulator's own words."""
        self._port_file.unlink(missing_ok=True)
        self._process.start()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                found = await self._await_endpoints()
        except TimeoutError:
            await self.stop()
            raise ManagerError(f"the simulator did not start: see {self._process.spec.log_file}") from None
        self.endpoints = {
            name: Endpoint(entry["stream"], entry["rest"]) for name, entry in found.items() if "stream" in entry
        }

    async def _await_endpoints(self) -> dict[str, Any]:
        while True:
            try:
                found = json.loads(self._port_file.read_text())
                assert isinstance(found, dict)
                return found
            except (OSError, ValueError):
                if self._process.state is State.FAILED or self._process.restarts:
                    said = self._process.log.last_error or self._process.log.last_line
                    await self.stop()
                    raise ManagerError(f"the simulator refuses: {said}") from None
            await asyncio.sleep(0.05)

    async def end_of_flow(self) -> dict[str, dict[str, Any]]:
        """No more messages, from any exchange; returns the counts of each once all are delivered.

        A last message on every topic comes first, so that a hole before it would show.
        """
        answers = await asyncio.gather(*(self._post(venue, "stop", finish="1") for venue in self.endpoints))
        return dict(zip(self.endpoints, answers, strict=True))

    async def act(self, venue: str, count: int) -> None:
        """Let the accounts of a venue do ``count`` actions now. Raises ManagerError."""
        await self._post(venue, "accounts/step", count=str(count))

    async def cut_accounts(self, venue: str) -> None:
        """Cut the private connections of a venue's accounts. Raises ManagerError."""
        await self._post(venue, "fault", {"kind": "abort", "channel": "Account"})

    async def _post(self, venue: str, what: str, body: Mapping[str, str] | None = None, **query: str) -> dict[str, Any]:
        url = f"{self.endpoints[venue].rest}/_sim/{what}"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ADMIN_TIMEOUT)) as session,
                session.post(url, params=query, json=body) as answer,
            ):
                document = await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ManagerError(f"the simulator does not answer ({error}): see its log") from error
        assert isinstance(document, dict)
        return document

    async def stats(self) -> dict[str, dict[str, Any] | None]:
        """Counts now; None for an exchange that does not answer."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:

            async def one(rest: str) -> dict[str, Any] | None:
                try:
                    async with session.get(f"{rest}/_sim/stats") as answer:
                        document = await answer.json()
                        return document if isinstance(document, dict) else None
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                    return None

            answers = await asyncio.gather(*(one(endpoint.rest) for endpoint in self.endpoints.values()))
        return dict(zip(self.endpoints, answers, strict=True))

    async def stop(self) -> None:
        """Bounded; the ledger is whole afterwards."""
        self._process.signal(signal.SIGINT)
        await self._process.stop()


def own_environment() -> dict[str, str]:
    """Without the addresses of the user's own servers, which a demonstration never touches."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_URL", "DATABASE_URL"))}


def emitted(stats: Mapping[str, Any]) -> int:
    """Messages an exchange has emitted on all channels."""
    return sum(channel["emitted"] for channel in stats["channels"].values())
