"""A pool of account receivers that runs, on real servers and a simulated exchange, while its secrets change."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from bench.accounts.stage import Stage, agree, until

from feedmill.local.embedded import EmbeddedRedis

WAIT = 90.0
SPOT = "binance/Spot"


class Bed(Stage):
    """One member; accounts act when they are told to."""

    async def step(self, count: int) -> None:
        """So many actions, one after the other: Binance's transfers of one amount in one ms cannot be told apart."""
        for _ in range(count):
            await self.post("accounts/step", count="1")
            await asyncio.sleep(0.002)

    async def at_rest(self, accounts: int | None = None, wait: float = WAIT) -> None:
        """Every account (so many) is listened to, and no gap is open."""
        count = len(self.keys()) if accounts is None else accounts

        async def resting() -> bool:
            told, still_open = await self.gaps()
            # What was before an account was first listened to is a gap: its row may come after the word "listening".
            return await self.states("listening") == count and told >= count and still_open == 0

        try:
            await until(resting, wait, "all accounts listen")
        except TimeoutError:
            found = [await self.health(member) for member in self.members.values()]
            pytest.fail(f"{[each.get('accounts') for each in found]}\n{self.trouble()}")

    async def health_is(self, condition: Callable[[dict[str, Any]], Any], what: str) -> None:
        """Until every member's health document is so."""

        async def holds() -> bool:
            found = [await self.health(member) for member in self.members.values()]
            return all(found) and all(map(condition, found))  # Empty: it did not answer this time.

        try:
            await until(holds, WAIT, what)
        except TimeoutError:
            pytest.fail(f"{what}: {[await self.health(each) for each in self.members.values()]}\n{self.trouble()}")

    async def run(self, *arguments: str, given: str = "") -> str:
        """``feedmill accounts ...`` as a user runs it; answers what it says."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_URL", "FEEDMILL_KEK"))}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "feedmill.cli.main", "accounts", *arguments,
            env=kept | {"DATABASE_URL": self.database_url, "FEEDMILL_KEK_FILE": str(self.kek)},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate(given.encode())
        assert process.returncode == 0, said.decode()
        return said.decode()

    async def equal(self) -> None:
        """What is stored is what the exchange has, and nobody had to be started again."""
        report = await self.verified(WAIT)
        [venue] = report.venues
        if not agree(venue):
            gaps = await self.rows(
                "SELECT shard, cause, state, from_ns, to_ns, revision FROM gaps WHERE channel = 'Account'"
            )
            pytest.fail(f"{venue.notes}\n{[tuple(row) for row in gaps]}\n{venue.accounts}\n{self.trouble()}")
        accounts = venue.accounts
        assert accounts.known == accounts.emitted > 0
        assert accounts.flows["fills"].emitted == accounts.flows["fills"].stored > 50
        assert (accounts.gaps_open, accounts.dead_letters) == (0, 0)
        assert all(member.alive for member in self.members.values())


Start = Callable[..., Awaitable[Bed]]


@pytest.fixture
async def start_pool(tmp_path: Path, redis_server: EmbeddedRedis, database_url: str) -> AsyncIterator[Start]:
    """``await start_pool()`` -> a :class:`Bed` with one member, whose accounts all listen."""
    async with AsyncExitStack() as stack:

        async def start(
            venue: str = SPOT, accounts: int = 3, *, redis_url: str = "", postgres_url: str = "",
            listening: int | None = None, wait: float = WAIT,
        ) -> Bed:  # fmt: skip
            bed = Bed(tmp_path, database_url)
            await bed.begin(venue, accounts, 0.0, redis_url or redis_server.url, postgres_url or database_url)
            stack.push_async_callback(bed.end)
            await bed.add_accounts()
            await bed.member("pool-0")
            await bed.at_rest(listening, wait)
            return bed

        yield start
