"""Accounts listened to on the simulator: many on a connection, through faults, with keys that end; no secret kept."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from feedmill.exchanges.account_base import Credentials, Rejection
from feedmill.exchanges.registry import get_venue
from feedmill.receiver.accounts.lines import AccountLines
from feedmill.shared.account_events import Fill
from feedmill.shared.account_keys import fill_key
from feedmill.shared.budget import TokenBucket
from feedmill.shared.log import get_logger
from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig, default_limits

SPOT, USDM, DERIBIT = VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")


class Heard:
    """A sink that remembers, and can be waited on."""

    def __init__(self) -> None:
        self.frames: dict[str, list[bytes]] = defaultdict(list)
        self.told: list[tuple[str, str, str]] = []
        """(ready | lost, account, cause)."""
        self.whys: dict[str, Rejection | None] = {}
        self._changed = asyncio.Event()

    def frame(self, account: str, receive_ns: int, payload: bytes) -> None:
        assert receive_ns > 0
        self.frames[account].append(payload)
        self._changed.set()

    def ready(self, account: str) -> None:
        self.told.append(("ready", account, ""))
        self._changed.set()

    def lost(self, account: str, cause: str, why: Rejection | None) -> None:
        self.told.append(("lost", account, cause))
        self.whys[account] = why
        self._changed.set()

    def count(self, what: str, account: str) -> int:
        return sum(each[:2] == (what, account) for each in self.told)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class World:
    def __init__(self, name: str, sim: Any, heard: Heard, lines: AccountLines) -> None:
        self.name, self.sim, self.heard, self.lines = name, sim, heard, lines
        self.side = sim.venues[name].private
        self.accounts = list(self.side.accounts)

    def credentials(self, account: str) -> Credentials:
        key = [key for key in self.side.keys.of(account) if key.kind == "hmac"][-1]
        return Credentials(SecretStr(key.id), SecretStr(key.secret))

    async def listen(self) -> None:
        for account in self.accounts:
            self.lines.add(account, self.credentials(account))
        await self.heard.until(lambda: self.lines.ready == set(self.accounts))

    async def step(self, count: int) -> None:
        self.side.step(count)
        await self.sim.drained()

    def fills(self, account: str) -> list[tuple[str, str, str]]:
        listings = self.side.listings
        accounts = get_venue(*self.name.split("/")).accounts
        assert accounts is not None
        mapper = accounts.mapper({native: each.symbol for native, each in listings.items()})
        events = [event for raw in self.heard.frames[account] for event in mapper.map(raw, 1)]
        return [fill_key(event) for event in events if isinstance(event, Fill)]


@pytest.fixture
def world(tmp_path: Path):
    """``async with world(SPOT, accounts=2) as it``: nothing is listened to yet."""

    @asynccontextmanager
    async def start(name: str, accounts: int = 2, silence: float = 60.0, **limits: Any) -> AsyncIterator[World]:
        made = VenueConfig(name, limits=default_limits(name, **limits), rate=1, accounts=accounts, account_rate=0.0)
        async with Simulator(SimulatorConfig((made,), ledger=tmp_path / "ledger", id_base=1000)) as sim:
            heard = Heard()
            venue = get_venue(*name.split("/"))
            assert venue.accounts is not None
            lines = AccountLines(
                venue.accounts, *sim.endpoints[name], heard, weight=TokenBucket(5000, 100),
                connects=TokenBucket(100, 100), silence=silence, min_backoff=0.05, max_backoff=0.2,
                log=get_logger(),
            )  # fmt: skip
            running = asyncio.create_task(lines.run())
            try:
                yield World(name, sim, heard, lines)
            finally:
                running.cancel()
                await asyncio.wait({running})

    return start


def ledger_fills(tmp_path: Path, name: str, account: str) -> set[tuple[str, str, str]]:
    text = (tmp_path / "ledger" / f"{name.replace('/', '-')}.fills.tsv").read_text("utf-8")
    return {tuple(row.split("\t")[1:4]) for row in text.splitlines() if row.split("\t")[0] == account}  # type: ignore[misc]


@pytest.mark.parametrize("name", VENUES)
async def test_each_account_gets_its_own_events_and_no_secret_is_kept(world, tmp_path: Path, name: str) -> None:
    async with world(name, accounts=3) as it:
        await it.listen()
        assert it.lines.connections == (1 if name == SPOT else 3)
        await it.step(300)
        for account in it.accounts:
            wanted = ledger_fills(tmp_path, name, account)
            assert len(wanted) > 5
            await it.heard.until(lambda account=account, wanted=wanted: set(it.fills(account)) == wanted)
        kept = b"".join(raw for frames in it.heard.frames.values() for raw in frames)
        secrets = [text for key in it.side.keys.by_id.values() for text in (key.id, key.secret)]
        if name == USDM:
            secrets += [key.text for key in it.side.listen_keys.all()]
        if name == DERIBIT:
            secrets += list(it.sim.venues[name].tokens._by_text)
        assert len(secrets) >= 6
        assert [secret for secret in secrets if secret and secret.encode() in kept] == []


# Deribit's token ends without a word; its renewal shows it (test_private_connections).
ENDS = [
    (name, fault)
    for name in VENUES
    for fault in ("abort", "close", "expire_session")
    if (name, fault) != (DERIBIT, "expire_session")
]


@pytest.mark.parametrize(("name", "fault"), ENDS)
async def test_what_ends_is_told_and_begins_anew(world, tmp_path: Path, name: str, fault: str) -> None:
    async with world(name) as it:
        await it.listen()
        first, second = it.accounts
        assert it.sim.fault(
            fault, **({"symbol": first} if fault == "expire_session" else {"channel": "Account", "symbol": first})
        )
        await it.heard.until(lambda: it.heard.count("ready", first) == 2)
        assert [each[0] for each in it.heard.told if each[1] == first] == ["ready", "lost", "ready"]
        cause = next(each[2] for each in it.heard.told if each[:2] == ("lost", first))
        assert cause == ("expired" if fault == "expire_session" else "closed")
        if fault == "expire_session" or name != SPOT:
            assert it.heard.count("lost", second) == 0
        await it.heard.until(lambda: it.lines.ready == set(it.accounts))
        before = {account: len(it.fills(account)) for account in it.accounts}
        await it.step(150)
        for account in it.accounts:
            wanted = ledger_fills(tmp_path, name, account)
            await it.heard.until(lambda account=account, wanted=wanted: set(it.fills(account)) == wanted)
            assert len(wanted) > before[account]


@pytest.mark.parametrize("name", VENUES)
async def test_a_clock_that_is_wrong_does_not_keep_it_from_listening(world, name: str) -> None:
    async with world(name) as it:
        it.sim.fault("skew", seconds=-120)
        await it.listen()
        assert it.heard.count("lost", it.accounts[0]) == 0


@pytest.mark.parametrize("name", VENUES)
async def test_a_wrong_key_costs_its_account_only_and_the_right_one_mends_it(world, name: str) -> None:
    async with world(name) as it:
        first, second = it.accounts
        wrong = Credentials(SecretStr("PlantedKey" * 4), SecretStr("PlantedSecret" * 3))
        it.lines.add(first, wrong)
        it.lines.add(second, it.credentials(second))
        await it.heard.until(lambda: it.lines.ready == {second})
        async with asyncio.timeout(60):
            while first not in it.lines.problems:
                await asyncio.sleep(0.01)
        assert "rotate-key" in it.lines.problems[first]
        assert "Planted" not in str(it.lines.problems)
        it.lines.add(first, it.credentials(first))
        await it.heard.until(lambda: it.lines.ready == {first, second})
        assert it.heard.count("lost", second) == 0


@pytest.mark.parametrize("name", VENUES)
async def test_a_rotated_key_is_taken_up(world, tmp_path: Path, name: str) -> None:
    async with world(name) as it:
        await it.listen()
        first, second = it.accounts
        it.side.rotate(first, seconds=3600)
        it.lines.add(first, it.credentials(first))
        await it.heard.until(lambda: it.heard.count("ready", first) == 2)
        for key in it.side.keys.of(first)[: -len(it.side.keys.kinds)]:
            it.side.end_key(key, 0)
        it.side.housekeep(it.side.venue.now_ns() // 1_000_000)
        await it.step(150)
        wanted = ledger_fills(tmp_path, name, first)
        if name != USDM:  # Its listen key is the account's: with the key that made it, it ends.
            await it.heard.until(lambda: set(it.fills(first)) == wanted)
            assert it.heard.count("lost", first) == 1
        assert it.heard.count("lost", second) == 0


async def test_removing_one_of_many_leaves_the_others(world, tmp_path: Path) -> None:
    async with world(SPOT) as it:
        await it.listen()
        first, second = it.accounts
        it.lines.remove(first)
        assert it.lines.ready == {second}
        assert ("lost", first, "shutdown") in it.heard.told
        await it.step(150)
        wanted = ledger_fills(tmp_path, SPOT, second)
        await it.heard.until(lambda: set(it.fills(second)) == wanted)
        assert it.lines.connections == 1


async def test_hundreds_of_accounts_share_a_connection(world) -> None:
    async with world(SPOT, accounts=300) as it:
        await it.listen()
        assert it.lines.connections == 1
        await it.step(600)
        await it.heard.until(lambda: len(it.heard.frames) > 200)
        assert it.lines.problems == {}


async def test_a_venue_that_is_away_is_tried_again(world) -> None:
    async with world(USDM) as it:
        it.sim.fault("rest_500", path="/fapi/v1/listenKey", count=3)
        await it.listen()
        assert it.heard.count("lost", it.accounts[0]) == 0, "it was not listened to yet"


@pytest.mark.parametrize("name", [SPOT, USDM])
async def test_a_connection_that_says_nothing_is_made_anew(world, tmp_path: Path, name: str) -> None:
    """Not one that has nothing to say: the venue's pings show that it is there."""
    async with world(name, accounts=1, silence=3.0, ping_interval=0.2) as it:
        await it.listen()
        (account,) = it.accounts
        assert it.sim.fault("half_open", channel="Account", symbol=account, seconds=60) == 1
        await it.heard.until(lambda: it.heard.count("ready", account) == 2)
        assert it.heard.told[:3] == [("ready", account, ""), ("lost", account, "silent"), ("ready", account, "")]
        it.sim.fault("clear")
        await it.step(50)
        wanted = ledger_fills(tmp_path, name, account)
        await it.heard.until(lambda: set(it.fills(account)) == wanted)


@pytest.mark.parametrize("name", VENUES)
@pytest.mark.parametrize("variant", ["cut", "json", "utf8"])
async def test_a_frame_that_cannot_be_read_is_a_gap_and_not_kept(world, name: str, variant: str) -> None:
    async with world(name, accounts=1) as it:
        await it.listen()
        (account,) = it.accounts
        it.sim.fault("bad_bytes", channel="Account", symbol=account, count=1, variant=variant)
        it.side.step(20)
        await it.heard.until(lambda: it.heard.count("ready", account) == 2)
        assert it.heard.told[1][:2] == ("lost", account)
        assert it.heard.told[1][2] in ("unreadable", "closed")
        it.fills(account)  # What was kept can be read.
