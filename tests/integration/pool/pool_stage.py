"""Members of a pool as tasks of the test, accounts of a simulated exchange, and its ledger as the judge."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from feedmill.accounts import store
from feedmill.accounts.audit import Who
from feedmill.accounts.declared import Declared
from feedmill.accounts.keyring import KeyFile
from feedmill.accounts.store import Account, Name, NewAccount
from feedmill.cli.migrate import migrate_sync
from feedmill.exchanges.base import VenueLimits
from feedmill.local.embedded import EmbeddedRedis
from feedmill.pool.fleets import FRONT, SWEEP, Budgets, Fleets
from feedmill.pool.service import Pool
from feedmill.pool.settings import PoolSettings
from feedmill.shared.budget import TokenBucket
from feedmill.shared.database_url import DatabaseUrl
from feedmill.shared.fleet import Fleet
from feedmill.shared.health import Health
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl
from feedmill.simulator import Simulator, SimulatorConfig, VenueConfig, default_limits
from feedmill.simulator.report import Report, VenueReport
from feedmill.simulator.verify import verify

SPOT, USDM, DERIBIT = VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")
WAIT = 120.0
WHO = Who("the test", "here")


async def until(condition: Callable[[], Any], seconds: float = WAIT) -> None:
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return
            await asyncio.sleep(0.02)


class Member:
    """One :class:`Pool` that runs."""

    def __init__(self, name: str, bed: Bed, settings: PoolSettings) -> None:
        self.health = Health("accounts")
        self.pool = Pool(
            settings, RedisUrl.parse(bed.redis.url), DatabaseUrl(bed.database_url), self.health,
            get_logger().bind(member=name),
        )  # fmt: skip
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self.pool.run(self.end), name=name)

    @property
    def accounts(self) -> dict[str, Any]:
        """The health section."""
        found = self.health.document()["accounts"]
        assert isinstance(found, dict)
        return found

    def listening(self, *names: str) -> bool:
        """These are held, listened to, and without a gap."""
        held = self.pool.holdings.held
        return all(name in held and held[name].state == "listening" for name in names)

    def dry(self, name: str) -> bool:
        """Held, listened to no longer, and all of it is stored."""
        held = self.pool.holdings.held.get(name)
        return held is not None and held.dry

    def problem(self, name: str) -> dict[str, str]:
        """What is wrong with an account; nothing is the empty one."""
        found = self.accounts["problems"].get(name, {})
        assert isinstance(found, dict)
        return found

    async def stop(self) -> None:
        self.end.set()
        await self.task


class Bed:
    def __init__(self, sim: Simulator, folder: Path, redis: EmbeddedRedis, database_url: str, kek: Path) -> None:
        self.sim, self.folder, self.redis, self.database_url, self.kek = sim, folder, redis, database_url, kek
        self.members: dict[str, Member] = {}
        self.settings = PoolSettings(
            key_file=kek, secrets_dir=folder / "secrets", list_every=0.1, lease_ttl=3.0, redis_reset=1.0,
            postgres_reset=1.0,
        )  # fmt: skip
        self.settings.secrets_dir.mkdir()  # type: ignore[union-attr]

    # -- the pool

    def member(self, name: str = "r0", **changes: Any) -> Member:
        made = self.members[name] = Member(name, self, replace(self.settings, replica=name, **changes))
        return made

    async def stop(self, name: str = "r0") -> None:
        await self.members.pop(name).stop()

    def holder(self, account: str) -> Member | None:
        """Who listens to it and has no gap."""
        return next((each for each in self.members.values() if each.listening(account)), None)

    async def listened(self, *names: str) -> None:
        def so() -> bool:
            for member in self.members.values():
                if member.task.done():
                    member.task.result()
            return all(self.holder(name) for name in names)

        try:
            await until(so)
        except TimeoutError:
            raise AssertionError(f"{names}: {[each.accounts for each in self.members.values()]}") from None

    # -- accounts

    def side(self, venue: str) -> Any:
        return self.sim.venues[venue].private

    def names(self, venue: str) -> list[str]:
        return [f"default/{account}" for account in self.side(venue).accounts]

    def secrets(self, venue: str, account: str) -> dict[str, SecretStr]:
        keys = self.side(venue).keys.of(account.rpartition("/")[2])
        key = [key for key in keys if key.kind == "hmac"][-1]
        return {"apiKey": SecretStr(key.id), "apiSecret": SecretStr(key.secret)}

    def endpoints(self, venue: str) -> dict[str, str]:
        stream, rest = self.sim.endpoints[venue]
        return {"stream": stream, "rest": rest}

    async def query(self, work: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
        connection = await asyncpg.connect(self.database_url)
        try:
            return await work(connection)
        finally:
            await connection.close()

    async def rows(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        found = await self.query(lambda connection: connection.fetch(statement, *values))
        return list(found)

    async def row(self, account: str) -> Account:
        found = await self.query(lambda connection: store.get(connection, Name.parse(account)))
        assert isinstance(found, Account)
        return found

    async def add(self, venue: str, *names: str, **options: Any) -> None:
        """To the credential store."""
        exchange, _, market = venue.partition("/")
        ring = KeyFile(self.kek).ring()
        for name in names:
            new = NewAccount(Name.parse(name), exchange, market, endpoints=self.endpoints(venue), **options)
            await self.query(lambda to, new=new, name=name: store.add(to, ring, new, self.secrets(venue, name), WHO))

    async def enable(self, account: str, enabled: bool) -> None:
        await self.query(lambda connection: store.set_enabled(connection, Name.parse(account), enabled, WHO))

    def declared(self, venue: str, account: str, *, enabled: bool = True) -> Declared:
        """As an ExchangeAccount whose Secret has the account's name."""
        exchange, _, market = venue.partition("/")
        name = Name.parse(account)
        return Declared(name, exchange, market, "Production", name.name, self.endpoints(venue), enabled)

    def write_secret(self, venue: str, account: str) -> None:
        """As it is now at the exchange, into the mounted Secret."""
        folder = self.settings.secrets_dir
        assert folder is not None
        (folder / account.rpartition("/")[2]).mkdir(exist_ok=True)
        for field, value in self.secrets(venue, account).items():
            path = folder / account.rpartition("/")[2] / field
            fresh = path.with_suffix(".new")
            fresh.write_text(value.get_secret_value())
            fresh.replace(path)

    # -- what happens, and what came of it

    async def step(self, count: int, *venues: str) -> None:
        for venue in venues or self.sim.venues:
            self.side(venue).step(count)
        await self.sim.drained()

    async def report(self) -> Report:
        return await verify(self.folder / "ledger", self.database_url)

    async def equal(self) -> None:
        """What is stored of every account of the list is the ledger, and nothing may be missing."""

        async def so() -> bool:
            return all(map(_ok, (await self.report()).venues))

        try:
            await until(so)
        except TimeoutError:
            report = await self.report()
            whys = [(each.accounts, each.notes) for each in report.venues]
            raise AssertionError(f"{whys}: {[each.accounts for each in self.members.values()]}") from None


