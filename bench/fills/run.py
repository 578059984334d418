"""How long a fill takes from the socket to its commit: with the market silent, and with a burst of it beside.

Everything runs on this machine: simulated accounts, the process that listens to them, the market's exchange and its
receiver, distributor and processor, one Redis, one PostgreSQL. A fill's way ends with the commit of its row, whose time
PostgreSQL itself keeps (``track_commit_timestamp``): nothing polls while it is measured. It begins with the receive
time that the fill was given at the socket, and, to see what that leaves out, with the venue's own time (of 1 ms).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from faults.accounts import Accounts, up_to_date

from bench.feedmill_run import SHARD, Feedmill
from bench.frames import SYMBOLS
from bench.processes import BenchError, Child, Watch
from bench.run import quantile
from bench.stamps import Stamps
from bench.stores import Stores
from bench.systems import Bed
from bench.tls import Certificate
from feedmill.local.demo.simulation import Simulation
from feedmill.simulator.report import Accounts as AccountsReport
from feedmill.simulator.verify import verify

VENUES = ("binance/Spot", "binance/UsdM", "deribit/Derivatives")
READY_SECONDS = 120.0
SETTLE_SECONDS = 5.0
WARM_SECONDS = 2.0
DRAIN_SECONDS = 120.0
ENOUGH = 200
"""Fills that a half must have: of fewer a 99th percentile says nothing."""
QUIET = "    reconnect: {silenceTimeout: 10m}\n"
"""The market is silent for half of the run, and that is no fault."""

_FILLS = """
SELECT receive_ns, exchange_ns, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000000)::bigint AS commit_ns
FROM fills WHERE flags & 2 = 0 AND receive_ns >= $1 AND receive_ns < $2
"""


@dataclass(frozen=True, slots=True)
class Load:
    """``seconds`` of each half; ``rate`` messages a second of the market in the second one."""

    seconds: float
    rate: int
    accounts: int
    """At each venue."""
    account_rate: float
    """Actions a second of a venue's accounts."""


@dataclass(frozen=True, slots=True)
class Half:
    """Of its fills; ms."""

    fills: int
    p50: float
    p99: float
    worst: float
    venue_p50: float
    """From the venue's own time on."""
    venue_p99: float
    cpu: float
    """Of the accounts' process, ms a second."""
    others: float
    """Share of all cores that the two simulators and whatever is no part of the bench used."""


@dataclass(frozen=True, slots=True)
class Found:
    idle: Half
    burst: Half
    market: int
    """Messages of the burst, all stored."""

    @property
    def ratio(self) -> float:
        return self.burst.p99 / self.idle.p99


def _half(rows: list[asyncpg.Record], cpu: float, others: float) -> Half:
    if len(rows) < ENOUGH:
        raise BenchError(f"only {len(rows)} fills in a half: longer (--seconds), or more of them (--account-rate)")
    own = sorted(row["commit_ns"] - row["receive_ns"] for row in rows)
    whole = sorted(row["commit_ns"] - row["exchange_ns"] for row in rows)
    p50, p99, venue_p50, venue_p99 = (quantile(times, share) / 1e6 for times in (own, whole) for share in (0.5, 0.99))
    return Half(len(rows), p50, p99, own[-1] / 1e6, venue_p50, venue_p99, cpu, others)


async def measure(load: Load, certificate: Certificate, logs: Path) -> Found:
    """Raises BenchError when a part fails, or something was lost or doubled."""
    with tempfile.TemporaryDirectory(prefix="feedmill-bench-") as name:
        folder = Path(name)
        stores = await Stores.start(folder, options={"track_commit_timestamp": "on"})
        try:
            accounts = Accounts(folder)
            simulation = Simulation(folder, logs / "simulator.log", _simulate(load, folder, accounts))
            await simulation.start()
            try:
                return await _with_exchange(load, certificate, logs, folder, stores, accounts, simulation)
            finally:
                await simulation.stop()
        finally:
            await stores.stop()


def _simulate(load: Load, folder: Path, accounts: Accounts) -> list[str]:
    asked = [part for venue in VENUES for part in ("--exchange", venue)]
    asked += ["--accounts", str(load.accounts), "--account-rate", f"{load.account_rate:g}"]
    return [*asked, "--keys", str(accounts.keys_file), "--ledger", str(folder / "ledger"), "--rate", "1"]


async def _with_exchange(
    load: Load, certificate: Certificate, logs: Path, folder: Path, stores: Stores, accounts: Accounts,
    simulation: Simulation,
) -> Found:  # fmt: skip
    sent = Stamps(folder / "sent", count=int(load.rate * (WARM_SECONDS + load.seconds)))
    command: list[str | Path] = [sys.executable, "-m", "bench.server", "--symbols", ",".join(SYMBOLS)]
    command += ["--cert", certificate.cert, "--key", certificate.key]
    system = Feedmill("rows", "Adaptive", QUIET)
    try:
        with Child("exchange", command, log=logs / "exchange.log", lines=True) as exchange:
            port = exchange.wait_event("listening", timeout=10)["port"]
            exchange.say(do="load", stamps=str(sent.path))
            exchange.wait_event("loaded", timeout=10)
            bed = Bed(logs, certificate, port, stores)
            try:
                await system.start(bed)
                await asyncio.to_thread(exchange.wait_event, "subscribed", timeout=READY_SECONDS)
                await accounts.register(stores.database_url)
                arguments = ["--pipeline", f"{SHARD.namespace}/main", "--kek-file", str(accounts.kek_file)]
                await system.add("accounts", arguments, bed)
                found = await _halves(load, system, exchange, stores, accounts)
                await _compare(simulation, folder, stores)
                return found
            finally:
                await system.stop()
    finally:
        sent.close()


async def _halves(load: Load, system: Feedmill, exchange: Child, stores: Stores, accounts: Accounts) -> Found:
    connection = await asyncpg.connect(stores.database_url)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not up_to_date(await accounts.state(connection), len(accounts.names), 0):
            system.check()
            if time.monotonic() > deadline:
                raise BenchError(f"the accounts were not reconciled within {READY_SECONDS:.0f} s")
            await asyncio.sleep(0.2)
        await asyncio.sleep(SETTLE_SECONDS)
        idle = await _during(load, system, stores, connection)
        exchange.say(do="go", rate=load.rate)
        await asyncio.to_thread(exchange.wait_event, "started", timeout=60)
        await asyncio.sleep(WARM_SECONDS)
        burst = await _during(load, system, stores, connection)
        await asyncio.to_thread(exchange.wait_event, "done", timeout=DRAIN_SECONDS)
        count = int(load.rate * (WARM_SECONDS + load.seconds))
        deadline = time.monotonic() + DRAIN_SECONDS
        while not await system.arrived(count):
            if time.monotonic() > deadline:
                raise BenchError("the market's last message was not stored")
            await asyncio.sleep(0.05)
        total, distinct = await system.counted()
        if (total, distinct) != (count, count):
            raise BenchError(f"{count} messages of the market sent, {distinct} stored, {total - distinct} doubled")
        return Found(idle, burst, count)
    finally:
        await connection.close()


async def _during(load: Load, system: Feedmill, stores: Stores, connection: asyncpg.Connection) -> Half:
    """One half; its fills are read once those of its end are stored."""
    watch = Watch()
    watch.add("accounts", system.children["accounts"].pid)
    for name, child in system.children.items():
        if name != "accounts":
            watch.add(name, child.pid)
    for name, pid in stores.pids.items():
        watch.add(name, pid, memory=False)
    watch.start()
    begin = time.time_ns()
    try:
        watch.mark()
        await asyncio.sleep(load.seconds)
        watch.end()
    finally:
        watch.close()
    end = time.time_ns()
    system.check()
    await asyncio.sleep(1.0)
    rows = await connection.fetch(_FILLS, begin, end)
    return _half(list(rows), watch.processes["accounts"].cpu / load.seconds * 1e3, watch.others)


async def _compare(simulation: Simulation, folder: Path, stores: Stores) -> None:
    """The accounts with their ledger, once all of it is stored. Not transfers: Deribit's come with the next look."""
    await simulation.end_of_flow()
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        # The market's own trades are of another exchange, and none of this ledger.
        report = await verify(folder / "ledger", stores.database_url)
        wrong = {venue.venue: venue.accounts for venue in report.venues if not _whole(venue.accounts)}
        if not wrong:
            return
        if time.monotonic() > deadline:
            raise BenchError(f"what is stored of the accounts is not their ledger: {wrong}")
        await asyncio.sleep(1.0)


def _whole(found: AccountsReport) -> bool:
    flows = (flow for kind, flow in found.flows.items() if kind != "transfers")
    return bool(found.known) and not found.half_filled and all(flow.ok for flow in flows)