def _ok(venue: VenueReport) -> bool:
    """Of transfers nothing is said: the engine's many actions of one ms make equal ones, which the venue does not
    tell apart."""
    found = venue.accounts
    flows = [flow for name, flow in found.flows.items() if name != "transfers"]
    wrong = any(flow.lost or flow.doubled or flow.phantom or flow.wrong for flow in flows)
    return not (wrong or found.half_filled or found.dead_letters or found.gaps_open)


def _plenty(self: Fleets, fleet: Fleet, limits: VenueLimits) -> Budgets:
    """As if the venues had no limits: what is tested is what happens, not how long a minute's weight lasts."""
    weight = TokenBucket(1e6, 1e6)
    return Budgets(weight, dict.fromkeys(("weight", "instruments", FRONT, SWEEP), weight), weight, 1e6)


@asynccontextmanager
async def bedded(
    venues: Sequence[str], accounts: int, redis: EmbeddedRedis, database_url: str, folder: Path, *, limited: bool
) -> AsyncIterator[Bed]:
    """``limited``: the pool keeps to the venues' real limits."""
    await asyncio.to_thread(migrate_sync, database_url)
    kek = folder / "kek"
    kek.touch(0o600)
    kek.write_text(f"test {base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    limits = {name: {} if name == DERIBIT else {"weight_window": 1e9, "weight": 100_000} for name in venues}
    made = tuple(
        VenueConfig(name, limits=default_limits(name, **limits[name]), rate=1, accounts=accounts, account_rate=0.0)
        for name in venues
    )
    async with Simulator(SimulatorConfig(made, ledger=folder / "ledger", id_base=1000)) as sim:
        patch = pytest.MonkeyPatch()
        if not limited:
            patch.setattr(Fleets, "_budgets", _plenty)
        bed = Bed(sim, folder, redis, database_url, kek)
        try:
            yield bed
        finally:
            for name in list(bed.members):
                await bed.stop(name)
            patch.undo()
